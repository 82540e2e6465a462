"""EquiReg: what the network says of a warped image should be the warp of what it says of the image.

Semi-Supervised Medical Image Segmentation with Equivariance Regularization, master's thesis, Lund University, 2020;
built on UDA (Xie et al., arXiv 1904.12848). With an average teacher, intensity changes, CutMix and a confidence
threshold, which are on by default, it is strong-weak consistency whose strong view is also geometric (FixMatch,
UniMatch).

What differs from the author's code, unless `preset = "2020"`: those four; soft Dice beside cross-entropy; every part
of the warp for every image, without mirrors; probabilities are warped, not logits.
Always: one warp object moves image, target and validity; interpolation is linear; voxels from outside the picture are
left out; every sample gets a fresh weak view.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from semiseg import losses
from semiseg.draws import Draws
from semiseg.methods.method import PUBLISHED_WARP, STRONG_INTENSITY, ConsistencyConfig, Method, confident, strengthen
from semiseg.networks.frozen import forward_frozen
from semiseg.schedules import annealing_threshold
from semiseg.transforms.intensity import IntensityConfig
from semiseg.transforms.mixing import sharpen
from semiseg.transforms.warp import Warp, WarpConfig
from semiseg.types import IGNORE, Batch, Objective


class EquiRegConfig(ConsistencyConfig):
    """Settings of EquiReg."""

    presets: ClassVar = {
        "2020": {
            "ema": 0.0,
            "intensity": IntensityConfig(),
            "cutmix": 0.0,
            "confidence": 0.0,
            "weight": 1.0,
            "ramp_start": 0.0,
            "ramp_end": 0.0,
            "temperature": 1.0,
            "warp": PUBLISHED_WARP.model_copy(update={"flip": (0, 1), "at_least": 3}),
            "warp_logits": True,
            "on_labelled": False,
            "dice": False,
            "annealing": "none",
        }
    }

    warp: WarpConfig = PUBLISHED_WARP
    """The strong view's geometry, on top of the weak augmentation."""
    warp_logits: bool = False
    """Warp logits and take the softmax after, instead of warping probabilities."""
    on_labelled: bool = False
    """The consistency term on the labelled images too."""
    dice: bool = True
    """Soft Dice beside cross-entropy on the labelled images, as in the baseline."""
    annealing: Literal["none", "linear", "log", "exp"] = "none"
    """Leave labelled voxels whose probability of the right class exceeds a threshold out of the supervised loss, Dice
    included; the threshold rises over the run from 1 / classes to 1 (training-signal annealing, UDA section 2.2)."""
    intensity: IntensityConfig = STRONG_INTENSITY
    cutmix: float = Field(default=0.5, ge=0, le=1)
    confidence: float = Field(default=0.9, ge=0, lt=1)


class EquiReg(Method):
    """KL divergence between T(f(u)), held constant, and f(T(u))."""

    Config = EquiRegConfig
    config: EquiRegConfig

    @property
    def wants_unlabelled(self) -> bool:
        return self.config.unlabelled

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        config = self.config
        label, watch = batch.label, {}
        prediction = self.network(batch.image)
        if config.annealing != "none":
            threshold = annealing_threshold(progress, config.annealing, prediction.shape[1])
            label = without_learned(label, prediction, threshold)
            watch["labels kept"] = float((label != IGNORE).sum() / (batch.label != IGNORE).sum().clamp(min=1))
        terms = {"supervised": losses.supervised(prediction, label, config.dice, config.regions)}
        u, inside = batch.unlabelled, batch.inside
        if config.on_labelled:
            u = torch.cat([batch.image, u])
            inside = torch.cat([batch.label != IGNORE, inside])
        if not len(u):
            return Objective(terms, watch)

        warp = Warp.draw(u.shape, config.warp, batch.spacing_mm, draws.of("strong warp"), u.device)
        logits = forward_frozen(self.predictor, u)
        target = warp(logits).softmax(1) if config.warp_logits else warp(logits.softmax(1))  # T(f(u)), held constant
        valid = warp.inside & warp.mask(inside)
        target = sharpen(target, config.temperature)
        view, target, valid = strengthen(warp(u), target, valid, config, draws)

        certain = confident(target, config.confidence)
        divergence = losses.kl(target, self.network(view))  # against f(T(u))
        # voxels that are not certain count as zero, so few certain ones do not weigh more
        term = losses.masked_mean(torch.where(certain, divergence, 0), valid)
        weight = config.weight_at(progress)
        terms["consistency"] = weight * term
        watch["weight"] = weight
        watch["guess foreground"] = float((logits.argmax(1) > 0).float().mean())
        watch["confident"] = float((certain & valid).sum() / valid.sum().clamp(min=1))
        return Objective(terms, watch)


def without_learned(
    label: Int[Tensor, "b *spatial"], logits: Float[Tensor, "b classes *spatial"], threshold: float
) -> Int[Tensor, "b *spatial"]:
    """The label, IGNORE where the probability of the right class exceeds the threshold."""
    right = (losses.one_hot(label, logits.shape[1]) * logits.detach().float().softmax(1)).sum(1)
    return torch.where(right > threshold, IGNORE, label)
