"""ROAM: random hidden-layer mixup of labelled and unlabelled images.

Bdair, Wiestler, Navab, Albarqouni: ROAM: Random Layer Mixup for Semi-Supervised Learning in Medical Imaging,
arXiv 2003.09439. With `layers = ("input",)` it is MixMatch (Berthelot et al., arXiv 1905.02249): `preset = "mixmatch"`.

What differs from the authors' code, unless `preset = "2020"`: skip connections around the mixed layer are mixed with
the same draw (there, the decoder saw them unmixed while the target was mixed); the label guess comes from the
average network in evaluation mode; unlabelled images and their guesses get EquiReg's warp before they are mixed;
every layer of the set can be drawn; weights are for sums over classes.
"""

from __future__ import annotations

import difflib
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from semiseg import losses
from semiseg.draws import Draws
from semiseg.errors import UserError
from semiseg.methods.method import PUBLISHED_WARP, ConsistencyConfig, Method, confident, strengthen
from semiseg.networks.frozen import forward_frozen
from semiseg.transforms.hidden import edited
from semiseg.transforms.intensity import Intensity, IntensityConfig
from semiseg.transforms.mixing import Mix, sharpen
from semiseg.transforms.warp import Warp, WarpConfig
from semiseg.types import IGNORE, Batch, Objective


class RoamConfig(ConsistencyConfig):
    """Settings of ROAM; the letters are the paper's."""

    presets: ClassVar = {
        # the published settings for 28 classes: 75 on a mean over classes is 75/28 on a sum
        "2020": {
            "augment": False,
            "ema": 0.0,
            "weight": 75 / 28,
            "ramp_start": 0.0,
            "ramp_end": 1.0,
            "temperature": 0.5,
            "alpha": 0.75,
            "layers": ("input", "1", "last"),
            "mix_skips": False,
            "warp": WarpConfig(probability=0),
            "dice": False,
        },
        # the published settings for 10 classes: 75 on a mean over classes is 75/10 on a sum
        "mixmatch": {
            "ema": 0.0,
            "weight": 75 / 10,
            "ramp_start": 0.0,
            "ramp_end": 1.0,
            "temperature": 0.5,
            "alpha": 0.75,
            "layers": ("input",),
            "per_sample": True,
            "mix_skips": False,  # there is none around the input: for networks that do not name theirs
            "views": 2,
            "warp": WarpConfig(probability=0),
            "dice": False,
        },
    }

    layers: tuple[str, ...] = Field(default=("input", "1", "last"), min_length=1)
    """The layers to draw from, evenly, at every step: `input`; `1`, `2`, ... for the output of that encoder block;
    `last` for the last decoder block, before the head; or a layer's own name."""
    alpha: float = Field(default=0.75, gt=0)
    """Of the Beta distribution that the mixing share is drawn from."""
    per_sample: bool = False
    """Draw one share a sample instead of one a batch."""
    mix_skips: bool = True
    """Mix every skip connection that leads around the mixed layer. False leaks the unmixed image to the decoder."""
    warp: WarpConfig = PUBLISHED_WARP
    """Geometry of the strong view of unlabelled images and their guesses, as in EquiReg. Probability 0: none."""
    dice: bool = True
    """Soft Dice beside cross-entropy on the labelled rows, as in the baseline."""
    views: int = Field(default=1, ge=1)
    """The guess is the mean over so many views of an image: as it is, and with its intensities changed (MixMatch)."""
    view_intensity: IntensityConfig = IntensityConfig(
        probability=0.5, contrast=0.3, brightness=0.2, gamma=0.3, noise=0.15, blur=0.8
    )
    """Changes of the views after the first. Not geometric, so that all views agree on what lies where."""
    temperature: float = Field(default=0.5, gt=0)
    weight: float = Field(default=2.0, ge=0)
    ramp_end: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _views_differ(self) -> RoamConfig:
        if self.views > 1 and self.view_intensity.probability == 0:
            raise ValueError(f"views {self.views}: expected view_intensity.probability above 0, or views 1")
        return self


