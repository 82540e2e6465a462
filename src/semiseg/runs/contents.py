"""What the files of a run hold, as it is read back. Which file holds what, `RunFolder` knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from semiseg.errors import InputError
from semiseg.settings import ReadBack
from semiseg.tables import parse_table

CheckpointName = Literal["best", "last"]


class Validated(ReadBack):
    """A checkpoint, as validation saw it."""

    step: int | None
    """None for the best of a run without validation."""
    validation_dice: float | None


class RunResult(ReadBack):
    """What a finished run says of itself."""

    checkpoint: CheckpointName
    """Which of them the exported model is of."""
    last: Validated
    best: Validated
    labelled: int
    """Scans whose labels were trained on."""
    validation: int
    labels_used: str
    """Both, in words."""
    unlabelled: int
    """Scans without labels that were trained on; 0 for a method that uses none."""
    transductive: bool = False
    duration_s: float
    """Of training."""
    memory_gb: float | None = None
    """Most that was used."""

    def of_checkpoint(self, which: CheckpointName) -> Validated:
        return self.best if which == "best" else self.last


class ScansOfRun(ReadBack):
    """Where the scans of a run are."""

    path: str
    layout: str | None = None
    unlabelled: str | None = None
    channels: tuple[str, ...] | None = None


class MethodOfRun(ReadBack):
    name: str


class RunConfig(ReadBack):
    """Of a run's settings, those that are asked for by name."""

    data: ScansOfRun
    method: MethodOfRun
    score: bool = False


class Environment(ReadBack):
    """What a run was begun on and with; empty where that was not kept."""

    packages: dict[str, str] = Field(default_factory=dict)
    """Name to version."""
    command: tuple[str, ...] = ()


class TrainLine(ReadBack):
    """What the log says of a training step."""

    step: int
    terms: dict[str, float]
    """Weighted; training minimises their sum."""
    duration_s: float
    """Since the run began, without the time between two calls."""


class ValidationLine(ReadBack):
    """What the log says of a validation."""

    step: int
    dice: dict[str, float]
    """Of each class that some validation scan has."""
    dice_mean: float


@dataclass(frozen=True)
class Score:
    """A class or region of one case: a row of metrics.csv, whose columns docs/metrics.md explains."""

    case: str
    name: str
    value: str
    """In the label files; of a region such as '1+4'."""
    kind: Literal["class", "region"]
    state: str
    in_truth: bool
    numbers: Mapping[str, float]
    """Column to value, where there is one."""

    @property
    def dice(self) -> float | None:
        return self.numbers.get("dice")

    @property
    def hd95_mm(self) -> float | None:
        return self.numbers.get("hd95_mm")

    @property
    def far_ml(self) -> float | None:
        return self.numbers.get("far_ml")

    @property
    def structure(self) -> tuple[str, str, frozenset[str]]:
        """The same for the same class or region of two tables: name, kind, values in any order."""
        return self.name, self.kind, frozenset(self.value.split("+"))


_WORDS = {"case", "class", "value", "kind", "state", "in_truth", "in_prediction"}
_NEEDED = ("case", "class", "value", "state", "dice", "in_truth")


def far_ml_by_case(scores: Sequence[Score]) -> dict[str, float]:
    """What each case has far from everything true, all classes together; without cases where nothing is true."""
    by_case: dict[str, float] = {}
    for score in scores:
        if score.kind == "class" and score.far_ml is not None:
            by_case[score.case] = by_case.get(score.case, 0.0) + score.far_ml
    return by_case


def read_scores(metrics_csv: Path) -> list[Score]:
    """The rows of a table that `semiseg evaluate` wrote. Raises InputError for a missing or damaged one."""
    expected, action = "the metrics.csv of `semiseg evaluate`", "evaluate again with --overwrite"
    scores = parse_table(metrics_csv, _NEEDED, expected, action, _score)
    if not scores:
        raise InputError(f"{metrics_csv}: got no row, expected {expected}; {action}")
    return scores


def _score(row: Mapping[str, str]) -> Score:
    return Score(
        case=row["case"],
        name=row["class"],
        value=row["value"],
        kind="region" if row.get("kind") == "region" else "class",
        state=row["state"],
        in_truth=row["in_truth"].lower() in ("true", "1"),
        numbers={name: _finite(cell) for name, cell in row.items() if name not in _WORDS and cell != ""},
    )


def _finite(cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(f"the number {value}")
    return value
