"""One colour a class, everywhere: overlays, report, training pictures, label tables, palettes of PNG files.

The colour belongs to the class, by its place among the plan's classes, not to the value that a dataset gives it.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from typing import Any

import numpy as np

Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""

PALETTE = np.array(
    [
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
    ],
    dtype=np.uint8,
)
"""Okabe and Ito's colours, which colour-blind people can tell apart; of the first classes after the background."""


def class_colour(index: int) -> Colour:
    """Of the class with this index among the plan's classes; the background, 0, is black.

    PALETTE first, then hues a golden ratio apart, in turn dark and light, so that neighbouring classes differ.
    """
    if index == 0:
        return (0, 0, 0)
    if index <= len(PALETTE):
        red, green, blue = map(int, PALETTE[index - 1])
        return (red, green, blue)
    shade = colorsys.hsv_to_rgb(index * 0.618034 % 1, *((0.85, 0.75), (0.45, 1.0))[index % 2])
    red, green, blue = (round(255 * part) for part in shade)
    return (red, green, blue)


def class_colours(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Those of the first `count` classes, the background among them: (count, 3)."""
    return np.array([class_colour(index) for index in range(count)], np.uint8).reshape(count, 3)


def value_colours(values: Iterable[int]) -> dict[int, Colour]:
    """Label value to colour. values: of the plan's classes, in their order."""
    return {value: class_colour(index) for index, value in enumerate(values)}
