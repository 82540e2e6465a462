"""One hash for a scan however it is stored: so the same scan is found again in another split, and a label as an image.

The file's name, compression, type and header make no difference, nor does the order or direction of its axes (so a
mirrored copy is the same scan too), nor zeros around it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

_SAMPLE = 10_000
"""Voxels that tell whether a scan has more values than MOST_SEGMENTS."""
MOST_SEGMENTS = 64
"""More values than this, and a scan is not looked at as a map of segments: grey values have more."""

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First index and one past the last, per axis."""
_Array = np.ndarray[Any, np.dtype[Any]]


def bounding_box(mask: Bool[np.ndarray, "x y z"]) -> Box | None:
    """The smallest box that holds all true voxels; None if there is none."""
    found = ndimage.find_objects(mask.view(np.uint8))
    if not found:
        return None
    x, y, z = ((side.start, side.stop) for side in found[0])
    return (x, y, z)


def content_hash(array: Float[np.ndarray, "x y z"] | Int[np.ndarray, "x y z"], box: Box | None) -> str:
    """Of the voxels in the box around what is not zero, as float32; 32 hexadecimal digits."""
    return _hash(_kept(array, box).astype(np.float32) + np.float32(0))  # there is a zero below zero too


def segment_hash(array: Float[np.ndarray, "x y z"] | Int[np.ndarray, "x y z"], box: Box | None) -> str:
    """The same for two maps that divide the scan alike, whatever values they give to its parts; empty for a scan of
    grey values, of one value, or of values that are not whole numbers below 65536."""
    kept = _kept(array, box)
    sample = kept.ravel(order="K")[:: max(1, kept.size // _SAMPLE)]
    if not kept.size or len(np.unique(sample)) > MOST_SEGMENTS or not (kept.min() >= 0 and kept.max() < 2**16):
        return ""
    whole = kept.astype(np.uint16)
    counts = np.bincount(whole.ravel(order="K"))
    counts[0] += array.size - kept.size
    values = np.flatnonzero(counts)
    if not 1 < len(values) <= MOST_SEGMENTS or not np.array_equal(whole, kept):
        return ""
    # numbered by size, the largest first: it lies around the others, and is what a box leaves out
    number = np.zeros(len(counts), np.float32)
    number[values[np.argsort(-counts[values], kind="stable")]] = np.arange(len(values))
    numbered = number[whole] if number[0] == 0 else number[array.astype(np.uint16)]
    return _hash(_kept(numbered, bounding_box(numbered != 0)))


def _kept(array: _Array, box: Box | None) -> _Array:
    return array[tuple(slice(*side) for side in box)] if box else array[:0, :0, :0]


def _hash(voxels: Float[np.ndarray, "x y z"]) -> str:
    """The smallest over the arrangements that are alike in what decides between them; there is hardly ever another."""
    return min(map(_ordered_hash, _arrangements(voxels)))


def _ordered_hash(voxels: _Array) -> str:
    digest = hashlib.blake2b(repr(voxels.shape).encode(), digest_size=16)
    for slab in voxels:  # one in memory at a time: an arrangement is a view
        digest.update(np.ascontiguousarray(slab).data)
    return digest.hexdigest()


def _arrangements(voxels: Float[np.ndarray, "x y z"]) -> Iterator[_Array]:
    """Views whose axes run the way, and in the order, that the sums across them say: the same for every storage."""
    sums = _sums(voxels)
    ways = [_ways(voxels, axis, of_axis) for axis, of_axis in enumerate(sums)]
    keys = [(len(of_axis), min(of_axis.tobytes(), of_axis[::-1].tobytes())) for of_axis in sums]
    alike: dict[Any, list[int]] = {}
    for axis in sorted(range(3), key=keys.__getitem__):
        alike.setdefault(keys[axis], []).append(axis)
    orders = [sum(groups, ()) for groups in product(*map(permutations, alike.values()))]
    for way in product(*ways):
        turned = voxels[way]
        seen: list[_Array] = []
        for order in orders:
            view = turned.transpose(order)
            if not any(np.array_equal(view, other) for other in seen):
                seen.append(view)
                yield view


def _sums(voxels: Float[np.ndarray, "x y z"]) -> list[_Array]:
    """Across the other two axes, of the bits as whole numbers: exact, so that they do not depend on the order."""
    bits = voxels.view(np.uint32)
    plane = bits.sum(axis=2, dtype=np.uint64)
    return [plane.sum(axis=1), plane.sum(axis=0), bits.sum(axis=(0, 1), dtype=np.uint64)]


def _ways(voxels: _Array, axis: int, sums: _Array) -> list[slice]:
    """The direction in which the sums along an axis come first in order; both where they cannot tell."""
    forth, back = slice(None), slice(None, None, -1)
    differ = np.flatnonzero(sums != sums[::-1])
    if differ.size:
        return [forth if sums[differ[0]] < sums[::-1][differ[0]] else back]
    return [forth] if np.array_equal(voxels, np.flip(voxels, axis)) else [forth, back]
