"""From a study to its charts and tables."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from semiseg.bench.grid import ALL, BASELINE
from semiseg.bench.lines import Line
from semiseg.report.charts import Box, Level, Point, Series, box_chart, key, line_chart, scatter_chart, thinned
from semiseg.report.study import Arm, Spread, Study, case_means
from semiseg.runs.contents import Score
from semiseg.runs.folder import RunFolder

MEAN = "mean over classes"


NO_LEGEND = Markup("")


@dataclass(frozen=True)
class Chart:
    title: str
    drawing: Markup
    legend: Markup = NO_LEGEND


def anchor(name: str) -> str:
    """An id, different for different names of cases."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda found: f".{ord(found[0]):x}", name)


def style_of(study: Study, method: str, budget: int = 1) -> int:
    """A method has one style in all charts of a study, a longer training of it another one."""
    return study.methods.index(method) + (len(study.methods) + 1 if budget != 1 else 0)


def efficiency(study: Study) -> Chart | None:
    """Dice against the number of labelled scans, a line a method, with intervals; all labels as levels."""
    counts = {line.labelled: _count(line) for line in study.lines if line.labelled != ALL}
    if not counts:
        return None
    series = []
    for method in dict.fromkeys(line.method for line in study.lines if line.labelled != ALL):
        own = sorted((line for line in study.lines if line.method == method and line.labelled != ALL), key=_count)
        name = f"{method} (lower bound)" if method == BASELINE else method
        band = [(line.dice.low, line.dice.high) for line in own]
        place = (style_of(study, method), [_count(line) for line in own], [line.dice.mean for line in own])
        series.append(Series(name, *place, band))
    levels = [
        Level(f"all labels ({line.labels_used.removesuffix(' labelled')})", len(study.methods),
              line.dice.mean, line.dice.low, line.dice.high)
        for line in study.lines if line.labelled == ALL and line.budget == 1
    ]  # fmt: skip
    told = [
        f"{each.name} {', '.join(f'{y:.3f} with {x:g}' for x, y in zip(each.x, each.y, strict=True))}"
        for each in series
    ]
    told += [f"{level.name} {level.y:.3f}" for level in levels]
    drawing = line_chart(
        series,
        x_label="labelled scans",
        y_label="Dice",
        alt=f"Dice against the number of labelled scans: {'; '.join(told)}",
        x_ticks=sorted(set(counts.values())),
        levels=levels,
        logarithmic=True,
    )
    return Chart("Dice against number of labels", drawing, key([*series, *levels]))


def _count(line: Line) -> int:
    """Labelled scans, without those for validation; a label may have been asked for as a share."""
    return int(line.labels_used.split()[0])


def dice_boxes(study: Study, targets: Mapping[str, str]) -> list[Chart]:
    """The mean over classes first, then each class and region: a box an arm, a point a case (mean over replicates)."""
    scores = {arm.name: _scores(arm) for arm in study.arms if arm.scored}
    means = {arm: _mean_by_case([case_means(rows) for rows in runs]) for arm, runs in scores.items()}
    values = {MEAN: means}
    for name in _structures(scores):
        values[name] = {arm: _mean_by_case([_dice_of(rows, name) for rows in runs]) for arm, runs in scores.items()}
    if len(values) == 2:  # one class is its own mean
        del values[MEAN]
    titles = {name: _headed(name) if name == MEAN else name for name in values}  # a class keeps its name
    return [Chart(titles[name], _boxes(study, name, by_arm, targets)) for name, by_arm in values.items()]


def _boxes(study: Study, name: str, by_arm: Mapping[str, Mapping[str, float]], targets: Mapping[str, str]) -> Markup:
    boxes = []
    for arm in study.arms:
        own = by_arm.get(arm.name, {})
        points = [Point(dice, f"{case}: {dice:.3f}", targets.get(case, "")) for case, dice in own.items()]
        if points:
            boxes.append(Box(arm.name, style_of(study, arm.method, arm.budget), points))
    medians = (f"{box.name} {statistics.median(point.value for point in box.points):.3f}" for box in boxes)
    told = f"Dice of {name}, a point a scan; medians: {', '.join(medians)}"
    return box_chart(boxes, x_label="Dice", alt=told) if boxes else Markup("")


def class_table(study: Study) -> list[dict[str, Any]]:
    """A row a class and arm, over the scans that have the class in the truth; the mean over replicates of each scan."""
    scores = {arm.name: _scores(arm) for arm in study.arms if arm.scored}
    return [
        {
            "class": name,
            "arm": arm,
            "dice": Spread.of(_mean_by_case([_dice_of(rows, name) for rows in runs]).values()),
            "hd95_mm": Spread.of(_mean_by_case([_distance_of(rows, name) for rows in runs]).values()),
            "far_ml": Spread.of(_mean_by_case([_far_of(rows, name) for rows in runs]).values()),
        }
        for name in _structures(scores)
        for arm, runs in scores.items()
    ]


