"""One colour a class, everywhere: pictures, label tables, palettes of PNG files."""

from __future__ import annotations

import colorsys

import numpy as np

# Okabe and Ito's colours, which colour-blind people can tell apart
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


def class_colour(index: int) -> tuple[int, int, int]:
    """Red, green and blue of the class with this index (from 1; the background, 0, is never drawn).

    PALETTE first, then hues a golden ratio apart, in turn dark and light, so that neighbouring classes differ.
    """
    if index <= len(PALETTE):
        red, green, blue = map(int, PALETTE[index - 1])
        return (red, green, blue)
    shade = colorsys.hsv_to_rgb(index * 0.618034 % 1, *((0.85, 0.75), (0.45, 1.0))[index % 2])
    red, green, blue = (round(255 * part) for part in shade)
    return (red, green, blue)
