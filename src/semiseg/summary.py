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
    """One case after comparison: a row per class, and what there is to say about it."""

    case: str
    state: State
    rows: list[Row]
    message: str = ""
    """Why the state is not ok."""
    note: str = ""
    unknown_truth: frozenset[int] = frozenset()
    """Values in the label file that are no class."""
    unknown_prediction: frozenset[int] = frozenset()


class Tally:
    """Collects scored cases, a few numbers per case and class, never a scan; then sums them up."""

    def __init__(self, classes: Mapping[str, int]) -> None:
        self.classes = {name: _ClassTally(value) for name, value in classes.items()}
        self.case_means = {metric: array("d") for metric in SUMMARISED}
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
        for row in scored.rows:
            self.classes[row["class"]].add(row)
        true = [row for row in scored.rows if row.get("in_truth")]
        for metric, means in self.case_means.items():
            present = [row[metric] for row in true if row.get(metric) is not None]
            if present:
                means.append(float(np.mean(present)))

    def summary(self) -> dict[str, Any]:
        """JSON values. A mean over classes is one of the classes' means over cases."""
        classes = {name: tally.summary() for name, tally in self.classes.items()}
        means = {metric: _mean(entry[metric]["mean"] for entry in classes.values()) for metric in SUMMARISED}
        unknown = [
            f"{source}: values that are no class count as background: {', '.join(map(str, sorted(values)))}"
            for source, values in self.unknown.items()
            if values
        ]
        return {
            "cases": {"total": self.states.total()}
            | {state: self.states[state] for state in ("ok", "missing", "mismatch", "unreadable")},
            "mean": means | {"dice_brats": _mean(entry["dice_brats"] for entry in classes.values())},
            "classes": classes,
            "per_case": {metric: _statistics(values) for metric, values in self.case_means.items()},
            "failed": self.failed,
            "notes": unknown + self.notes,
        }


class _ClassTally:
    """One class over all cases. Only the cases that have it in the truth enter the metrics."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.true_cases = 0
        self.metrics = {metric: array("d") for metric in SUMMARISED}
        self.brats = array("d")
        self.predicted_without_truth_ml = array("d")

    def add(self, row: Row) -> None:
        if row.get("dice_brats") is not None:
            self.brats.append(row["dice_brats"])
        if row.get("false_positive_ml") is not None:
            self.predicted_without_truth_ml.append(row["false_positive_ml"])
        if row.get("in_truth"):
            self.true_cases += 1
            for metric, values in self.metrics.items():
                if row.get(metric) is not None:
                    values.append(row[metric])

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
