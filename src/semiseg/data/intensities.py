"""From a scan's grey values to network input: z-scores, windows, ranks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float

from semiseg.data.plan import Normalisation, Plan

LARGEST = 1e4
"""Normalised intensities are cut here: far beyond anything real, safely within 16-bit floating point."""
AS_WINDOWED = "all values lie in 0 to 255 or 0 to 1, taken as the plan's window already applied"
"""What the user is told of scans that are `windowed_already`."""


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


def normalise(
    channel: Float[np.ndarray, "x y z"], rule: Normalisation, mask: Bool[np.ndarray, "x y z"] | None = None
) -> Float[np.ndarray, "x y z"]:
    """Network input of one channel, in 32-bit, within +-LARGEST. See `Normalisation` for the schemes.

    mask: voxels that the z-score is measured on (None or empty: all). A constant scan becomes 0.
    """
    if rule.scheme == "equalise":
        return equalise(channel)
    if rule.scheme == "window":
        low, high, mean, deviation = rule.low, rule.high, rule.mean, rule.deviation
    else:
        voxels = channel[mask] if mask is not None and mask.any() else channel.ravel()
        low, high = map(float, np.percentile(voxels, (0.5, 99.5)))  # NumPy's own scalars would make all 64-bit
        clipped = np.clip(voxels, low, high)
        mean, deviation = (float(clipped.mean(dtype=np.float64)), float(clipped.std(dtype=np.float64)))
    scaled = (np.clip(channel, low, high) - mean) / (deviation or 1.0)
    return np.asarray(np.clip(scaled, -LARGEST, LARGEST), np.float32)


def windowed_already(ranges: Iterable[tuple[float, float]], plan: Plan) -> bool:
    """Whether a scan counts as 8-bit values of its window, by the lowest and highest value of each channel.

    See `Normalisation.eight_bit`.
    """
    return any(
        rule.eight_bit and eight_bit_top(*values) is not None
        for values, rule in zip(ranges, plan.normalisation, strict=True)
    )
