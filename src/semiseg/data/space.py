"""The way of one scan between its file's voxels and the network's, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from semiseg.data.bias import correct_bias, head_mask
from semiseg.data.duplicates import Box, bounding_box
from semiseg.data.images import MOST_VOXELS, from_ras, ras_spacing, to_ras
from semiseg.data.intensities import eight_bit_top, normalise
from semiseg.data.plan import Normalisation, Plan
from semiseg.data.resample import add_resampled, nearest, resample, resample_labels
from semiseg.errors import InputError
from semiseg.types import Geometry

Crop = tuple[tuple[int, int] | None, tuple[int, int] | None, tuple[int, int] | None]

SMALLEST = float(np.finfo(np.float16).tiny)
"""What stands for 0 inside the picture where 0 means outside of it: next to nothing, and not 0 in 16 bits."""


@dataclass(frozen=True, eq=False)
class NetworkSpace:
    """Where a prepared array lies in its file: what it takes to bring a label there and a prediction back."""

    geometry: Geometry
    """Of the file."""
    box: Box
    """What was kept of the scan, per RAS axis."""
    axes: tuple[int, int, int]
    """RAS axes in the order in which the prepared array stores them."""
    shape: tuple[int, int, int]
    """Voxels of the prepared array along `axes`."""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Along the prepared axes; differs from the plan's by the rounding to whole voxels."""
        own = ras_spacing(self.geometry)
        sizes = [(self.box[axis][1] - self.box[axis][0]) * own[axis] for axis in self.axes]
        first, second, third = (float(size / voxels) for size, voxels in zip(sizes, self.shape, strict=True))
        return (first, second, third)

    @property
    def inside(self) -> tuple[slice, slice, slice]:
        """The box as an index into the last three axes of an array in RAS orientation."""
        first, second, third = (slice(*side) for side in self.box)
        return (first, second, third)

    @property
    def ras_shape(self) -> tuple[int, int, int]:
        """Voxels of the whole scan in RAS orientation."""
        x, y, z = to_ras(np.broadcast_to(np.uint8(0), self.geometry.shape), self.geometry.affine).shape
        return (x, y, z)


def to_network_space(
    channels: Float[np.ndarray, "c x y z"], geometry: Geometry, plan: Plan
) -> tuple[Float[np.ndarray, "c i j k"], NetworkSpace]:
    """Bring a scan in file order to the network: orient, crop, correct, normalise, resample, put the slice axis first.

    Returns the 32-bit image and the way back. A scan that is zero everywhere is not cropped to what is not.
    Raises InputError if nothing of the scan lies in the plan's `crop_box`.
    """
    oriented = to_ras(channels, geometry.affine)
    nonzero = (oriented != 0).any(axis=0) if plan.crop_nonzero or plan.mask_zeros else None
    found = bounding_box(nonzero) if nonzero is not None and plan.crop_nonzero else None
    box = kept_box(oriented.shape[1:], plan.crop_box, found)
    inside = tuple(slice(*side) for side in box)
    mask = nonzero[inside] if nonzero is not None else None
    normal = np.stack(
        [
            normalise(_corrected(channel, inside, rule, plan.bias_correction), rule, mask)
            for channel, rule in zip(oriented, plan.normalisation, strict=True)
        ]
    )
    shape = _target_shape(normal.shape[1:], ras_spacing(geometry), plan)
    image = resample(normal, shape)
    if plan.mask_zeros and mask is not None:
        _mark_outside(image, mask[np.ix_(*map(nearest, mask.shape, shape))])
    axes = plan.prepared_axes
    prepared = (shape[axes[0]], shape[axes[1]], shape[axes[2]])
    image = np.ascontiguousarray(image.transpose(0, *(axis + 1 for axis in axes)))
    return image, NetworkSpace(geometry, box, axes, prepared)


def kept_box(shape: Sequence[int], crop: Crop, nonzero: Box | None) -> Box:
    """What is kept of a scan, per RAS axis: `crop` where it is given, else the box that is not zero, else all.

    Raises InputError if nothing of the scan lies in `crop`.
    """
    kept = []
    for axis, (voxels, given) in enumerate(zip(shape, crop, strict=True)):
        first, end = given or (nonzero[axis] if nonzero else (0, voxels))
        if first >= voxels:
            raise InputError(
                f"plan.crop_box.{axis}: got {given} for a scan of {voxels} voxels along this axis, "
                f"expected more than {first} voxels; correct the plan, or leave the scan out"
            )
        kept.append((first, min(end, voxels)))
    return (kept[0], kept[1], kept[2])


