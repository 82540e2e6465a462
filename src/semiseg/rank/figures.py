"""Figures in files of their own, as PNG bytes; pyplot's global state and backend are not touched."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, INK = "#0072b2", "#222222"  # the first of Okabe and Ito's colours: https://jfly.uni-koeln.de/color/

Series = tuple[Sequence[float], Sequence[float]]
"""x and y."""


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
        axes.scatter(x, y, s=18, color=BLUE, alpha=0.7, linewidths=0)
        lowest = min((*y, *x) if same_range else y, default=0)
        share = (np.floor(10 * lowest) / 10 - 0.02, 1.02)
        if same_range:
            axes.plot(share, share, color=INK, alpha=0.3, linewidth=1, linestyle=(0, (5, 2)))
            axes.set(xlim=share, aspect="equal")
        axes.set(xlabel=x_label, ylabel=y_label, ylim=share)
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.15)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, dpi=120, format="png", facecolor="auto", metadata={"Description": description})
    return buffer.getvalue()
