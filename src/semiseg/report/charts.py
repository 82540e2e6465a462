"""Charts as inline SVG: they follow the page's colours, stay sharp in print, and their points can be links.

A style is a number that decides colour, dash and marker, so that colour is never alone; style.css holds the colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log2, log10

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 460.0, 290.0
RIGHT, TOP, BOTTOM = 12.0, 10.0, 42.0
ROW = 34.0
"""Height of one box with its points."""
ABREAST = 16.0
"""Between series that have a value at the same one place only."""
LETTER = 7.6
"""About the width of a character in labels."""
MOST_POINTS = 200
"""Of one line; more are not seen."""
DASHES = ("", "7 3", "2 2.5", "8 3 2 3", "11 3", "4 2", "1 2 5 2")
STYLES = len(DASHES)
_MARKERS = (
    "M-3.2,0a3.2,3.2 0 1 0 6.4,0a3.2,3.2 0 1 0 -6.4,0z",
    "M-3,-3H3V3H-3z",
    "M0,-3.9L3.7,2.8H-3.7z",
    "M0,-4.2L4.2,0L0,4.2L-4.2,0z",
)


@dataclass(frozen=True)
class Series:
    """A line; band: its interval at each point."""

    name: str
    style: int
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Level:
    """A horizontal line with its interval."""

    name: str
    style: int
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A value with what a pointer shows, and the id of the element that it leads to, if any."""

    value: float
    title: str
    target: str = ""


@dataclass(frozen=True)
class Box:
    name: str
    style: int
    points: Sequence[Point]


@dataclass(frozen=True)
class _Frame:
    """From values to places in the picture."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 50.0
    height: float = HEIGHT
    logarithmic: bool = False

    def across(self, value: float) -> float:
        low, high = map(self._scaled, self.x)
        return self.left + (self._scaled(value) - low) / (high - low) * (WIDTH - RIGHT - self.left)

    def up(self, value: float) -> float:
        low, high = self.y
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - BOTTOM - TOP)

    def _scaled(self, value: float) -> float:
        return log2(value) if self.logarithmic else value

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str) -> Markup:
        bottom, right = self.height - BOTTOM, WIDTH - RIGHT
        parts = [Markup('<path class="axis" d="M{:.1f},{:.1f}V{:.1f}H{:.1f}"/>').format(self.left, TOP, bottom, right)]
        for tick in x_ticks:
            x = self.across(tick)
            parts.append(Markup('<path class="grid" d="M{:.1f},{:.1f}V{:.1f}"/>').format(x, TOP, bottom))
            parts.append(_text(x, bottom + 16, f"{tick:g}", "middle"))
        for tick in y_ticks:
            y = self.up(tick)
            parts.append(Markup('<path class="grid" d="M{:.1f},{:.1f}H{:.1f}"/>').format(self.left, y, right))
            parts.append(_text(self.left - 6, y + 4, f"{tick:g}", "end"))
        parts.append(_text((self.left + right) / 2, self.height - 6, x_label, "middle"))
        if y_label:
            middle = (TOP + bottom) / 2
            turned = Markup(
                '<text class="label" text-anchor="middle" transform="translate(13,{:.1f})rotate(-90)">{}</text>'
            )
            parts.append(turned.format(middle, y_label))
        return Markup("").join(parts)


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    alt: str,
    x_ticks: Sequence[float] | None = None,
    levels: Sequence[Level] = (),
    logarithmic: bool = False,
) -> Markup:
    """Lines with markers where there are few points, bands and levels; logarithmic: of the x axis."""
    xs = [x for each in series for x in each.x]
    ys = [y for each in series for y in (*each.y, *(end for ends in each.band for end in ends))]
    ys += [end for level in levels for end in (level.low, level.y, level.high)]
    x_range, y_range = _widened(xs, 1.25 if logarithmic else None), _widened([y for y in ys if np.isfinite(y)])
    y_ticks = ticks(*y_range)
    left = max(50, 26 + LETTER * max(len(f"{tick:g}") for tick in y_ticks))  # the numbers, beside the axis' label
    frame = _Frame(x_range, y_range, left, logarithmic=logarithmic)
    parts = [frame.axes(ticks(*x_range) if x_ticks is None else x_ticks, y_ticks, x_label, y_label)]
    for level in levels:
        parts.append(_level(level, frame))
    apart = ABREAST if len(set(xs)) == 1 else 0
    for index, each in enumerate(series):
        parts.append(_line(each, frame, apart * (index - (len(series) - 1) / 2)))
    return _svg(parts, HEIGHT, alt)


def box_chart(boxes: Sequence[Box], *, x_label: str, alt: str) -> Markup:
    """A row a box: quartiles, median, whiskers to the last point within 1.5 of the box's length, and every point."""
    values = [point.value for box in boxes for point in box.points]
    left = 14 + LETTER * max(len(box.name) for box in boxes)
    height = TOP + BOTTOM + ROW * len(boxes)
    low, high = _tenths(values)
    frame = _Frame((low - 0.02, high + 0.02), (0.0, float(len(boxes))), left, height)
    parts = [frame.axes(ticks(low, high, 4), (), x_label, "")]
    for row, box in enumerate(boxes):
        parts.append(_text(left - 8, TOP + (row + 0.5) * ROW + 4, box.name, "end"))
        parts.append(_box(box, TOP + (row + 0.5) * ROW, frame))
    return _svg(parts, height, alt, links=True)


