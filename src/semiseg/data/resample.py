"""Changing the number of voxels of an array while its outer edges stay where they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d
from torch.nn import functional

from semiseg.types import IGNORE

SLAB_VOXELS = 2**22
"""Output voxels computed at a time: 16 MB, so that the work in progress never matters beside the result."""


def resample(array: Float[np.ndarray, "c x y z"], shape: Sequence[int]) -> Float[np.ndarray, "c new_x new_y new_z"]:
    """Linear interpolation to `shape` voxels over the same extent: the outer edges of the border voxels stay.

    Axes that lose voxels are smoothed first, so that fine detail does not alias. The same shape returns the
    array itself. Beyond the outermost voxel centres the outermost value continues.
    """
    if array.shape[1:] == tuple(shape):
        return array
    result = np.zeros((len(array), *shape), array.dtype)
    for out, volume in zip(result, array, strict=True):
        add_resampled(out, volume)
    return result


def add_resampled(out: Float[np.ndarray, "a b c"], volume: Float[np.ndarray, "x y z"], weight: float = 1.0) -> None:
    """Add `weight` times `volume`, resampled to the shape of `out` as by `resample`, to `out` in place.

    Works in slabs, so beside `out` it needs no memory but a smoothed copy of `volume` if that is finer.
    """
    smooth = _smoothed(volume, out.shape)
    position = np.clip((np.arange(len(out)) + 0.5) * len(smooth) / len(out) - 0.5, 0, len(smooth) - 1)
    below = position.astype(int)
    above = np.minimum(below + 1, len(smooth) - 1)
    share = (position - below).astype(np.float32)[:, None, None]
    rows = max(1, SLAB_VOXELS // (out.shape[1] * out.shape[2]))
    for start in range(0, len(out), rows):
        slab = slice(start, start + rows)
        between = smooth[below[slab]] * (1 - share[slab]) + smooth[above[slab]] * share[slab]
        if between.shape[1:] != out.shape[1:]:
            planes = torch.from_numpy(between)[None]
            between = functional.interpolate(planes, size=out.shape[1:], mode="bilinear")[0].numpy()
        out[slab] += weight * between


def resample_labels(label: Int[np.ndarray, "x y z"], shape: Sequence[int]) -> Int[np.ndarray, "a b c"]:
    """Each voxel gets the class whose mask, resampled linearly, is largest there, the smaller of equals.

    IGNORE is carried over by the nearest voxel instead: it is no class, and must not spread or shrink.
    Needs the memory of two 32-bit volumes, whatever the number of classes.
    """
    if label.shape == tuple(shape):
        return label
    result = np.zeros(tuple(shape), label.dtype)
    largest = np.full(result.shape, -1, np.float32)
    for value in np.unique(label):
        if value != IGNORE:
            score = resample((label == value).astype(np.float32)[None], shape)[0]
            better = score > largest
            result[better] = value
            largest[better] = score[better]
    result[label[np.ix_(*map(nearest, label.shape, shape))] == IGNORE] = IGNORE
    return result


def nearest(old: int, new: int) -> Int[np.ndarray, " new"]:
    """Index of the voxel that each of `new` voxels over the extent of `old` ones lies in."""
    return ((np.arange(new) + 0.5) * old / new).astype(int)


def _smoothed(volume: Float[np.ndarray, "x y z"], shape: Sequence[int]) -> Float[np.ndarray, "x y z"]:
    """Gaussian of (reduction - 1) / 2 voxels along axes that lose voxels, as in skimage.transform.resize."""
    for axis, (old, new) in enumerate(zip(volume.shape, shape, strict=True)):
        if new < old:
            volume = gaussian_filter1d(volume, (old / new - 1) / 2, axis=axis, mode="nearest")
    return volume
