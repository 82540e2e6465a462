"""Intensities on a scale of their own, where it differs between scans: ranks, and windows to eight bits."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


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
