"""One prediction against one label file: a row for each class and region."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semiseg.data.check import ERROR_SHARE, SILENT_SHARE
from semiseg.data.dataset import Dataset
from semiseg.data.images import Scan, is_picture, on_grid, read_label
from semiseg.data.label_values import class_values
from semiseg.data.structures import Structure
from semiseg.errors import InputError
from semiseg.evaluation.metrics import compare, far_from
from semiseg.evaluation.summary import OVERLAPS, Row, ScoredCase, State
from semiseg.types import Geometry


@dataclass(frozen=True)
class Task:
    case: str
    prediction: Path | None
    label: Path
    structures: tuple[Structure, ...]
    meaning: Dataset
    """What the values in the label file stand for; it has no cases."""
    tolerance_mm: float


def score_case(task: Task) -> ScoredCase:
    try:
        scan = read_label(task.label)
        truth = replace(scan, array=class_values(scan.array, task.meaning))
        if task.prediction is not None:
            prediction = read_label(task.prediction)
            # a picture does not know where it lies: beside another kind of file, it lies where that one does
            if is_picture(task.prediction) and not is_picture(task.label):
                prediction = on_grid(prediction, truth.geometry)
            elif is_picture(task.label) and not is_picture(task.prediction):
                truth = on_grid(truth, prediction.geometry)
            problem, note = _compare_grids(task, prediction.geometry, truth.geometry)
            if problem:
                return _not_scored(task, "mismatch", problem)
            return replace(_score_classes(task, prediction, truth), note=note)
        return _score_missing(task, truth)
    except InputError as error:
        return _not_scored(task, "unreadable", str(error))


def _not_scored(task: Task, state: State, message: str) -> ScoredCase:
    rows = [_row(task, structure, state, tolerance_mm=task.tolerance_mm) for structure in task.structures]
    return ScoredCase(task.case, state, rows, message)


def _row(task: Task, structure: Structure, state: State, **numbers: Any) -> Row:
    named = {"class": structure.name, "value": structure.value, "kind": structure.kind}
    return {"case": task.case, **named, "state": state, **numbers}


def _score_classes(task: Task, prediction: Scan, truth: Scan) -> ScoredCase:
    rows = []
    ignore = task.meaning.ignore
    annotated = True if ignore is None else truth.array != ignore
    spacing_mm = truth.geometry.spacing_mm
    foreground = np.isin(truth.array, [value for structure in task.structures for value in structure.values])
    far = far_from(foreground, spacing_mm) if foreground.any() else None
    for structure in task.structures:
        masks = structure.mask(prediction.array) & annotated, structure.mask(truth.array)
        scores = compare(*masks, spacing_mm, task.tolerance_mm)
        in_truth = scores.truth_ml > 0
        numbers = asdict(scores) | {
            "difference_ml": scores.difference_ml,
            "in_truth": in_truth,
            "in_prediction": scores.prediction_ml > 0,
            "dice_brats": scores.dice,
            "false_positive_ml": None if in_truth else scores.prediction_ml,
            "far_ml": None if far is None else int((masks[0] & far).sum()) * math.prod(spacing_mm) / 1000,
        }
        rows.append(_row(task, structure, "ok", **numbers))
    known = [0, *([] if ignore is None else [ignore])]
    known += [value for structure in task.structures for value in structure.values]
    unknown = [frozenset(np.unique(scan.array[~np.isin(scan.array, known)]).tolist()) for scan in (truth, prediction)]
    return ScoredCase(task.case, "ok", rows, unknown_truth=unknown[0], unknown_prediction=unknown[1])


def _score_missing(task: Task, truth: Scan) -> ScoredCase:
    """Dice 0 even where the truth is empty: nobody said so. Volumes of the prediction are unknown, not 0."""
    nothing = np.zeros(truth.array.shape, dtype=bool)
    rows = []
    for structure in task.structures:
        truth_ml = compare(nothing, structure.mask(truth.array), truth.geometry.spacing_mm).truth_ml
        numbers = dict.fromkeys((*OVERLAPS, "dice_brats"), 0.0) | {
            "truth_ml": truth_ml,
            "in_truth": truth_ml > 0,
        }
        rows.append(_row(task, structure, "missing", tolerance_mm=task.tolerance_mm, **numbers))
    return ScoredCase(task.case, "missing", rows, f"{task.case}: no prediction; it counts with Dice 0")


def _compare_grids(task: Task, prediction: Geometry, truth: Geometry) -> tuple[str, str]:
    """(what forbids a comparison, what is worth a note); empty where there is nothing to say."""
    where = f"{task.prediction}: got"
    action = "write the prediction on the grid of its input"
    if prediction.shape != truth.shape:
        return f"{where} shape {prediction.shape}, expected {truth.shape} as in {task.label}; {action}", ""
    shift_mm, spacing_mm = prediction.corner_displacement_mm(truth), min(truth.spacing_mm)
    text = f"{where} corners up to {shift_mm:.3g} mm away from those of {task.label}, expected the same place"
    if shift_mm > ERROR_SHARE * spacing_mm:
        return f"{text}; {action}", ""
    return "", text if shift_mm >= SILENT_SHARE * spacing_mm else ""
