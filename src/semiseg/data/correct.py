"""Correcting intensities that a scanner distorts: slow changes across a scan, and scales that differ between scans."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

SHRINK = 4
"""The field is smooth, so it is estimated on every fourth voxel per axis and applied to all."""
SMALLEST_SIDE = 4
"""Voxels a side that are left to estimate it on; tiny scans are shrunk less."""
SKULL_STRIPPED = 0.25
"""Share of voxels that are exactly 0 from which these are taken to be outside of the head."""


def head_mask(channel: Float[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Where there is tissue: the voxels that are not zero if a good part of the scan is exactly zero.

    Else what is brighter than Otsu's threshold, and the holes in it.
    """
    if np.mean(channel == 0) >= SKULL_STRIPPED:
        return np.asarray(channel != 0)
    import SimpleITK as sitk
    from scipy.ndimage import binary_fill_holes

    bright = sitk.OtsuThreshold(sitk.GetImageFromArray(channel.astype(np.float32)), 0, 1)
    return np.asarray(binary_fill_holes(sitk.GetArrayFromImage(bright) > 0), bool)


def correct_bias(channel: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
    """Divide the positive voxels of the mask by the smooth field that N4 finds in them; the others are unchanged.

    N4ITK (Tustison et al. 2010) as SimpleITK sets it up. Returns 32-bit, the same on every machine: one thread,
    because sums over several depend on their number. A channel without contrast in the mask is returned as it is.
    """
    import SimpleITK as sitk

    image = np.asarray(channel, np.float32)
    used = mask & (image > 0)  # N4 takes logarithms
    flat, flat_used = image.squeeze(), used.squeeze()  # a single slice is corrected in 2-D
    steps = [max(1, min(SHRINK, side // SMALLEST_SIDE)) for side in flat.shape]
    coarse = tuple(slice(step // 2, None, step) for step in steps)
    seen = flat[coarse][flat_used[coarse]]
    if flat.ndim not in (2, 3) or not seen.size or seen.min() == seen.max():
        return image
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.Execute(sitk.GetImageFromArray(flat[coarse]), sitk.GetImageFromArray(flat_used[coarse].astype(np.uint8)))
    # the field spans the grid it is asked on: from the first to the last coarse voxel, and constant beyond them
    spanned = [(side - 1) * step + 1 for side, step in zip(flat[coarse].shape, steps, strict=True)]
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(sitk.Image(spanned[::-1], sitk.sitkFloat32)))
    before = [step // 2 for step in steps]
    after = [n - first - size for n, first, size in zip(flat.shape, before, spanned, strict=True)]
    whole = np.pad(field, list(zip(before, after, strict=True)), mode="edge").reshape(image.shape)
    return np.where(used, image / np.exp(whole), image).astype(np.float32)


def equalise(channel: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
    """The share of non-zero voxels that are not larger, in (0, 1], for each of them; 0 where the channel is 0.

    This is histogram equalisation of the non-zero voxels, with as many bins as there are values. 32-bit.
    """
    result = np.zeros(channel.shape, np.float32)
    nonzero = channel != 0
    _, at, counts = np.unique(channel[nonzero], return_inverse=True, return_counts=True)
    result[nonzero] = (np.cumsum(counts) / max(1, counts.sum()))[at]
    return result


def eight_bit_top(lowest: float, highest: float) -> float | None:
    """What stands for the top of the window where a scan's values lie in 0 to 255 or 0 to 1: 255 or 1; else None."""
    if lowest < 0 or highest > 255:
        return None
    return 255.0 if highest > 1 else 1.0