def scatter_chart(points: Sequence[tuple[float, Point]], *, x_label: str, y_label: str, alt: str) -> Markup:
    """x and y are shares (0 to 1) on alike axes, with the diagonal."""
    low, high = _tenths([share for x, point in points for share in (x, point.value)])
    frame = _Frame((low - 0.02, high + 0.02), (low - 0.02, high + 0.02))
    ends = [(frame.across(share), frame.up(share)) for share in (low, high)]
    parts = [frame.axes(ticks(low, high), ticks(low, high), x_label, y_label), _path("diagonal", ends, 1)]
    parts += [_dot(point, frame.across(x), frame.up(point.value), 0) for x, point in points]
    return _svg(parts, HEIGHT, alt, links=True)


def key(series: Sequence[Series | Level]) -> Markup:
    """A legend that wraps like text."""
    items = [
        Markup('<li><svg class="sample s{}" viewBox="0 0 34 10" aria-hidden="true">{}{}</svg>{}</li>').format(
            each.style % STYLES,
            _path("line", [(1, 5), (33, 5)], each.style),
            _marker(17, 5, each.style) if isinstance(each, Series) else "",
            each.name,
        )
        for each in series
    ]
    return Markup('<ul class="key">{}</ul>').format(Markup("").join(items))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from low to high, about `count` of them."""
    span = high - low
    unit = 10.0 ** floor(log10(span / count))
    step = next(unit * times for times in (1, 2, 5, 10) if span / (unit * times) <= count + 1e-9)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def thinned(values: Sequence[float]) -> list[float]:
    """At most MOST_POINTS of them, evenly spaced, with the first and the last."""
    places = np.unique(np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).astype(int))
    return [values[place] for place in places]


def _widened(values: Sequence[float], factor: float | None = None) -> tuple[float, float]:
    """A range with some room around the values; factor: of the room on a logarithmic axis."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if factor:
        return low / factor, high * factor
    room = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room


def _tenths(shares: Sequence[float]) -> tuple[float, float]:
    """The tenths around all shares; there is one share at least."""
    low = floor(10 * min(shares)) / 10
    return low, max(ceil(10 * max(shares)) / 10, low + 0.1)


