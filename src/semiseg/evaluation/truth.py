"""True labels for evaluation: which files there are, and what their values stand for among the predicted classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from semiseg.data.dataset import Case, Dataset
from semiseg.data.images import case_name
from semiseg.data.label_tables import QUICKNAT_28, apply_table
from semiseg.data.label_values import class_value
from semiseg.data.layouts import layout_of, open_dataset
from semiseg.data.layouts.listing import read_description, scan_files
from semiseg.data.structures import Regions
from semiseg.errors import InputError


def open_labels(labels: Path | Dataset) -> Dataset:
    """The cases of a folder of label files, or of a dataset in any layout, that have a label.

    Raises InputError where there is none.
    """
    if isinstance(labels, Dataset):
        return _labelled(labels)
    if (files := scan_files(labels)) and not layout_of(labels):
        # A folder of label files is often the labelsTr of a dataset.
        places = [place for place in (labels, labels.parent) if (place / "dataset.json").exists()]
        declared = read_description(places[0] if places else labels)
        cases = tuple(Case(name, (), path) for name, path in files.items())
        return Dataset(
            labels, "labels", cases, classes=declared.classes, regions=declared.regions, ignore=declared.ignore
        )
    return _labelled(open_dataset(labels))


def _labelled(dataset: Dataset) -> Dataset:
    orphans = (Case(case_name(path), (), path) for path in dataset.orphan_labels)
    labelled = {case.name: case for case in (*orphans, *dataset.cases) if case.label is not None}
    if not labelled:
        raise InputError(f"{dataset.root}: got no label file, expected CASE.nii.gz; point LABELS to the true labels")
    return replace(dataset, cases=tuple(labelled.values()), notes=())


def as_predicted(
    truth: Dataset, predicted: Mapping[str, int], left: Mapping[str, Any]
) -> tuple[Dataset, Regions, list[str]]:
    """`truth` in the numbering of the predictions, the regions to score, and what there is to say.

    predicted: the classes to score, name to value in the prediction files, without the background. left: what
    `predict` left about label values; it says how to read labels that say nothing about themselves.

    Classes are matched by name where a name that both have stands for different values, else by value.
    """
    notes: list[str] = []
    if not (truth.relabel or truth.other_is_background or predicted.keys() & (truth.classes or {}).keys()):
        truth = _read_as_trained(truth, predicted, left)
        notes += [f"labels: read as {note}" for note in truth.notes]
    own = truth.classes or {}
    shared = {own[name]: value for name, value in predicted.items() if name in own}
    if any(value != other for value, other in shared.items()):
        alone = [name for name, value in own.items() if name not in predicted and value not in (0, truth.ignore)]
        if alone:
            notes.append(f"labels: classes that are not predicted count as background: {', '.join(alone)}")
        truth = _renumbered(truth, shared)
    declared = {name: tuple(values) for name, values in (left.get("regions") or truth.regions).items()}
    regions = {name: values for name, values in declared.items() if set(values) <= set(predicted.values())}
    if others := [name for name in declared if name not in regions]:
        notes.append(f"regions with values that are no class are not scored: {', '.join(others)}")
    return truth, regions, notes


def _read_as_trained(truth: Dataset, predicted: Mapping[str, int], left: Mapping[str, Any]) -> Dataset:
    if predicted.keys() == QUICKNAT_28.keys() - {"background"}:  # whichever numbering either of them has
        return apply_table(truth, "roam28")
    if left.get("relabel") or left.get("other_is_background"):
        return replace(
            truth,
            classes={"background": 0, **predicted},
            relabel=left["relabel"],
            other_is_background=left["other_is_background"],
            notes=("in training: values as the predictions' manifest.json says",),
        )
    return truth


def _renumbered(truth: Dataset, shared: Mapping[int, int]) -> Dataset:
    """With `shared`, class value to value in the predictions, applied; every other value is background."""
    kept = {0, truth.ignore}
    known = {*(truth.classes or {}).values(), *truth.relabel} - kept
    meant = {value: class_value(value, truth) for value in known}
    strange = dict.fromkeys(set(shared.values()) - known - kept, 0)  # other things here, though classes there
    relabel = strange | {value: one if one in kept else shared.get(one, 0) for value, one in meant.items()}
    return replace(
        truth,
        classes={
            name: shared.get(value, value) for name, value in (truth.classes or {}).items() if value in {*shared, 0}
        },
        relabel=relabel,
        other_is_background=True,
        regions={
            name: tuple(shared[value] for value in values)
            for name, values in truth.regions.items()
            if shared.keys() >= set(values)
        },
    )
