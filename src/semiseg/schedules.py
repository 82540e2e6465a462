"""Numbers that change during training: functions of progress, which goes from 0 to 1."""

from __future__ import annotations

import math


def ramp(progress: float, start: float, end: float) -> float:
    """0 until `start`, 1 from `end`, a straight line between. A step if they are equal."""
    if progress < start:
        return 0.0
    if progress >= end:
        return 1.0
    return (progress - start) / (end - start)


def learning_rate(progress: float, shape: str, warm_up: float) -> float:
    """Factor on the learning rate: a straight line up during `warm_up`, then down to 0 as `shape` says.

    constant; poly: (1 - p)^0.9 (nnU-Net); cosine: (1 + cos(pi p)) / 2.
    """
    if progress < warm_up:
        return progress / warm_up
    after = (progress - warm_up) / (1 - warm_up) if warm_up < 1 else 1.0
    if shape == "poly":
        return float((1 - after) ** 0.9)
    return (1 + math.cos(math.pi * after)) / 2 if shape == "cosine" else 1.0
