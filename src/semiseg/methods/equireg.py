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

from typing import ClassVar

import torch
from pydantic import Field

from semiseg import losses
from semiseg.draws import Draws
from semiseg.methods.method import SemiSupervised
from semiseg.methods.strong import PUBLISHED_WARP, STRONG_INTENSITY, ConsistencyConfig, Strong, confident
from semiseg.networks.frozen import forward_frozen
from semiseg.transforms.intensity import IntensityConfig
from semiseg.transforms.mixing import sharpen
from semiseg.transforms.warp import WarpConfig
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
    warp_logits: bool = False
    """Warp logits and take the softmax after, instead of warping probabilities."""
    on_labelled: bool = False
    """The consistency term on the labelled images too."""
    intensity: IntensityConfig = STRONG_INTENSITY
    cutmix: float = Field(default=0.5, ge=0, le=1)
    confidence: float = Field(default=0.9, ge=0, lt=1)


class EquiReg(SemiSupervised):
    """KL divergence between T(f(u)), held constant, and f(T(u))."""

    Config = EquiRegConfig
    config: EquiRegConfig

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        config, u, inside = self.config, batch.unlabelled, batch.inside
        objective = self.supervised(batch, progress)
        if config.on_labelled:
            u, inside = torch.cat([batch.image, u]), torch.cat([batch.label != IGNORE, inside])
        if not len(u):
            return objective
        strong = Strong.draw(u.shape, config, batch.spacing_mm, draws.within("strong"), u.device)
        guess = forward_frozen(self.predictor, u)
        target = strong.target(guess).softmax(1) if config.warp_logits else strong.target(guess.softmax(1))
        target = sharpen(target, config.temperature)  # T(f(u)), held constant
        divergence = losses.kl(target, self.network(strong.image(u)))  # from f(T(u))
        certain = confident(target, config.confidence)
        return objective + self.consistency(divergence, strong.mask(inside), progress, guess, certain)
