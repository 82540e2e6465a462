"""Pictures of one case in three planes, methods beside each other, and its volumes for the 3-D viewer."""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from semiseg.colours import class_colours
from semiseg.data.dataset import Case
from semiseg.data.images import ras_spacing, read_image, to_ras
from semiseg.data.plan import Plan
from semiseg.errors import InputError
from semiseg.prediction.look import Look
from semiseg.prediction.overlays import Truth, class_indices, facing

WRONG = (255, 0, 255)
"""Filled in where a prediction differs from the truth; no class has this colour."""
WRONG_SHARE = 0.5
LINE = 4
"""Half-pixels: thickness of an outline."""
PLANES = {2: "axial", 1: "coronal", 0: "sagittal"}
LONGEST = 112
"""Voxels along the longest side of a volume in the viewer."""
QUALITY = 88
"""Of JPEG, with colours at full resolution."""


@dataclass(frozen=True, eq=False)
class Views:
    """A case in RAS orientation: grey levels and, by title, class indices (0 and below are not drawn)."""

    grey: UInt8[np.ndarray, "x y z"]
    labels: Mapping[str, Int[np.ndarray, "x y z"]]
    """The truth first."""
    spacing_mm: tuple[float, float, float]
    colours: UInt8[np.ndarray, "classes 3"]

    @property
    def planes(self) -> list[int]:
        """Axes across which there is something to see: one of a single slice, else all three."""
        shape = self.grey.shape
        flat = [axis for axis in PLANES if shape[axis] == 1]
        return flat[:1] or list(PLANES)


def read_views(case: Case, truth: Truth, predictions: Mapping[str, Path], plan: Plan) -> Views:
    """The first channel, the truth and whichever predictions exist. Raises InputError for files that do not fit."""
    scan = read_image(case.images[0])
    if not np.isfinite(scan.array).all():
        raise InputError(f"{case.images[0]}: got NaN or infinity, expected finite numbers; repair the file")

    def turned(labels: Truth) -> Int[np.ndarray, "x y z"]:
        return to_ras(class_indices(labels, scan.array.shape, plan), scan.geometry.affine)

    files = {"truth": truth, **{title: Truth(path) for title, path in predictions.items() if path.exists()}}
    return Views(
        to_ras(Look().grey(scan.array, plan.normalisation[0]), scan.geometry.affine),
        {title: turned(labels) for title, labels in files.items()},
        ras_spacing(scan.geometry),
        np.array([*class_colours(list(plan.classes)).values()], np.uint8),
    )


def panels(views: Views, axis: int, number: int, longer: int) -> dict[str, bytes]:
    """Title to JPEG: the image alone, the truth, and each prediction with what is wrong filled in.

    longer: pixels along the longer side. The patient's left is on the right; front or top is up.
    """
    across, up = (other for other in range(3) if other != axis)
    millimetres = [views.grey.shape[side] * views.spacing_mm[side] for side in (across, up)]
    size = (
        max(8, round(longer * millimetres[0] / max(millimetres))),
        max(8, round(longer * millimetres[1] / max(millimetres))),
    )
    grey, *labels = (facing(np.take(volume, number, axis)) for volume in (views.grey, *views.labels.values()))
    truth = labels[0]
    drawn = {"image": outlined(grey, np.zeros_like(truth), size, views.colours)}
    for title, label in zip(views.labels, labels, strict=True):
        drawn[title] = outlined(grey, label, size, views.colours, truth=None if label is truth else truth)
    return {title: _jpeg(pixels) for title, pixels in drawn.items()}


