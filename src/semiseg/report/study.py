"""Scores and logs of finished runs, as the report shows them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from semiseg.bench.lines import Line
from semiseg.data.dataset import Case
from semiseg.data.facts import source_hash
from semiseg.manifest import read_manifest
from semiseg.rank.correlation import Correlation
from semiseg.runs.contents import RunResult, Score, far_ml_by_case, read_scores
from semiseg.runs.folder import METRICS, RunFolder


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

    @cached_property
    def seen(self) -> frozenset[str]:
        """Hashes of the files that were predicted from and scored: scans, labels and predictions."""
        made = [read_manifest(folder) for folder in (self.evaluation, self.predictions) if folder]
        return frozenset(hash_ for one in made if one for hash_ in one.inputs.values())

    def has_seen(self, *files: Path) -> bool:
        """Whether files are still those. A run of somebody else says where scans were: which of ours lie there is not
        for it to show."""
        return all(file.is_file() and source_hash(file) in self.seen for file in files)

    def scores(self) -> list[Score]:
        """Regions last within a case. Raises InputError for a missing or damaged table."""
        return read_scores(self.evaluation / METRICS) if self.evaluation else []


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
    against: str = ""
    """What the methods of a bench are compared with."""
    notes: tuple[str, ...] = ()
    """On all verdicts of a bench together."""
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
    far_ml: Spread
    """Predicted far from everything true, all classes of a scan together, over scans."""


def summarise(results: Sequence[Result]) -> list[Summary]:
    """How the methods compare on the same scans; the first one is what the others are compared with.

    Raises InputError for a missing or damaged file.
    """
    scores = [result.scores() for result in results]
    means = [case_means(rows) for rows in scores]
    summaries = []
    for result, rows, own in zip(results, scores, means, strict=True):
        differences = [own[case] - means[0][case] for case in own if case in means[0]]
        run = RunFolder(result.run)
        facts = run.read_result() if run.finished else None
        summary = Summary(
            method=result.method,
            labels=_labels(facts) if facts else "",
            unlabelled=facts.unlabelled if facts else None,
            duration_s=facts.duration_s if facts else None,
            dice=Spread.of(own.values()),
            difference=Spread.of(differences),
            better=sum(difference > 0 for difference in differences),
            far_ml=Spread.of(far_ml_by_case(rows).values()),
        )
        summaries.append(summary)
    return summaries


def _labels(result: RunResult) -> str:
    return f"{result.labelled} + {result.validation}" if result.validation else str(result.labelled or "")


def case_means(scores: Sequence[Score]) -> dict[str, float]:
    """Mean Dice of each scan over the classes that it has in the truth; regions do not count."""
    by_case: dict[str, list[float]] = {}
    for score in scores:
        if score.in_truth and score.kind == "class" and score.dice is not None:
            by_case.setdefault(score.case, []).append(score.dice)
    return {case: statistics.fmean(values) for case, values in by_case.items()}
