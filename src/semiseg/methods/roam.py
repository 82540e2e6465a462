"""ROAM: random hidden-layer mixup of labelled and unlabelled images.

Bdair, Wiestler, Navab, Albarqouni: ROAM: Random Layer Mixup for Semi-Supervised Learning in Medical Imaging,
arXiv 2003.09439. With `layers = ("input",)` it is MixMatch (Berthelot et al., arXiv 1905.02249): `preset = "mixmatch"`.

What differs from the authors' code, unless `preset = "2020"`: labelled images are not mixed, but unlabelled ones are
with all, as many classes are learned late from mixed labels; skip connections around the mixed layer are mixed with
the same draw (there, the decoder saw them unmixed while the target was mixed); the label guess comes from the average
network in evaluation mode; unlabelled images and their guesses get EquiReg's warp before they are mixed; every layer
of the set can be drawn; weights are for sums over classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from semiseg import losses
from semiseg.draws import Draws
from semiseg.errors import UserError
from semiseg.methods.method import SemiSupervised
from semiseg.methods.strong import PUBLISHED_WARP, ConsistencyConfig, Strong, confident
from semiseg.networks.editable import layer_named
from semiseg.networks.frozen import forward_frozen
from semiseg.transforms.hidden import edited
from semiseg.transforms.intensity import Intensity, IntensityConfig
from semiseg.transforms.mixing import Mix, sharpen
from semiseg.transforms.warp import WarpConfig
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
            "mix_labelled": True,
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
            "mix_labelled": True,
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
    mix_labelled: bool = False
    """Mix labelled images too. False: they are seen as they are, and unlabelled ones are mixed with all. Without
    unlabelled images they are mixed in any case."""
    mix_skips: bool = True
    """Mix every skip connection that leads around the mixed layer. False leaks the unmixed image to the decoder."""
    warp: WarpConfig = PUBLISHED_WARP
    """Geometry of the strong view of unlabelled images and their guesses, as in EquiReg. Probability 0: none."""
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


class Roam(SemiSupervised):
    """Mix a random layer's features and the targets with one draw; cross-entropy on labelled rows, squared error on
    unlabelled ones."""

    Config = RoamConfig
    config: RoamConfig

    def __init__(self, network: nn.Module, config: RoamConfig) -> None:
        super().__init__(network, config)
        if config.mix_skips and not hasattr(network, "edits_at"):
            raise UserError(
                f"method.mix_skips: got true, but {type(network).__name__} does not name its skip connections; "
                "set method.mix_skips=false"
            )
        self.layers = [layer_named(network, name) for name in config.layers]

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        labelled, others = slice(None, len(batch.image)), slice(len(batch.image), None)
        u, guess, inside = self.guesses(batch, draws, progress)
        image = torch.cat([batch.image, *u])
        mix = Mix.draw(len(image), self.config.alpha, draws.of("mix"), self.config.per_sample)
        if self.wants_unlabelled and not self.config.mix_labelled:
            mix = mix.sparing(len(batch.image))
        with edited(self.network, self.edits(mix, draws.of("layer"))):
            logits = self.network(image)
        label, watch = self.unlearned(batch.label, logits[labelled], progress)
        target = torch.cat([losses.one_hot(label, logits.shape[1]), *guess])
        valid = torch.cat([label != IGNORE, *inside])
        certain, valid, target = mix.mask(confident(target, self.config.confidence)), mix.mask(valid), mix(target)
        objective = Objective(self.labelled_terms(target[labelled], logits[labelled], valid[labelled]), watch)
        if not u:
            return objective
        error = losses.squared_error(target[others], logits[others])
        return objective + self.consistency(error, valid[others], progress, guess[0], certain[others])

    def guesses(self, batch: Batch, draws: Draws, progress: float) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Strong views of the unlabelled images, their sharpened guesses, and where both are valid; nothing before the
        ramp: guesses are only noise then, and labelled images are alone."""
        u, config = batch.unlabelled, self.config
        if not len(u) or not config.learns_from_unlabelled(progress):
            return [], [], []
        strong = Strong.draw(u.shape, config, batch.spacing_mm, draws.within("strong"), u.device)
        guess = sharpen(self.guess(u, draws), config.temperature)
        return [strong.image(u)], [strong.target(guess)], [strong.mask(batch.inside)]

    def guess(self, u: Float[Tensor, "b c *spatial"], draws: Draws) -> Float[Tensor, "b classes *spatial"]:
        """The predictor's probabilities, held constant: their mean over the views (MixMatch, eq. 6)."""
        total = forward_frozen(self.predictor, u).softmax(1)
        for number in range(2, self.config.views + 1):
            changed = Intensity.draw(u.shape, self.config.view_intensity, draws.of(f"view {number}"))
            total = total + forward_frozen(self.predictor, changed(u)).softmax(1)
        return total / self.config.views

    def edits(self, mix: Mix, generator: torch.Generator) -> Mapping[str, Callable[..., Any]]:
        """`mix` at a layer drawn from the set and, with `mix_skips`, at every skip that leads around it."""
        layer = self.layers[int(torch.randint(len(self.layers), (), generator=generator))]
        edits_at = getattr(self.network, "edits_at", None)
        return edits_at(layer, mix) if self.config.mix_skips and callable(edits_at) else {layer: mix}

    def labelled_terms(
        self,
        target: Float[Tensor, "b classes *spatial"],
        logits: Float[Tensor, "b classes *spatial"],
        valid: Bool[Tensor, "b *spatial"],
    ) -> dict[str, Tensor]:
        """Cross-entropy and soft Dice against mixed labels."""
        regions = self.config.regions
        terms = {"supervised": losses.masked_mean(losses.labelled_entropy(target, logits, regions), valid)}
        return terms | {"dice": losses.soft_dice(target, logits, valid, regions)} if self.config.dice else terms