class Roam(Method):
    """Mix a random layer's features and the targets with one draw; cross-entropy on labelled rows, squared error on
    unlabelled ones."""

    Config = RoamConfig
    config: RoamConfig

    @property
    def wants_unlabelled(self) -> bool:
        return self.config.unlabelled

    def __init__(self, network: nn.Module, config: RoamConfig) -> None:
        super().__init__(network, config)
        if config.mix_skips and not hasattr(network, "edits_at"):
            raise UserError(
                f"method.mix_skips: got true, but {type(network).__name__} does not name its skip connections; "
                "set method.mix_skips=false"
            )
        self.layers = [layer_named(network, name) for name in config.layers]

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        config, labelled = self.config, len(batch.image)
        image, valid = batch.image, batch.label != IGNORE
        weight = config.weight_at(progress)
        watch = {"weight": weight}
        # before the ramp, guesses are only noise: the labelled images are mixed among themselves
        unlabelled = len(batch.unlabelled) > 0 and config.learns_from_unlabelled(progress)
        if unlabelled:
            guess = self.guess(batch.unlabelled, draws)
            watch["guess foreground"] = float((guess.argmax(1) > 0).float().mean())
            guess = sharpen(guess, config.temperature)
            u, inside = batch.unlabelled, batch.inside
            if config.warp.probability > 0:
                warp = Warp.draw(u.shape, config.warp, batch.spacing_mm, draws.of("strong warp"), u.device)
                u, guess, inside = warp(u), warp(guess), warp.inside & warp.mask(inside)
            u, guess, inside = strengthen(u, guess, inside, config, draws)
            image, valid = torch.cat([image, u]), torch.cat([valid, inside])

        mix = Mix.draw(len(image), config.alpha, draws.of("mix"), config.per_sample)
        edits_at = getattr(self.network, "edits_at", None)
        layer = self.layers[int(torch.randint(len(self.layers), (), generator=draws.of("layer")))]
        edits = edits_at(layer, mix) if config.mix_skips and callable(edits_at) else {layer: mix}
        with edited(self.network, edits):
            logits = self.network(image)

        target = losses.one_hot(batch.label, logits.shape[1])
        if unlabelled:
            target = torch.cat([target, guess])
        certain = mix.mask(confident(target, config.confidence))
        target, valid = mix(target), mix.mask(valid)

        rows = slice(None, labelled)
        entropy = losses.labelled_entropy(target[rows], logits[rows], config.regions)
        terms = {"supervised": losses.masked_mean(entropy, valid[rows])}
        if config.dice:
            terms["dice"] = losses.soft_dice(target[rows], logits[rows], valid[rows], config.regions)
        if unlabelled:
            rows = slice(labelled, None)
            # voxels that are not certain count as zero, so few certain ones do not weigh more
            error = torch.where(certain[rows], losses.squared_error(target[rows], logits[rows]), 0)
            terms["consistency"] = weight * losses.masked_mean(error, valid[rows])
        return Objective(terms, watch)

    def guess(self, u: Float[Tensor, "b c *spatial"], draws: Draws) -> Float[Tensor, "b classes *spatial"]:
        """The predictor's probabilities, held constant: their mean over the views (MixMatch, eq. 6)."""
        total = forward_frozen(self.predictor, u).softmax(1)
        for number in range(2, self.config.views + 1):
            changed = Intensity.draw(u.shape, self.config.view_intensity, draws.of(f"view {number}"))
            total = total + forward_frozen(self.predictor, changed(u)).softmax(1)
        return total / self.config.views


def layer_named(network: nn.Module, name: str) -> str:
    """The network's name for a layer of the paper: `input`, `1`, `2`, ... (encoder blocks), `last`."""
    layers: list[str] = getattr(network, "layers", [module for module, _ in network.named_modules() if module])
    if name == "last":
        return layers[-1]
    found = f"encoder.stages.{int(name) - 1}" if name.isdecimal() else name
    if found not in layers:
        close = difflib.get_close_matches(name, layers, n=3)
        names = ", ".join(layers if len(layers) <= 16 else close)
        raise UserError(
            f"method.layers: got {name!r}, expected input, 1, 2, ..., last or {names or 'the name of a layer'}; "
            "`semiseg layers` lists them"
        )
    return found
