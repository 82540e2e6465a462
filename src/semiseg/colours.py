"""One colour a class, everywhere: overlays, report, training pictures, label tables, palettes of PNG files.

The colour belongs to the class, by its place among the plan's classes, not to the value that a dataset gives it.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from itertools import count

from semiseg.sides import pairs

Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""

PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""Okabe and Ito's colours, which colour-blind people can tell apart; of the first classes after the background."""

LIGHTER = 0.5
"""How far the colour of a right-hand structure is on the way from that of the left-hand one to white."""


def class_colours(classes: Sequence[str]) -> dict[str, Colour]:
    """Of the plan's classes, in their order; the first one, the background, is black.

    PALETTE first, then hues a golden ratio apart, in turn dark and light, so that neighbouring classes differ. The
    right one of two structures that differ in their side alone has a lighter shade of the left one's colour.
    """
    right_of = pairs(classes[1:])
    alone = [name for name in classes[1:] if name not in right_of]
    colours = dict.fromkeys(classes[:1], (0, 0, 0)) | dict(zip(alone, map(_shade, count()), strict=False))
    colours |= {right: _lighter(colours[left]) for right, left in right_of.items()}
    return {name: colours[name] for name in classes}


def _shade(order: int) -> Colour:
    if order < len(PALETTE):
        return PALETTE[order]
    shade = colorsys.hsv_to_rgb((order + 1) * 0.618034 % 1, *((0.45, 1.0), (0.85, 0.75))[order % 2])
    red, green, blue = (round(255 * part) for part in shade)
    return (red, green, blue)


def _lighter(colour: Colour) -> Colour:
    red, green, blue = (round(part + LIGHTER * (255 - part)) for part in colour)
    return (red, green, blue)


def value_colours(classes: Mapping[str, int]) -> dict[int, Colour]:
    """Label value to colour. classes: name to value, in the plan's order."""
    colours = class_colours(list(classes))
    return {value: colours[name] for name, value in classes.items()}