def _scores(arm: Arm) -> list[list[Score]]:
    return [result.scores() for result in arm.results if result.evaluation]


def _structures(scores: Mapping[str, Sequence[Sequence[Score]]]) -> list[str]:
    """Classes, then regions."""
    rows = [score for runs in scores.values() for run in runs for score in run]
    return list(dict.fromkeys(score.name for score in sorted(rows, key=lambda score: score.kind == "region")))


def _dice_of(rows: Sequence[Score], name: str) -> dict[str, float]:
    return {row.case: row.dice for row in rows if row.name == name and row.in_truth and row.dice is not None}


def _distance_of(rows: Sequence[Score], name: str) -> dict[str, float]:
    return {row.case: row.hd95_mm for row in rows if row.name == name and row.in_truth and row.hd95_mm is not None}


def _far_of(rows: Sequence[Score], name: str) -> dict[str, float]:
    return {row.case: row.far_ml for row in rows if row.name == name and row.far_ml is not None}


def _mean_by_case(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    cases = dict.fromkeys(case for run in runs for case in run)
    return {case: statistics.fmean(run[case] for run in runs if case in run) for case in cases}


def estimate_scatters(study: Study, targets: Mapping[str, str]) -> list[Chart]:
    """Estimated against true Dice, a chart an arm and structure."""
    charts = []
    for arm, correlations in study.correlations.items():
        single = len(correlations) == 2  # one class is its own mean
        for each in (each for each in correlations if not (single and each.kind == "mean")):
            score = each.score.replace("_dice", " Dice")
            points = [
                (x, Point(y, f"{case}: {score} {x:.3f}, true Dice {y:.3f}", targets.get(case, "")))
                for case, x, y in zip(each.cases, each.estimated, each.true, strict=True)
            ]
            told = f"True Dice against {score}, {arm}, a point a scan. Rank correlation: {each.text}"
            drawing = scatter_chart(points, x_label=score, y_label="true Dice", alt=told)
            charts.append(Chart(f"{arm}, {each.name}: {each.rho_text}", drawing))
    return charts


def training(study: Study) -> list[tuple[str, list[Chart]]]:
    """For each number of labels: validation Dice where there was any, then every term of the loss, smoothed.

    Of several replicates, the mean over those that have logged a step.
    """
    groups: dict[str, list[Arm]] = {}
    for arm in study.arms:
        groups.setdefault(arm.labelled, []).append(arm)
    return [(labelled, charts) for labelled, arms in groups.items() if (charts := _training_charts(study, arms))]


def _training_charts(study: Study, arms: Sequence[Arm]) -> list[Chart]:
    wanted: dict[str, list[Series]] = {}
    for arm in arms:
        checks = [line for result in arm.results for line in RunFolder(result.run).validations()]
        curve = _mean_curve([(line.step, line.dice_mean) for line in checks])
        if curve[0]:
            wanted.setdefault("validation Dice", []).append(_series(study, arm, *curve))
    for arm in arms:
        lines = [line for result in arm.results for line in RunFolder(result.run).train_lines()]
        for term in dict.fromkeys(name for line in lines for name in line.terms):
            steps, values = _mean_curve([(line.step, line.terms[term]) for line in lines if term in line.terms])
            wanted.setdefault(f"loss: {term}", []).append(_series(study, arm, steps, _smooth(values)))
    return [Chart(_headed(label), _curves(series, label), key(series)) for label, series in wanted.items()]


def _headed(words: str) -> str:
    return words[:1].upper() + words[1:]


def _curves(series: Sequence[Series], label: str) -> Markup:
    last = ", ".join(f"{each.name} {each.y[-1]:.3f}" for each in series)
    return line_chart(series, x_label="step", y_label=label, alt=f"{label} over training steps; at the end {last}")


def _series(study: Study, arm: Arm, steps: Sequence[float], values: Sequence[float]) -> Series:
    return Series(arm.name, style_of(study, arm.method, arm.budget), thinned(steps), thinned(values))


def _mean_curve(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    by_step: dict[float, list[float]] = {}
    for step, value in points:
        by_step.setdefault(step, []).append(value)
    steps = sorted(by_step)
    return steps, [statistics.fmean(by_step[step]) for step in steps]


def _smooth(values: Sequence[float]) -> list[float]:
    """Mean over the last twentieth of all points, so that one batch does not hide the trend."""
    window = max(1, len(values) // 20)
    return [statistics.fmean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]
