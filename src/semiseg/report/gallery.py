"""Which cases are shown: the worst, the median and the best in three planes, every other one on one slice."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semiseg.bench.grid import ALL
from semiseg.colours import class_colours
from semiseg.data.dataset import Case
from semiseg.data.plan import Plan
from semiseg.errors import InputError
from semiseg.prediction.overlays import Truth, true_labels
from semiseg.progress import say, track
from semiseg.report.panels import PLANES, Views, panels, read_views, telling_slice, volumes
from semiseg.report.study import Arm, Result, Study, case_means
from semiseg.runs.folder import RunFolder

LARGE, SMALL = 340, 200
"""Pixels along the longer side of a panel."""


@dataclass(frozen=True)
class Panel:
    picture: bytes
    """JPEG."""
    caption: str
    alt: str


@dataclass(frozen=True)
class Shown:
    """One case: rows of panels, a row a plane, the same columns in each."""

    case: str
    rank: str
    """Worst, median, best, or empty."""
    dice: float
    """Mean over the methods shown."""
    rows: tuple[tuple[Panel, ...], ...]
    volumes: dict[str, Any] | None = None


@dataclass(frozen=True)
class Gallery:
    shown: tuple[Shown, ...] = ()
    """Worst, median, best."""
    others: tuple[Shown, ...] = ()
    """Worst first."""
    left_out: int = 0
    """Scored cases without a picture, for want of room or of files."""
    titles: tuple[str, ...] = ()
    """Of the methods beside each other."""
    colours: dict[str, str] | None = None
    """Class to #rrggbb."""

    @property
    def names(self) -> list[str]:
        return [shown.case for shown in (*self.shown, *self.others)]


def gallery_of(study: Study, picture_bytes: int, volume_bytes: int) -> Gallery:
    """Pictures of the scored cases, one case in memory at a time, until the bytes are used up."""
    beside = _beside(study.arms)
    if not beside:
        return Gallery()
    means = {arm.name: case_means(result.scores()) for arm, result in beside if result.evaluation}
    dice = {
        case: statistics.fmean(own[case] for own in means.values())
        for case in study.cases
        if all(case in own for own in means.values())
    }
    ranked = sorted(dice, key=lambda case: dice[case])
    plan = Plan.load(RunFolder(beside[0][1].run).plan)
    # of several ranks in a small cohort, the last one here is the case's name
    names = {
        ranked[place]: rank for place, rank in ((len(ranked) // 2, "Median"), (-1, "Best"), (0, "Worst")) if ranked
    }
    truths = _truths(beside[0][1].run, [study.cases[case] for case in ranked])
    shown, others = [], []
    for case in track(sorted(ranked, key=lambda name: name not in names), "Drawing"):
        large = case in names
        if not large and picture_bytes <= 0:
            break
        try:
            one = _shown(study.cases[case], truths[case], beside, means, plan, names.get(case, ""), volume_bytes > 0)
        except InputError as error:
            say(f"{case}: no picture: {error}")
            continue
        if large:
            shown.append(one)
            volume_bytes -= len(str(one.volumes or ""))
        else:
            others.append(one)
            picture_bytes -= sum(len(panel.picture) for row in one.rows for panel in row)
    named = class_colours(list(plan.classes))
    colours = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in named.items()}
    colours.pop(next(iter(plan.classes)))
    return Gallery(
        tuple(sorted(shown, key=lambda one: one.dice)),
        tuple(others),
        len({case for own in means.values() for case in own}) - len(shown) - len(others),
        tuple(arm.name for arm, _ in beside),
        colours,
    )


def _beside(arms: Sequence[Arm]) -> list[tuple[Arm, Result]]:
    """The arms that are drawn beside each other, and the run of each: of a bench, those with the fewest labels and the
    upper bound, in the first replicate."""
    with_predictions = [arm for arm in arms if arm.scored and arm.results[0].predictions]
    fewest = next((arm.labelled for arm in with_predictions if arm.labelled != ALL), "")
    chosen = [arm for arm in with_predictions if arm.labelled in (fewest, ALL) and arm.budget == 1]
    return [(arm, arm.results[0]) for arm in chosen]


def _truths(run: Path, cases: Sequence[Case]) -> dict[str, Truth]:
    """With what the dataset says about its values, where it says something."""
    if not cases:
        return {}
    declared = true_labels(None, [Path(RunFolder(run).read_config()["data"]["path"])])
    return {case.name: declared.get(case.name, Truth(case.label)) for case in cases if case.label is not None}


def _shown(
    case: Case,
    truth: Truth,
    beside: Sequence[tuple[Arm, Result]],
    means: dict[str, dict[str, float]],
    plan: Plan,
    rank: str,
    with_volumes: bool,
) -> Shown:
    files = {arm.name: _prediction(result, case.name) for arm, result in beside}
    views = read_views(case, truth, files, plan)
    planes = views.planes if rank else views.planes[:1]
    rows = tuple(_row(views, axis, case.name, means if axis == planes[0] else {}, bool(rank)) for axis in planes)
    dice = statistics.fmean(own[case.name] for own in means.values())
    return Shown(case.name, rank, dice, rows, _viewer(views, plan) if rank and with_volumes else None)


def _prediction(result: Result, case: str) -> Path:
    assert result.predictions is not None
    picture = result.predictions / f"{case}.png"
    file = picture if picture.exists() else result.predictions / f"{case}.nii.gz"
    if file.exists() and not result.has_seen(file):
        raise InputError(f"{file}: got another prediction than was scored, expected that one; evaluate again")
    return file


def _row(views: Views, axis: int, case: str, means: dict[str, dict[str, float]], large: bool) -> tuple[Panel, ...]:
    """means: arm to the Dice of its cases, for the captions."""
    number = telling_slice(views.labels["truth"], axis)
    row = []
    for title, picture in panels(views, axis, number, LARGE if large else SMALL).items():
        caption = f"{title}, Dice {means[title][case]:.3f}" if title in means else title
        row.append(Panel(picture, caption, f"{case}, {PLANES[axis]} slice {number}: {caption}"))
    return tuple(row)


def _viewer(views: Views, plan: Plan) -> dict[str, Any] | None:
    if 1 in views.grey.shape:
        return None
    return {"classes": list(plan.classes), "colours": views.colours.tolist(), **volumes(views)}
