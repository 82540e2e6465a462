"""Pictures for the report, as PNG bytes: curves over training steps and outlines on a slice of a scan.

Figures are matplotlib objects of their own: nothing here touches pyplot's global state or its backend.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours, told apart with any colour vision: https://jfly.uni-koeln.de/color/
METHOD_COLOURS = {
    "light": ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00"),
    "dark": ("#56b4e9", "#e69f00", "#2fc79d", "#cc79a7", "#f0f0f0", "#f0e442"),
}
CLASS_COLOURS = ("#e69f00", "#56b4e9", "#f0e442", "#cc79a7", "#009e73")
WRONG_COLOUR = "#d55e00"
LINES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 2, 1, 2)), (0, (8, 2)), (0, (3, 1)))  # colour is not alone
INK = {"light": "#222222", "dark": "#e6e6e6"}

Series = tuple[Sequence[float], Sequence[float]]
"""Steps and values."""


def curves(series: Mapping[str, Series], label: str, *, theme: str, order: Sequence[str]) -> bytes:
    """One line a method over training steps, on a transparent ground, for the light or the dark page.

    order: every method of the report, so that a method has the same colour and dash in every plot.
    """
    figure = Figure(figsize=(4.8, 3.0), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    for name, (steps, values) in series.items():
        place = order.index(name)
        axes.plot(
            steps,
            values,
            label=name,
            color=METHOD_COLOURS[theme][place % len(METHOD_COLOURS[theme])],
            linestyle=LINES[place % len(LINES)],
            marker="o" if len(steps) < 20 else "",
            markersize=3.5,
            linewidth=1.8,
        )
    ink = INK[theme]
    axes.set_xlabel("step", color=ink)
    axes.set_ylabel(label, color=ink)
    axes.tick_params(colors=ink)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(color=ink, alpha=0.15)
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)
    axes.legend(frameon=False, labelcolor=ink)
    return _png(figure, dpi=160)


def overlay(
    image: Float[np.ndarray, "x y"],
    label: Int[np.ndarray, "x y"],
    colours: Mapping[int, str],
    spacing_mm: Sequence[float],
    *,
    truth: Int[np.ndarray, "x y"] | None = None,
    width: int = 360,
) -> bytes:
    """The image in grey with the outline of every label value in `colours`.

    The first axis runs to the right, the second one upwards. Voxels where the label differs from `truth` are
    filled with `WRONG_COLOUR`. `width` in pixels.
    """
    height = width * image.shape[1] * spacing_mm[1] / (image.shape[0] * spacing_mm[0])
    figure = Figure(figsize=(width / 100, height / 100), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    low, high = np.percentile(image, (1, 99.5))
    axes.imshow(
        image.T,
        cmap="gray",
        vmin=low,
        vmax=low + 1.2 * max(high - low, 1e-6),  # a little dark, so that colours stand out
        origin="lower",
        aspect="auto",
        interpolation="bicubic",
    )
    if truth is not None:
        tint = np.zeros((*label.shape, 4))
        tint[label != truth] = to_rgba(WRONG_COLOUR, alpha=0.6)
        axes.imshow(tint.transpose(1, 0, 2), origin="lower", aspect="auto", interpolation="nearest")
    for value, colour in colours.items():
        mask = label == value
        if mask.any():
            # Padding closes outlines at the picture's edge.
            axes.contour(
                np.arange(-1, image.shape[0] + 1),
                np.arange(-1, image.shape[1] + 1),
                np.pad(mask, 1).T.astype(float),
                [0.5],
                colors=[colour],
                linewidths=1.6,
            )
    axes.set_xlim(-0.5, image.shape[0] - 0.5)
    axes.set_ylim(-0.5, image.shape[1] - 0.5)
    return _png(figure, dpi=100)


def scatter(
    panels: Sequence[tuple[str, Series]], x_label: str, y_label: str, description: str, *, same_range: bool
) -> bytes:
    """A panel of points, with a title, for each of `panels`; at most four in a row, on white.

    y is a share (0 to 1). same_range: x is one too, so both axes are alike and show the diagonal. description: in
    words, kept in the file.
    """
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.9 * columns, 3.2 * rows), layout="constrained")
    for place, (title, (x, y)) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.scatter(x, y, s=18, color=METHOD_COLOURS["light"][0], alpha=0.7, linewidths=0)
        lowest = min((*y, *x) if same_range else y, default=0)
        share = (np.floor(10 * lowest) / 10 - 0.02, 1.02)
        if same_range:
            axes.plot(share, share, color=INK["light"], alpha=0.3, linewidth=1, linestyle=LINES[1])
            axes.set(xlim=share, aspect="equal")
        axes.set(xlabel=x_label, ylabel=y_label, ylim=share)
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.15)
    return _png(figure, dpi=120, metadata={"Description": description})


def telling_slice(label: Int[np.ndarray, "x y z"]) -> int:
    """The slice across the last axis with the largest sum over classes of the share of a class in it."""
    shares = np.zeros(label.shape[2])
    for value in np.unique(label[label > 0]):
        count = (label == value).sum(axis=(0, 1))
        shares += count / count.sum()
    return int(shares.argmax()) if shares.any() else label.shape[2] // 2


def _png(figure: Figure, dpi: int, metadata: Mapping[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, dpi=dpi, format="png", facecolor="auto", metadata=dict(metadata or {}))
    return buffer.getvalue()
