import re

import numpy as np
import pytest

from semiseg.report import charts
from semiseg.report.charts import Box, Level, Point, Series, box_chart, key, line_chart, scatter_chart, thinned, ticks


def circles(drawing):
    return [tuple(map(float, pair)) for pair in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawing)]


def numbers(path):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", path)]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.38, 1.02, [0.4, 0.6, 0.8, 1]), (0, 1000, [0, 200, 400, 600, 800, 1000]),
     (3, 3.5, [3, 3.1, 3.2, 3.3, 3.4, 3.5]), (-0.05, 0.05, [-0.04, -0.02, 0, 0.02, 0.04])],
)  # fmt: skip
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_a_line_runs_where_its_values_are():
    drawing = line_chart([Series("m", 0, [0, 10], [0.0, 1.0])], x_label="step", y_label="Dice", alt="told")
    (line,) = re.findall(r'class="line" d="([^"]*)"', drawing)
    x0, y0, x1, y1 = numbers(line)
    width = charts.WIDTH - charts.RIGHT - 50
    assert (x0, x1) == pytest.approx((50 + width * 0.04 / 1.08, 50 + width * 1.04 / 1.08), abs=0.1)
    assert y0 > y1  # up is more
    assert drawing.count('class="marker"') == 2
    assert 'aria-label="told"' in drawing
    assert 'role="img"' in drawing


def test_long_numbers_are_beside_the_label_of_their_axis():
    drawing = line_chart([Series("m", 0, [0, 10], [0.791, 0.803])], x_label="", y_label="Dice", alt="")
    number = max(
        re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="end">(0.\d+)<', drawing), key=lambda n: len(n[1])
    )
    assert float(number[0]) - charts.LETTER * len(number[1]) >= 20  # the label takes 20


def test_numbers_of_labels_are_apart_by_their_ratio():
    drawing = line_chart([Series("m", 0, [2, 4, 8], [0.1] * 3)], x_label="", y_label="", alt="", logarithmic=True)
    (line,) = re.findall(r'class="line" d="([^"]*)"', drawing)
    x = numbers(line)[::2]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)


def test_methods_at_one_number_of_labels_stand_side_by_side():
    two = [Series("m", 0, [4], [0.5], [(0.4, 0.6)]), Series("n", 1, [4], [0.7], [(0.6, 0.8)])]
    drawing = line_chart(two, x_label="", y_label="", alt="", x_ticks=[4])
    whiskers = [numbers(path)[::2] for path in re.findall(r'class="whisker" d="([^"]*)"', drawing)]
    middle = 50 + (charts.WIDTH - charts.RIGHT - 50) / 2
    assert whiskers == [pytest.approx([middle - 8] * 2, abs=0.1), pytest.approx([middle + 8] * 2, abs=0.1)]
    assert re.findall(r'class="marker" transform="translate\(([\d.]+)', drawing) == [f"{x[0]:.1f}" for x in whiskers]


def test_bands_are_left_out_where_an_interval_is_unknown():
    known = Series("m", 0, [1, 2], [0.5, 0.6], [(0.4, 0.6), (0.5, 0.7)])
    unknown = Series("n", 1, [1, 2], [0.5, 0.6], [(-np.inf, np.inf), (0.5, 0.7)])
    level = Level("all", 2, 0.9, -np.inf, np.inf)
    drawing = line_chart([known, unknown], x_label="", y_label="", alt="", levels=[level])
    assert drawing.count('class="band"') == 1
    assert "nan" not in drawing
    assert "inf" not in drawing


def test_a_box_has_quartiles_whiskers_and_every_point():
    values = [0.1, 0.5, 0.6, 0.7, 0.8]  # quartiles .5 .6 .7; .1 lies beyond 1.5 boxes
    points = [Point(value, f"scan {k}", "there" if k else "") for k, value in enumerate(values)]
    drawing = box_chart([Box("m", 0, points)], x_label="Dice", alt="")
    found = [x for x, _ in circles(drawing)]
    assert len(found) == 5
    scale = (found[-1] - found[0]) / 0.7
    ((x, width),) = re.findall(r'class="box" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawing)
    assert (float(x), float(width)) == pytest.approx((found[1], 0.2 * scale), abs=0.2)
    whiskers = numbers(re.search(r'class="whisker" d="([^"]*)"', drawing)[1])
    assert (whiskers[0], whiskers[5]) == pytest.approx((found[1], found[4]), abs=0.2)
    assert drawing.count('<a href="#there">') == 4
    assert 'role="group"' in drawing
    assert "<title>scan 0</title>" in drawing


def test_scatter_has_alike_axes_and_the_diagonal():
    drawing = scatter_chart([(0.5, Point(0.5, "a")), (1.0, Point(1.0, "b"))], x_label="", y_label="", alt="")
    diagonal = numbers(re.search(r'class="diagonal" d="([^"]*)"', drawing)[1])
    assert [*circles(drawing)[0], *circles(drawing)[1]] == pytest.approx(diagonal, abs=0.1)


def test_names_are_escaped():
    series = [Series("<script>", 0, [1], [1])]
    assert "<script>" not in key(series) + line_chart(series, x_label="<b>", y_label="&", alt='"<i>')


def test_long_lines_are_thinned_with_both_ends():
    thin = thinned(list(range(5000)))
    assert len(thin) == charts.MOST_POINTS
    assert (thin[0], thin[-1]) == (0, 4999)
    assert thinned([1.0, 2.0]) == [1.0, 2.0]