def outlined(
    grey: UInt8[np.ndarray, "h w"],
    label: Int[np.ndarray, "h w"],
    size: tuple[int, int],
    colours: UInt8[np.ndarray, "classes 3"],
    *,
    truth: Int[np.ndarray, "h w"] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture scaled to `size` (width, height), with a smooth outline of every class in its colour.

    Where the label differs from `truth`, WRONG is filled in; voxels that are not annotated never do.
    """
    scaled = np.asarray(_resized(grey, size), np.float32)
    pixels = np.repeat(0.85 * scaled[..., None], 3, axis=-1)  # a little dark, so that colours stand out
    if truth is not None:
        wrong = _resized(255 * ((label != truth) & (truth >= 0)).astype(np.uint8), size, Image.Resampling.NEAREST)
        _tint(pixels, WRONG_SHARE * (np.asarray(wrong, np.float32) / 255), WRONG)
    for index in np.unique(label[label > 0]):
        twice = (2 * size[0], 2 * size[1])
        mask = np.asarray(_resized(255 * (label == index).astype(np.uint8), twice)) > 127
        wide = np.pad(mask, LINE)
        inner = mask.copy()
        for rows, columns in ((0, LINE), (2 * LINE, LINE), (LINE, 0), (LINE, 2 * LINE)):
            inner &= wide[rows : rows + mask.shape[0], columns : columns + mask.shape[1]]
        edge = _resized(255 * (mask & ~inner).astype(np.uint8), size, Image.Resampling.BOX)
        _tint(pixels, np.asarray(edge, np.float32) / 255, colours[index])
    return np.rint(pixels).astype(np.uint8)


def telling_slice(label: Int[np.ndarray, "x y z"], axis: int = 2) -> int:
    """The slice across an axis with the largest sum over classes of the share of a class in it."""
    others = tuple(other for other in range(3) if other != axis)
    shares = np.zeros(label.shape[axis])
    for value in np.unique(label[label > 0]):
        count = (label == value).sum(axis=others)
        shares += count / count.sum()
    return int(shares.argmax()) if shares.any() else label.shape[axis] // 2


def volumes(views: Views) -> dict[str, Any]:
    """What the viewer loads: NIfTI files in base64 of the image (block means) and the labels (block centres).

    None of them has a side of more than LONGEST voxels.
    """
    steps = [-(-side // LONGEST) for side in views.grey.shape]
    spacing_mm = [step * size for step, size in zip(steps, views.spacing_mm, strict=True)]
    centres = tuple(slice(step // 2, None, step) for step in steps)
    return {
        "image": _nifti(_block_means(views.grey, steps), spacing_mm),
        "labels": {
            title: _nifti(np.maximum(label[centres], 0).astype(np.uint8), spacing_mm)
            for title, label in views.labels.items()
        },
    }


def _block_means(grey: UInt8[np.ndarray, "x y z"], steps: Sequence[int]) -> UInt8[np.ndarray, "i j k"]:
    """As many along each side as block centres; an incomplete block at the end is filled with its last voxel."""
    counts = [len(range(step // 2, side, step)) for side, step in zip(grey.shape, steps, strict=True)]
    whole = [count * step for count, step in zip(counts, steps, strict=True)]
    cut = grey[: whole[0], : whole[1], : whole[2]]
    padded = np.pad(cut, [(0, wanted - side) for wanted, side in zip(whole, cut.shape, strict=True)], mode="edge")
    blocks = padded.reshape(counts[0], steps[0], counts[1], steps[1], counts[2], steps[2])
    return np.asarray(np.rint(blocks.mean(axis=(1, 3, 5))), np.uint8)


def _nifti(array: UInt8[np.ndarray, "x y z"], spacing_mm: Sequence[float]) -> str:
    image = nib.Nifti1Image(np.asfortranarray(array), np.diag([*spacing_mm, 1.0]))
    return base64.b64encode(gzip.compress(image.to_bytes(), mtime=0)).decode("ascii")


def _resized(
    pixels: UInt8[np.ndarray, "h w"], size: tuple[int, int], how: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, how)


def _tint(pixels: Float[np.ndarray, "h w 3"], share: Float[np.ndarray, "h w"], colour: tuple[int, int, int]) -> None:
    pixels += share[..., None] * (np.array(colour, np.float32) - pixels)


def _jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
