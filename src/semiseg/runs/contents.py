"""What the files of a run hold, as it is read back. Which file holds what, `RunFolder` knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from semiseg.errors import InputError
from semiseg.settings import ReadBack
from semiseg.tables import parse_table

CheckpointName = Literal["best", "last"]


MOST = 1e30
"""No number that a run leaves is as large; of larger ones, sums and squares overflow."""
_Number = Annotated[float, Field(ge=-MOST, le=MOST)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0, le=2**62)]


class Validated(ReadBack):
    """A checkpoint, as validation saw it."""

    step: _Count | None
    """None for the best of a run without validation."""
    validation_dice: _Share | None


class RunResult(ReadBack):
    """What a finished run says of itself."""

    checkpoint: CheckpointName
    """Which of them the exported model is of."""
    last: Validated
    best: Validated
    labelled: _Count
    """Scans whose labels were trained on."""
    validation: _Count
    labels_used: str
    """Both, in words."""
    unlabelled: _Count
    """Scans without labels that were trained on; 0 for a method that uses none."""
    transductive: bool = False
    duration_s: _Number
    """Of training."""
    memory_gb: _Number | None = None
    """Most that was used."""
    precision: str | None = None
    layout: str | None = None
    """Of tensors in memory."""
    passes_per_step: _Number | None = None
    """Forward passes of networks in a training step, in those of the labelled batch; a mean over steps."""

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

    step: _Count
    terms: dict[str, _Number]
    """Weighted; training minimises their sum."""
    duration_s: _Number
    """Since the run began, without the time between two calls."""


class ValidationLine(ReadBack):
    """What the log says of a validation."""

    step: _Count
    dice: dict[str, _Share]
    """Of each class that some validation scan has."""
    dice_mean: _Share


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


_SHARES = {"dice", "iou", "surface_dice", "dice_brats"}
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
        numbers={name: _number(name, cell) for name, cell in row.items() if name not in _WORDS and cell != ""},
    )


def _number(name: str, cell: str) -> float:
    value = float(cell)
    low, high = (0.0, 1.0) if name in _SHARES else (-MOST, MOST)
    if not low <= value <= high:  # nor is anything that is no number
        raise ValueError(f"{value} as {name}")
    return value
