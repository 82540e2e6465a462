"""What the authors' training loops do beside the loss, number by number."""

from __future__ import annotations

import math


def adam_then_shrunk(values, gradient_of, lr, shrink, steps):
    """ROAM: Adam (Kingma and Ba, algorithm 1), and after every step every parameter times 1 - shrink.

    values: plain numbers; gradient_of: the gradients at given values. Yields the values after each step.
    """
    values, first, second = list(values), [0.0] * len(values), [0.0] * len(values)
    for step in range(1, steps + 1):
        for k, slope in enumerate(gradient_of(values)):
            first[k] = 0.9 * first[k] + 0.1 * slope
            second[k] = 0.999 * second[k] + 0.001 * slope * slope
            mean, square = first[k] / (1 - 0.9**step), second[k] / (1 - 0.999**step)
            values[k] -= lr * mean / (math.sqrt(square) + 1e-8)
            values[k] *= 1 - shrink
        yield list(values)


def rate_after(epochs, lr, each_epoch=0.95):
    """EquiReg's exponential decay of the learning rate: so many times a factor."""
    for _ in range(epochs):
        lr *= each_epoch
    return lr


PATIENCE = {1: 10_000, 5: 20_000, 10: 30_000, 100: 40_000}
"""EquiReg: steps without a lower loss, for each percentage of labelled patients."""


def patience_of(labelled, patients):
    """For the percentages of the thesis that is its own; others take that of the next larger."""
    for percent, steps in sorted(PATIENCE.items()):
        most = (percent * patients + 99) // 100  # as many patients as that percentage labels, rounded up
        if labelled <= most:
            return steps
    return PATIENCE[100]
