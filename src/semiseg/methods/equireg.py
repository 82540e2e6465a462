"""EquiReg: what the network says of a warped image should be the warp of what it says of the image.

Semi-Supervised Medical Image Segmentation with Equivariance Regularization, master's thesis, Lund University, 2020;
built on UDA (Xie et al., arXiv 1904.12848). With an average teacher, intensity changes, CutMix and a confidence
threshold, which are on by default, it is strong-weak consistency whose strong view is also geometric (FixMatch,
UniMatch).

What differs from the author's code, unless `preset = "2020"`: those four; soft Dice beside cross-entropy; every part
of the warp for every image, without mirrors, and a smaller and smoother elastic one; probabilities are warped, not
logits; labelled, weak and strong views are passes of their own, the weak ones in evaluation mode; means are over all
voxels of a batch.
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
from semiseg.methods.method import SemiSupervised, probability_of_the_right_class
from semiseg.methods.strong import PUBLISHED_WARP, STRONG_INTENSITY, ConsistencyConfig, Strong, confident
from semiseg.networks.frozen import forward_frozen
from semiseg.transforms.intensity import IntensityConfig
from semiseg.transforms.mixing import sharpen
from semiseg.transforms.warp import WarpConfig
from semiseg.types import IGNORE, Batch, Objective

WARP_2020 = PUBLISHED_WARP.model_copy(update={"elastic": 7 / 224, "smooth": 17 / 224, "flip": (0, 1), "at_least": 3})
"""The author's strong view. Its library (imgaug 0.4.0) cuts the Gaussian of 24 pixels to a window of 63, so that fields
are 7 pixels r.m.s. and rougher: as correlated over 24 pixels (.62) as fields smoothed with 17."""


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
            "warp": WARP_2020,
            "warp_logits": True,
            "on_labelled": False,
            "one_pass": True,
            "per_image": True,
            "dice": False,
            "annealing": "none",
        }
    }

    warp: WarpConfig = PUBLISHED_WARP
    warp_logits: bool = False
    """Warp logits and take the softmax after, instead of warping probabilities."""
    on_labelled: bool = False
    """The consistency term on the labelled images too."""
    one_pass: bool = False
    """Labelled, weak and strong views in one pass: they share the statistics of batch norm, and the target comes from
    the network as it trains, though held constant, not from an average."""
    per_image: bool = False
    """Cross-entropy and consistency are means over the voxels of each image, then over images, however many voxels
    count in each."""
    annealing: Literal["none", "linear", "log", "exp", "soft"] = "none"  # type: ignore[assignment]
    """As in every method; soft: each labelled voxel's cross-entropy weighs 1 - p(right class), held constant, and none
    is left out."""
    intensity: IntensityConfig = STRONG_INTENSITY
    cutmix: float = Field(default=0.5, ge=0, le=1)
    confidence: float = Field(default=0.9, ge=0, lt=1)


class EquiReg(SemiSupervised):
    """KL divergence between T(f(u)), held constant, and f(T(u))."""

    Config = EquiRegConfig
    config: EquiRegConfig

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        config, u, inside = self.config, batch.unlabelled, batch.inside
        if config.on_labelled:
            u, inside = torch.cat([batch.image, u]), torch.cat([batch.label != IGNORE, inside])
        if not len(u):
            return self.supervised(batch, progress)
        strong = Strong.draw(u.shape, config, batch.spacing_mm, draws.within("strong"), u.device)
        labelled, guess, prediction = self.logits(batch.image, u, strong.image(u))
        objective = self.against_labels(labelled, batch.label, progress)
        target = strong.target(guess).softmax(1) if config.warp_logits else strong.target(guess.softmax(1))
        target = sharpen(target, config.temperature)  # T(f(u)), held constant
        divergence = losses.kl(target, prediction)  # from f(T(u))
        certain = confident(target, config.confidence)
        valid = strong.mask(inside)
        return objective + self.consistency(divergence, valid, progress, guess, certain, self.mean)

    def logits(
        self,
        image: Float[Tensor, "labelled c *spatial"],
        u: Float[Tensor, "b c *spatial"],
        strong: Float[Tensor, "b c *spatial"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of labelled images, of unlabelled ones (held constant), and of their strong views."""
        if self.config.one_pass:
            together = self.network(torch.cat([image, u, strong]))
            labelled, guess, prediction = together.split([len(image), len(u), len(strong)])
            return labelled, guess.detach(), prediction
        return self.network(image), forward_frozen(self.predictor, u), self.network(strong)

    def against_labels(
        self, logits: Float[Tensor, "b classes *spatial"], label: Int[Tensor, "b *spatial"], progress: float
    ) -> Objective:
        if self.config.annealing == "soft":
            weight = 1 - probability_of_the_right_class(label, logits)
            watch = {"labels kept": float(losses.masked_mean(weight, label != IGNORE))}
        else:
            weight = None
            label, watch = self.unlearned(label, logits, progress)
        loss = losses.supervised(logits, label, self.config.dice, self.config.regions, weight, self.mean)
        return Objective({"supervised": loss}, watch)

    @property
    def mean(self) -> losses.Mean:
        """Over voxels."""
        return losses.mean_over_images if self.config.per_image else losses.masked_mean
