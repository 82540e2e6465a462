"""A strong view: what a network should say of an image that was changed much is what it says of the image itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from semiseg.draws import Draws
from semiseg.methods.method import UnlabelledConfig
from semiseg.transforms.intensity import Intensity, IntensityConfig
from semiseg.transforms.mixing import Box
from semiseg.transforms.warp import Warp, WarpConfig

PUBLISHED_WARP = WarpConfig(
    rotate_deg=20, scale=(0.9, 1.1), shear_deg=11.3, shift=0.1, elastic=5 / 224, smooth=24 / 224
)
"""After EquiReg's strong view, as a default for other data: 5 pixels r.m.s. displacement, smoothed with 24 pixels, on
pictures of 224 x 224, as its alpha of 720 and sigma of 24 would give without a cut (`equireg.WARP_2020` has it)."""

STRONG_INTENSITY = IntensityConfig(probability=0.5, contrast=0.5, brightness=0.3, gamma=0.4, noise=0.2, blur=1.0)
"""About twice the plan's weak intensity changes."""


class StrongConfig(UnlabelledConfig):
    """Settings that methods with a strong view share."""

    warp: WarpConfig = WarpConfig(probability=0)
    """Geometry of the strong view, on top of the weak augmentation. Probability 0: none."""
    intensity: IntensityConfig = IntensityConfig()
    """Intensity changes of the strong view."""
    cutmix: float = Field(default=0.0, ge=0, le=1)
    """Probability that a sample of the strong view, and its target, gets a box of another sample."""
    cutmix_share: tuple[float, float] = (0.02, 0.4)
    """Smallest and largest part of the picture that the box covers (as in UniMatch)."""
    confidence: float = Field(default=0.0, ge=0, lt=1)
    """Voxels whose largest target probability is below this are not learned from."""


class ConsistencyConfig(StrongConfig):
    """Settings that methods share whose target is a distribution."""

    temperature: float = Field(default=1.0, gt=0)
    """Sharpens the target: p^(1/T), normalised. 1 changes nothing."""


@dataclass(frozen=True, eq=False)
class Strong:
    """One draw of a strong view: geometry, then intensity, then a box of another sample (CutMix). None: left out.

    Called on whatever lives on the images: `image` on them, `target` on probabilities or logits, `mask` on where they
    are valid.
    """

    warp: Warp | None
    intensity: Intensity | None
    box: Box | None

    @classmethod
    def draw(
        cls,
        shape: Sequence[int],
        config: StrongConfig,
        spacing_mm: Sequence[float],
        draws: Draws,
        device: torch.device | str = "cpu",
    ) -> Strong:
        """For a batch of `shape` (b, c, *spatial). draws: within the purpose of this view, as a step may have two."""
        box = config.cutmix_share, config.cutmix
        return cls(
            Warp.draw(shape, config.warp, spacing_mm, draws.of("warp"), device) if config.warp.probability else None,
            Intensity.draw(shape, config.intensity, draws.of("intensity")) if config.intensity.probability else None,
            Box.draw(shape, *box, draws.of("box")) if config.cutmix else None,
        )

    def image(self, x: Float[Tensor, "b c *spatial"]) -> Float[Tensor, "b c *spatial"]:
        moved = self.warp.image(x) if self.warp else x
        changed = self.intensity(moved) if self.intensity else moved
        return self.box(changed) if self.box else changed

    def target(self, p: Float[Tensor, "b classes *spatial"]) -> Float[Tensor, "b classes *spatial"]:
        moved = self.warp(p) if self.warp else p
        return self.box(moved) if self.box else moved

    def mask(self, m: Bool[Tensor, "b *spatial"]) -> Bool[Tensor, "b *spatial"]:
        moved = self.warp.mask(m) if self.warp else m
        return self.box.mask(moved) if self.box else moved


def confident(target: Float[Tensor, "b classes *spatial"], threshold: float) -> Bool[Tensor, "b *spatial"]:
    """Voxels whose largest probability reaches the threshold."""
    return target.amax(1) >= threshold
