"""Scores and logs of finished runs, as the report shows them."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semiseg.bench.lines import Line
from semiseg.data.dataset import Case
from semiseg.errors import InputError
from semiseg.rank.correlation import Correlation


@dataclass(frozen=True)
class Result:
    """One trained method, and what it scored."""

    method: str
    """The name shown."""
    run: Path
    """The folder that training leaves."""
    evaluation: Path | None = None
    """Holds `metrics.csv`; None where nothing was scored."""
    predictions: Path | None = None
    """Holds `CASE.nii.gz`."""


@dataclass(frozen=True)
class Arm:
    """Results that differ in nothing but the replicate; one line in plots and tables."""

    name: str
    """Unique in a study."""
    method: str
    """Decides colour, dash and marker."""
    results: tuple[Result, ...]
    labelled: str = ""
    """Number of labels as the bench was asked for; empty elsewhere."""
    budget: int = 1
    """Steps, in those of the other arms."""

    @property
    def scored(self) -> bool:
        return any(result.evaluation is not None for result in self.results)


@dataclass(frozen=True)
class Study:
    """What one section of the report compares: runs, or a whole bench."""

    title: str
    arms: tuple[Arm, ...]
    """The first one is what the others are compared with."""
    cases: Mapping[str, Case] = field(default_factory=dict)
    """By name; those that were scored, with image and label file."""
    lines: tuple[Line, ...] = ()
    """Of a bench."""
    unfinished: tuple[str, ...] = ()
    """Runs of a bench that have no scores yet, or failed."""
    correlations: Mapping[str, Sequence[Correlation]] = field(default_factory=dict)
    """Arm to its label-free score against the truth."""
    commands: tuple[str, ...] = ()
    """Lines that repeat the results."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Name to YAML."""

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(arm.method for arm in self.arms))


@dataclass(frozen=True)
class Score:
    """One row of `metrics.csv`. `dice` is None where nothing could be compared."""

    case: str
    name: str
    region: bool
    in_truth: bool
    dice: float | None
    hd95_mm: float | None


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of the numbers that exist; both None where there are too few."""

    mean: float | None
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        known = [value for value in values if value is not None]
        return cls(
            statistics.fmean(known) if known else None,
            statistics.stdev(known) if len(known) > 1 else None,
            len(known),
        )


@dataclass(frozen=True)
class Summary:
    """One method of a few runs, compared scan by scan."""

    method: str
    labels: str
    """How many scans had their label: '3', or '3 + 2' with two for validation; empty for an unfinished run."""
    unlabelled: int | None
    """How many scans without label the method used; 0 for one that uses none."""
    duration_s: float | None
    """Of training."""
    dice: Spread
    """Mean over classes, over scans."""
    difference: Spread
    """From the first method, scan by scan."""
    better: int
    """Scans that score higher than with the first method."""


def summarise(results: Sequence[Result]) -> list[Summary]:
    """How the methods compare on the same scans; the first one is what the others are compared with.

    Raises InputError for a missing or damaged file.
    """
    means = [case_means(read_scores(result.evaluation)) if result.evaluation else {} for result in results]
    summaries = []
    for result, own in zip(results, means, strict=True):
        differences = [own[case] - means[0][case] for case in own if case in means[0]]
        facts = read_json(result.run / "result.json") if (result.run / "result.json").exists() else {}
        labels, validation = facts.get("labelled"), facts.get("validation")
        summary = Summary(
            method=result.method,
            labels=f"{labels} + {validation}" if validation else str(labels or ""),
            unlabelled=facts.get("unlabelled"),
            duration_s=facts.get("duration_s"),
            dice=Spread.of(own.values()),
            difference=Spread.of(differences),
            better=sum(difference > 0 for difference in differences),
        )
        summaries.append(summary)
    return summaries


def read_scores(evaluation: Path) -> list[Score]:
    """The rows of an evaluation folder's `metrics.csv`, regions last within a case."""
    path = evaluation / "metrics.csv"
    rows = csv.DictReader(read_text(path).splitlines())
    try:
        return [
            Score(
                case=row["case"],
                name=row["class"],
                region=row.get("kind") == "region",
                in_truth=row["in_truth"].lower() in ("true", "1"),
                dice=_number(row["dice"]),
                hd95_mm=_number(row["hd95_mm"]),
            )
            for row in rows
        ]
    except (KeyError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}, line {rows.line_num}: got {error!r}, expected the table that `semiseg evaluate` "
            "writes; evaluate again with --overwrite"
        ) from None


def read_log(run: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of a run folder's `metrics.jsonl` that are of one kind, 'train' or 'validation'; none without a log."""
    path = run / "metrics.jsonl"
    lines = []
    for number, text in enumerate(read_text(path).splitlines() if path.exists() else [], start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: {error}, expected one JSON object a line; resume the run to repair it"
            ) from None
        if line.get("kind") == kind:
            lines.append(line)
    return lines


def case_means(scores: Sequence[Score]) -> dict[str, float]:
    """Mean Dice of each scan over the classes that it has in the truth; regions do not count."""
    by_case: dict[str, list[float]] = {}
    for score in scores:
        if score.in_truth and not score.region and score.dice is not None:
            by_case.setdefault(score.case, []).append(score.dice)
    return {case: statistics.fmean(values) for case, values in by_case.items()}


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}, expected a finished run and evaluation; run them again") from None


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: {error}, expected a file of a finished run; run it again") from None


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
