"""From the rows of scored cases to means per class, over classes and per case.

What every mean stands for is written in docs/metrics.md.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

State = Literal["ok", "missing", "mismatch", "unreadable"]
Row = dict[str, Any]
"""Column to value; None, or no such key, where there is no value."""

OVERLAPS = ("dice", "iou", "surface_dice")
DISTANCES = ("hd95_mm", "hausdorff_mm", "assd_mm", "msd_mm")
SUMMARISED = (*OVERLAPS, *DISTANCES, "difference_ml")


@dataclass(frozen=True)
class ScoredCase:
    """One case after comparison: a row per class and region, and what there is to say about it."""

    case: str
    state: State
    rows: list[Row]  # of classes, then of regions, which say so as their `kind`
    message: str = ""
    """Why the state is not ok."""
    note: str = ""
    unknown_truth: frozenset[int] = frozenset()
    """Values in the label file that are no class."""
    unknown_prediction: frozenset[int] = frozenset()


class Tally:
    """Collects scored cases, a few numbers per case and class, never a scan; then sums them up."""

    def __init__(self, classes: Mapping[str, int], regions: Mapping[str, Sequence[int]] | None = None) -> None:
        self.classes = {name: _ClassTally(value) for name, value in classes.items()}
        united = {name: "+".join(map(str, values)) for name, values in (regions or {}).items()}
        self.regions = {name: _ClassTally(value) for name, value in united.items()}
        self.case_means = {metric: array("d") for metric in SUMMARISED}
        self.far_ml = array("d")
        self.failed: list[dict[str, str]] = []
        self.states: Counter[str] = Counter()
        self.notes: list[str] = []
        self.unknown: dict[str, set[int]] = {"labels": set(), "predictions": set()}

    def add(self, scored: ScoredCase) -> None:
        self.states[scored.state] += 1
        if scored.state != "ok":
            self.failed.append({"case": scored.case, "state": scored.state, "message": scored.message})
        if scored.note:
            self.notes.append(scored.note)
        self.unknown["labels"] |= scored.unknown_truth
        self.unknown["predictions"] |= scored.unknown_prediction
        of_classes = [row for row in scored.rows if row.get("kind") != "region"]
        for row in scored.rows:
            (self.regions if row.get("kind") == "region" else self.classes)[row["class"]].add(row)
        true = [row for row in of_classes if row.get("in_truth")]
        for metric, means in self.case_means.items():
            present = [row[metric] for row in true if row.get(metric) is not None]
            if present:
                means.append(float(np.mean(present)))
        far_ml = [row["far_ml"] for row in of_classes if row.get("far_ml") is not None]
        if far_ml:
            self.far_ml.append(sum(far_ml))

    def summary(self) -> dict[str, Any]:
        """JSON values. A mean over classes is one of the means over cases of the classes that any case has."""
        classes, regions = (
            {name: tally.summary() for name, tally in tallies.items()} for tallies in (self.classes, self.regions)
        )
        absent = [name for name, tally in self.classes.items() if tally.absent]
        unknown = [
            f"{source}: values that are no class count as background: {', '.join(map(str, sorted(values)))}"
            for source, values in self.unknown.items()
            if values
        ]
        if absent:
            unknown.append(f"labels: no case has these classes, which are left out of the means: {', '.join(absent)}")
        return {
            "cases": {"total": self.states.total()}
            | {state: self.states[state] for state in ("ok", "missing", "mismatch", "unreadable")},
            "mean": _mean_of(classes),
            "classes": classes,
            "absent_classes": absent,
            "regions_mean": _mean_of(regions),
            "regions": regions,
            "per_case": {metric: _statistics(values) for metric, values in self.case_means.items()}
            | {"far_ml": _statistics(self.far_ml)},
            "failed": self.failed,
            "notes": unknown + self.notes,
        }


def _mean_of(entries: Mapping[str, dict[str, Any]]) -> dict[str, float | None]:
    """Without those that no case has."""
    true = [entry for entry in entries.values() if entry["n"]]
    means = {metric: _mean(entry[metric]["mean"] for entry in true) for metric in SUMMARISED}
    return means | {"dice_brats": _mean(entry["dice_brats"] for entry in true)}


class _ClassTally:
    """One class or region over all cases. Only the cases that have it in the truth enter the metrics."""

    def __init__(self, value: int | str) -> None:
        self.value = value
        self.seen_cases = 0
        self.true_cases = 0
        self.metrics = {metric: array("d") for metric in SUMMARISED}
        self.brats = array("d")
        self.predicted_without_truth_ml = array("d")

    def add(self, row: Row) -> None:
        if row.get("dice_brats") is not None:
            self.brats.append(row["dice_brats"])
        if row.get("false_positive_ml") is not None:
            self.predicted_without_truth_ml.append(row["false_positive_ml"])
        self.seen_cases += row.get("in_truth") is not None
        if row.get("in_truth"):
            self.true_cases += 1
            for metric, values in self.metrics.items():
                if row.get(metric) is not None:
                    values.append(row[metric])

    @property
    def absent(self) -> bool:
        """Whether labels were read, and none of them has it."""
        return self.seen_cases > 0 and self.true_cases == 0

    def summary(self) -> dict[str, Any]:
        statistics = {metric: _statistics(values) for metric, values in self.metrics.items()}
        for metric in DISTANCES:
            statistics[metric]["absent"] = self.true_cases - len(self.metrics[metric])
        false_ml = self.predicted_without_truth_ml
        return {
            "value": self.value,
            "n": self.true_cases,
            **statistics,
            "dice_brats": _mean(self.brats),
            "false_positives": {
                "cases": sum(volume > 0 for volume in false_ml),
                "of": len(false_ml),
                "total_ml": float(sum(false_ml)),
            },
        }


def _statistics(values: Sequence[float]) -> dict[str, Any]:
    return {
        "n": len(values),
        "mean": _mean(values),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "median": float(np.median(values)) if len(values) else None,
    }


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None