def _line(series: Series, frame: _Frame, aside: float) -> Markup:
    across = [frame.across(x) + aside for x in series.x]
    places = [(x, frame.up(y)) for x, y in zip(across, series.y, strict=True)]
    band = Markup("")
    if series.band and all(np.isfinite(ends).all() for ends in series.band):
        edge = [(x, frame.up(high)) for x, (_, high) in zip(across, series.band, strict=True)]
        edge += [(x, frame.up(low)) for x, (low, _) in reversed([*zip(across, series.band, strict=True)])]
        if len(series.x) == 1:
            band = _path("whisker", edge, 0)
        else:
            band = Markup('<path class="band" d="{}z"/>').format(_along(edge))
    markers = [_marker(x, y, series.style) for x, y in places] if len(places) < 20 else []
    title = Markup("<title>{}</title>").format(series.name)
    return Markup('<g class="s{}">{}{}{}{}</g>').format(
        series.style % STYLES, title, band, _path("line", places, series.style), Markup("").join(markers)
    )


def _level(level: Level, frame: _Frame) -> Markup:
    ends = (frame.left, WIDTH - RIGHT)
    band = Markup("")
    if np.isfinite((level.low, level.high)).all():
        edge = [(x, frame.up(level.high)) for x in ends] + [(x, frame.up(level.low)) for x in reversed(ends)]
        band = Markup('<path class="band" d="{}z"/>').format(_along(edge))
    line = _path("line", [(x, frame.up(level.y)) for x in ends], level.style)
    return Markup('<g class="s{}"><title>{}</title>{}{}</g>').format(level.style % STYLES, level.name, band, line)


def _box(box: Box, middle: float, frame: _Frame) -> Markup:
    """Tukey's."""
    values = np.array([point.value for point in box.points])
    if not values.size:
        return Markup("")
    low, median, high = np.percentile(values, (25, 50, 75))
    reach = 1.5 * (high - low)
    inner = values[(values >= low - reach) & (values <= high + reach)]
    a, b, c, d, e = map(frame.across, (inner.min(), low, median, high, inner.max()))
    drawn = Markup(
        '<path class="whisker" d="M{:.1f},{y:.1f}H{:.1f}M{:.1f},{y:.1f}H{:.1f}"/>'
        '<rect class="box" x="{:.1f}" y="{top:.1f}" width="{:.1f}" height="18"/>'
        '<path class="median" d="M{:.1f},{top:.1f}v18"/>'
    ).format(a, b, d, e, b, d - b, c, y=middle, top=middle - 9)
    dots = [
        _dot(
            point, frame.across(point.value), middle + (index * 5 % 9 - 4) * 1.7, box.style
        )  # spread, the same every time
        for index, point in enumerate(box.points)
    ]
    return Markup('<g class="s{}">{}{}</g>').format(box.style % STYLES, drawn, Markup("").join(dots))


def _dot(point: Point, x: float, y: float, style: int) -> Markup:
    dot = Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>')
    drawn = dot.format(style % STYLES, x, y, point.title)
    return Markup('<a href="#{}">{}</a>').format(point.target, drawn) if point.target else drawn


def _marker(x: float, y: float, style: int) -> Markup:
    shape = _MARKERS[style % len(_MARKERS)]
    return Markup('<path class="marker" transform="translate({:.1f},{:.1f})" d="{}"/>').format(x, y, shape)


def _path(kind: str, places: Sequence[tuple[float, float]], style: int) -> Markup:
    dash = DASHES[style % STYLES]
    dashed = Markup(' stroke-dasharray="{}"').format(dash) if dash else ""
    return Markup('<path class="{}" d="{}"{}/>').format(kind, _along(places), dashed)


def _along(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _svg(parts: Sequence[Markup], height: float, alt: str, *, links: bool = False) -> Markup:
    role = "group" if links else "img"  # what is within an image is not reached by a keyboard
    return Markup('<svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="{}" aria-label="{}">{}</svg>').format(
        WIDTH, height, role, escape(alt), Markup("").join(parts)
    )
