"""The weak augmentation, given to both streams alike, in batch, on the device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from semiseg.draws import Draws
from semiseg.transforms.intensity import Intensity
from semiseg.transforms.warp import Warp
from semiseg.types import Batch

if TYPE_CHECKING:
    from semiseg.data.plan import Augmentation


def augment(batch: Batch, settings: Augmentation, draws: Draws) -> Batch:
    """A randomly changed batch. Labels are IGNORE, and `inside` is false, where the picture ended."""
    count = len(batch.image)
    image = torch.cat([batch.image, batch.unlabelled])
    label, inside = batch.label, batch.inside
    if settings.warp.probability > 0:
        generator = draws.of("weak warp")
        warp = Warp.draw(image.shape, settings.warp, batch.spacing_mm, generator, image.device)
        image = warp(image)
        label = Warp(warp.grid[:count]).labels(label)
        inside = Warp(warp.grid[count:]).mask(inside)
    if settings.intensity.probability > 0:
        image = Intensity.draw(image.shape, settings.intensity, draws.of("weak intensity"))(image)
    return replace(batch, image=image[:count], label=label, unlabelled=image[count:], inside=inside)
