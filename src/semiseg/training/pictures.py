"""Pictures made during training: images with label, prediction and guess; the curves so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from semiseg.colours import Colour
from semiseg.files import replacing
from semiseg.networks.frozen import forward_frozen
from semiseg.types import IGNORE, Batch

_RGB = np.ndarray[Any, np.dtype[np.uint8]]


def draw_progress(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG of a run's log: every loss term, and the Dice of every class where there was a validation."""
    from matplotlib.figure import Figure  # half a second that a method's import should not cost

    train = [line for line in log if line["kind"] == "train"]
    validation = [line for line in log if line["kind"] == "validation"]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in sorted({name for line in train for name in line["terms"]}):
        points = [(line["step"], line["terms"][name]) for line in train if name in line["terms"]]
        left.plot(*zip(*points, strict=True), label=name, linewidth=1)
    left.set(xlabel="step", ylabel="weighted loss term", ylim=(0, None))
    for name in sorted({name for line in validation for name in line["dice"]}):
        points = [(line["step"], line["dice"][name]) for line in validation if name in line["dice"]]
        right.plot(*zip(*points, strict=True), label=name, linewidth=1, marker=".")
    right.set(xlabel="step", ylabel="validation Dice", ylim=(0, 1))
    for axes in (left, right):
        if 0 < len(axes.lines) <= 12:  # 43 structures would hide the curves
            axes.legend(fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


@torch.no_grad()
def draw_pictures(network: nn.Module, batch: Batch, path: Path, colours: Sequence[Colour], most: int = 4) -> _RGB:
    """Write a PNG: a column for each of up to `most` labelled patches (image, label, prediction), then for as many
    unlabelled ones (image, guess). In 3-D, the middle slice. Returns the pixels, (height, width, 3)."""
    rows: list[list[_RGB]] = []
    image = batch.image[:most]
    guess = forward_frozen(network, image).argmax(1)
    pairs = [(image, None), (image, batch.label[:most]), (image, guess)]
    if len(batch.unlabelled):
        image = batch.unlabelled[:most]
        pairs += [(image, None), (image, forward_frozen(network, image).argmax(1))]
    for picture, label in pairs:
        rows.append(
            [
                tile(_slice(picture[k, 0]), None if label is None else _slice(label[k]), colours)
                for k in range(len(picture))
            ]
        )
    width = max(len(row) for row in rows)
    blank = np.zeros_like(rows[0][0])
    pixels: _RGB = np.concatenate([np.concatenate(row + [blank] * (width - len(row)), axis=1) for row in rows])
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary)
    return pixels


def tile(image: np.ndarray[Any, Any], label: np.ndarray[Any, Any] | None, colours: Sequence[Colour]) -> _RGB:
    """One slice in grey, seen as overlays are; class indices above 0 tinted. A grey pixel around it.

    The second axis runs up, the first to the left: the patient's left is on the right.
    """
    low, high = np.percentile(image, (1, 99))
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255
    pixels = np.repeat(grey[..., None], 3, axis=-1)
    if label is not None:
        marked = (label > 0) & (label != IGNORE)
        pixels[marked] = 0.45 * pixels[marked] + 0.55 * np.array(colours)[label[marked]]
    turned = pixels.astype(np.uint8).transpose(1, 0, 2)[::-1, ::-1]
    return np.pad(turned, ((1, 1), (1, 1), (0, 0)), constant_values=64)


def _slice(x: Tensor) -> np.ndarray[Any, Any]:
    if x.ndim == 3:
        x = x[..., x.shape[-1] // 2]
    return np.asarray(x.float().cpu() if x.is_floating_point() else x.cpu())