def label_to_network_space(label: Int[np.ndarray, "x y z"], space: NetworkSpace) -> Int[np.ndarray, "i j k"]:
    """Bring a label map in file order (class indices, IGNORE) to the voxels of its prepared image."""
    oriented = to_ras(label, space.geometry.affine)[space.inside].transpose(space.axes)
    return np.ascontiguousarray(resample_labels(oriented, space.shape))


def file_volumes(
    parts: Sequence[tuple[Float[np.ndarray, "classes _ _ _"], NetworkSpace, float]],
) -> Iterator[Float[np.ndarray, "x y z"]]:
    """The probability of one class after another, in file order: a weighted sum of `parts`.

    Parts are probability, space and weight of predictions for one file; weights add up to 1. Outside a part's
    box the first class (the background) is certain. One 32-bit volume lives at a time.
    """
    geometry, shape = parts[0][1].geometry, parts[0][1].ras_shape
    for index in range(len(parts[0][0])):
        volume = np.zeros(shape, np.float32)
        for probability, space, weight in parts:
            inside = volume[space.inside]
            if index == 0:
                volume += weight
                inside -= weight
            add_resampled(inside, probability[index].transpose(np.argsort(space.axes)), weight)
        yield from_ras(volume, geometry.affine)


def most_probable(volumes: Iterator[Float[np.ndarray, "x y z"]]) -> Int[np.ndarray, "x y z"]:
    """The index of the largest volume at each voxel, the first of equals; two volumes live at a time."""
    largest = np.array(next(volumes))
    result = np.zeros(largest.shape, np.int16)
    for index, volume in enumerate(volumes, start=1):
        better = volume > largest
        result[better] = index
        np.copyto(largest, volume, where=better)
    return result


def back_to_file_space(
    probability: Float[np.ndarray, "classes i j k"], space: NetworkSpace
) -> Int[np.ndarray, "x y z"]:
    """Class indices on the file's grid, in file order."""
    return most_probable(file_volumes([(probability, space, 1.0)]))


def peak_memory_bytes(space: NetworkSpace, classes: int) -> int:
    """Memory that `back_to_file_space` needs at most, beside the slab in progress.

    Probabilities (and one smoothed copy) on the network's grid; on the file's grid two 32-bit volumes,
    a 16-bit index and a mask, whatever the number of classes.
    """
    return 4 * (classes + 1) * int(np.prod(space.shape)) + 11 * int(np.prod(space.geometry.shape))


def _corrected(
    channel: Float[np.ndarray, "x y z"], inside: tuple[slice, ...], rule: Normalisation, bias_correction: bool
) -> Float[np.ndarray, "i j k"]:
    """What was kept of a channel, before it is normalised. What kind of scan it is, the whole of it tells."""
    kept = channel[inside]
    if bias_correction:
        kept = correct_bias(kept, head_mask(channel)[inside])
    top = eight_bit_top(float(channel.min()), float(channel.max())) if rule.eight_bit else None
    return kept if top is None else rule.low + kept * ((rule.high - rule.low) / top)


def _mark_outside(image: Float[np.ndarray, "c x y z"], picture: Bool[np.ndarray, "x y z"]) -> None:
    """Set the image to 0 outside the picture, and make sure that it is not 0 in all channels inside."""
    image[:, ~picture] = 0
    image[0][picture & (np.abs(image).max(axis=0) < SMALLEST)] = SMALLEST


def _target_shape(shape: Sequence[int], spacing_mm: Sequence[float], plan: Plan) -> tuple[int, int, int]:
    """Per RAS axis: what `resize` says, or as many voxels of the target spacing as come closest to the extent.

    Raises InputError for more than MOST_VOXELS, and where nothing of several voxels is left: the spacing of the scan,
    or of the plan, is a mistake.
    """
    for axis, (voxels, own, target) in enumerate(zip(shape, spacing_mm, plan.spacing_mm, strict=True)):
        if target is not None and plan.resize[axis] is None and voxels > 1 and voxels * own < target / 2:
            raise InputError(
                f"got {voxels} voxels of {own:.4g} mm along axis {axis}, expected at least half of the plan's "
                f"{target:.4g} mm together; correct the affine of the scan, or plan.spacing_mm"
            )
    x, y, z = (
        fixed or (voxels if target is None else max(1, round(voxels * own / target)))
        for fixed, voxels, own, target in zip(plan.resize, shape, spacing_mm, plan.spacing_mm, strict=True)
    )
    if x * y * z > MOST_VOXELS:
        own_mm = " x ".join(f"{mm:.4g}" for mm in spacing_mm)
        raise InputError(
            f"got {x}x{y}x{z} voxels after resampling from {own_mm} mm, expected at most {MOST_VOXELS}; correct the "
            "affine of the scan, or take a coarser plan.spacing_mm"
        )
    return (x, y, z)
