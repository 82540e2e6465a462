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


def sigmoid_ramp(progress: float, start: float, end: float) -> float:
    """0 until `start`, then exp(-5 (1 - t)^2), t rising from 0 to 1 at `end` (Laine and Aila, arXiv 1610.02242)."""
    t = ramp(progress, start, end)
    return 0.0 if progress < start else math.exp(-5 * (1 - t) ** 2)


def learning_rate(progress: float, shape: str, warm_up: float, decay: float = 0.01, times: float = 1.0) -> float:
    """Factor on the learning rate: a straight line up during `warm_up`, then down as `shape` says.

    constant; poly: (1 - p)^0.9 (nnU-Net); cosine: (1 + cos(pi p)) / 2; exponential: decay^p, `times` over.
    """
    if progress < warm_up:
        return progress / warm_up
    after = (progress - warm_up) / (1 - warm_up) if warm_up < 1 else 1.0
    if shape == "poly":
        return float((1 - after) ** 0.9)
    if shape == "exponential":
        return float(decay ** (times * after))
    return (1 + math.cos(math.pi * after)) / 2 if shape == "cosine" else 1.0


def annealing_threshold(progress: float, shape: str, classes: int) -> float:
    """Probability of the right class above which a labelled voxel is left out: from 1 / classes up to 1.

    a (1 - 1/K) + 1/K with a = p (linear), 1 - exp(-5 p) (log) or exp(5 (p - 1)) (exp): training-signal annealing,
    UDA (arXiv 1904.12848), section 2.2.
    """
    share = {"linear": progress, "log": 1 - math.exp(-5 * progress), "exp": math.exp(5 * (progress - 1))}[shape]
    return share * (1 - 1 / classes) + 1 / classes
