"""The weak augmentation, given to both streams alike, in batch, on the device."""

from __future__ import annotations

from dataclasses import replace

import torch

from semiseg.draws import Draws
from semiseg.settings import Settings
from semiseg.transforms.intensity import Intensity, IntensityConfig
from semiseg.transforms.warp import Warp, WarpConfig
from semiseg.types import Batch


def augment(batch: Batch, settings: Augmentation, draws: Draws) -> Batch:
    """A randomly changed batch. Labels are IGNORE, and `inside` is false, where the picture ended."""
    count = len(batch.image)
    image = torch.cat([batch.image, batch.unlabelled])
    label, inside = batch.label, batch.inside
    if settings.warp.probability > 0:
        generator = draws.of("weak warp")
        warp = Warp.draw(image.shape, settings.warp, batch.spacing_mm, generator, image.device)
        image = warp.image(image)
        label = Warp(warp.grid[:count]).labels(label)
        inside = Warp(warp.grid[count:]).mask(inside)
    if settings.intensity.probability > 0:
        image = Intensity.draw(image.shape, settings.intensity, draws.of("weak intensity"))(image)
    return replace(batch, image=image[:count], label=label, unlabelled=image[count:], inside=inside)


class Augmentation(Settings):
    """The weak augmentation that the training loop gives to labelled and unlabelled images alike."""

    warp: WarpConfig = WarpConfig(
        probability=0.8, rotate_deg=20, scale=(0.8, 1.25), shear_deg=5, shift=0.08, elastic=0.02, smooth=0.12
    )
    intensity: IntensityConfig = IntensityConfig(
        probability=0.3, contrast=0.3, brightness=0.2, gamma=0.3, noise=0.15, blur=0.8
    )
