"""Slow changes of brightness across an MR scan: found by N4, remembered on disk, and divided out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from jaxtyping import Bool, Float, Float32

from semiseg.files import cache_folder, replacing

SHRINK = 4
"""The field of a large scan is smooth, so it is estimated on every fourth voxel per axis and applied to all."""
SMALL = 96
"""Scans with fewer voxels along every axis are not shrunk: what is left would not determine the field."""
SMALLEST_SIDE = 4
"""Voxels a side that are left to estimate it on; short axes are shrunk less."""
SKULL_STRIPPED = 0.25
"""Share of voxels that are exactly 0 from which these are taken to be outside of the head."""
SPANS = 8
"""Pieces a side of the cubic spline that N4's field is: one at first, twice as many at each of its four levels."""
SAMPLES = 16
"""Values a side, evenly spaced from end to end, that are remembered of a field; SPANS + 3 would determine it."""


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

    N4ITK (Tustison et al. 2010) as SimpleITK sets it up. Returns 32-bit. A channel without contrast in the mask is
    returned as it is. The field is found once for the same voxels, which takes seconds, and kept in the cache folder.
    """
    image = np.asarray(channel, np.float32)
    used = mask & (image > 0)  # N4 takes logarithms
    flat, flat_used = image.squeeze(), used.squeeze()  # a single slice is corrected in 2-D
    shrink = SHRINK if max(flat.shape, default=0) >= SMALL else 1
    steps = [max(1, min(shrink, side // SMALLEST_SIDE)) for side in flat.shape]
    coarse = tuple(slice(step // 2, None, step) for step in steps)
    seen = flat[coarse][flat_used[coarse]]
    if flat.ndim not in (2, 3) or not seen.size or seen.min() == seen.max():
        return image
    # the field spans the grid it is asked on: from the first to the last coarse voxel, and constant beyond them
    spanned = [(side - 1) * step + 1 for side, step in zip(flat[coarse].shape, steps, strict=True)]
    field = _on_grid(_remembered_field(flat[coarse], flat_used[coarse]), spanned)
    before = [step // 2 for step in steps]
    after = [n - first - size for n, first, size in zip(flat.shape, before, spanned, strict=True)]
    whole = np.pad(field, list(zip(before, after, strict=True)), mode="edge").reshape(image.shape)
    return np.where(used, image / np.exp(whole), image).astype(np.float32)


def _remembered_field(image: Float32[np.ndarray, "..."], used: Bool[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """`_find_field`, from the cache folder where it was found before."""
    import SimpleITK as sitk

    given = f"{sitk.Version.VersionString()} {SAMPLES} {image.shape}".encode()
    key = hashlib.blake2b(given + image.tobytes() + used.tobytes(), digest_size=16).hexdigest()
    place = cache_folder() / "bias" / f"{key}.npy"
    with suppress(OSError, ValueError, EOFError):
        return np.asarray(np.load(place, allow_pickle=False))
    field = _find_field(image, used)
    with suppress(OSError), replacing(place) as temporary:  # predicting must not need a folder to write to
        np.save(temporary, field)
    return field


def _find_field(image: Float32[np.ndarray, "..."], used: Bool[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """SAMPLES values a side of the logarithm of N4's field, from the first to the last voxel.

    The same on every machine: one thread, because sums over several depend on their number.
    """
    import SimpleITK as sitk

    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.Execute(sitk.GetImageFromArray(image), sitk.GetImageFromArray(used.astype(np.uint8)))
    samples = sitk.Image([SAMPLES] * image.ndim, sitk.sitkFloat32)
    return np.asarray(sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(samples)))


def _on_grid(field: Float32[np.ndarray, "..."], shape: Sequence[int]) -> Float32[np.ndarray, "..."]:
    """The spline through the samples of a field, on a grid of this shape from the first to the last of them.

    N4 evaluates it there too (to about 1e-4), but takes ten times as long.
    """
    for axis, side in enumerate(shape):
        spread = (_splines(side) @ np.linalg.pinv(_splines(SAMPLES))).astype(np.float32)
        field = np.moveaxis(np.tensordot(spread, field, (1, axis)), 0, axis)
    return field


def _splines(side: int) -> Float[np.ndarray, "side {SPANS}+3"]:
    """The cubic B-splines of SPANS equal pieces, at evenly spaced places from end to end."""
    from scipy.interpolate import BSpline

    knots = np.arange(-3.0, SPANS + 4)
    return BSpline.design_matrix(np.linspace(0, SPANS, side), knots, 3).toarray()
