"""Everything that is wrong with a dataset, before any computing: one finding for each thing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from semiseg.data.dataset import Case, Dataset
from semiseg.data.facts import CaseFacts, ImageFacts, LabelFacts, Unreadable, all_facts
from semiseg.data.images import case_name
from semiseg.data.label_values import class_value, undeclared
from semiseg.data.splits import Splits
from semiseg.types import Geometry

Severity = Literal["error", "warning", "note"]
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")

SILENT_SHARE, ERROR_SHARE = 0.01, 0.1
"""Displacement of a corner voxel, as a share of the smallest voxel side: below the first it is rounding and
not mentioned, above the second an error, between them a note."""

MOST_FILES = 8
"""Of one case that are listed one by one: channel 9999 means as many that are not there."""


MANY_VALUES, MOST_VALUES = 100, 1000
"""In a label file where no classes are declared: more than the first are told, with more than the second it is none.
FreeSurfer's parcellations have up to 200."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing. `expected` and `action` are empty if nothing is to do."""

    file: Path
    found: str
    expected: str
    action: str
    severity: Severity
    case: str = ""
    leak: bool = False
    """Training would see what it is tested on; never only left out."""

    def __str__(self) -> str:
        if not self.expected:
            return f"{self.severity}: {self.file}: {self.found}"
        return f"{self.severity}: {self.file}: got {self.found}, expected {self.expected}; {self.action}"


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found: errors first, then warnings and notes.

    facts: of all cases, test scans included, and of the labels that it was to open; not for the plan. can_train:
    whether training may start.
    """

    findings: tuple[Finding, ...]
    usable: tuple[Case, ...]
    """Cases without an error of their own, in the dataset's order."""
    facts: Mapping[str, CaseFacts]
    can_train: bool

    @property
    def left_out(self) -> tuple[str, ...]:
        usable = {case.name for case in self.usable}
        return tuple(name for name in self.facts if name not in usable)

    def lines(self) -> list[str]:
        """One line a finding; the errors that cost a case say so."""
        left_out = set(self.left_out)
        return [
            f"{finding} (case left out)" if finding.severity == "error" and finding.case in left_out else str(finding)
            for finding in self.findings
        ]

    def to_json(self) -> dict[str, Any]:
        keys = ("severity", "case", "found", "expected", "action", "leak")
        return {
            "can_train": self.can_train,
            "cases": len(self.facts),
            "usable": [case.name for case in self.usable],
            "left_out": list(self.left_out),
            "findings": [{"file": str(one.file), **{key: getattr(one, key) for key in keys}} for one in self.findings],
        }


def check_dataset(
    dataset: Dataset,
    *,
    strict: bool = False,
    workers: int = 1,
    transductive: bool = False,
    splits: Splits | None = None,
    labels: Collection[str] | None = None,
) -> CheckReport:
    """Read every file (or remember it) and list what is wrong.

    A case with an error is left out; with `strict` an error stops training. Training cannot start either if
    no labelled case is left, or if the same voxels or the same group are in two splits. `splits` are those to
    be trained with; without them cases are where the dataset puts them, all others count as training cases.
    transductive: unlabelled scans may be test scans as well (a note says which). labels: names of the cases whose
    label file may be opened, as training may not open hidden ones; all unless told.
    """
    opened = dataset.cases if labels is None else [_hidden(case, labels) for case in dataset.cases]
    facts = all_facts(opened, workers)
    findings = [*_dataset_findings(dataset), *_other_values(dataset, facts)]
    channels = len(dataset.channels) or Counter(len(case.images) for case in dataset.cases).most_common(1)[0][0]
    broken = set()
    for case in dataset.cases:
        found = list(_case_findings(case, facts[case.name], channels, dataset))
        findings += found
        if any(one.severity == "error" for one in found):
            broken.add(case.name)
    usable = tuple(case for case in dataset.cases if case.name not in broken)
    places = _places(usable, splits)
    findings += _same_content(usable, facts, places, transductive)
    findings += _labels_among_images(dataset.cases, facts)
    findings += _parted_groups(usable, places if splits else _declared(usable), transductive)
    if "train" not in places.values():
        nothing = "no usable case with a label for training"
        findings.append(Finding(dataset.root, nothing, "at least one", "repair or add labels", "error"))
    stops = any(one.leak or (strict and one.severity == "error") for one in findings)
    findings.sort(key=lambda one: _ORDER.index(one.severity))
    return CheckReport(tuple(findings), usable, facts, "train" in places.values() and not stops)


def _hidden(case: Case, labels: Collection[str]) -> Case:
    return case if case.name in labels else replace(case, label=None)


def _dataset_findings(dataset: Dataset) -> Iterator[Finding]:
    for note in dataset.notes:
        yield Finding(dataset.root, note, "", "", "note")
    for path in dataset.orphan_labels:
        name = case_name(path)
        action = "add the image or remove the label"
        yield Finding(path, "a label without an image", f"an image of case {name!r}", action, "error", name)


def _case_findings(case: Case, facts: CaseFacts, channels: int, dataset: Dataset) -> Iterator[Finding]:
    if len(case.images) != channels:
        found, expected = f"{len(case.images)} channel(s) for case {case.name!r}", f"{channels}"
        yield Finding(case.images[0], found, expected, "add or remove images", "error", case.name)
    both = list(zip(case.images, facts.images, strict=True))
    unreadable = [(path, image) for path, image in both if isinstance(image, Unreadable)]
    for path, bad in unreadable[:MOST_FILES]:
        yield Finding(path, bad.found, bad.expected, bad.action, "error", case.name)
    if more := unreadable[MOST_FILES:]:
        found = f"{len(more)} more files of case {case.name!r} that cannot be used"
        yield Finding(more[0][0], found, "whole files", "see whether one has a wrong number", "error", case.name)
    readable = [(path, image) for path, image in both if isinstance(image, ImageFacts)]
    for path, image in readable:
        if image.non_finite:
            found = f"{image.non_finite} voxels that are NaN or infinite"
            yield Finding(path, found, "finite intensities", "repair the scan", "error", case.name)
    for path, image in readable[1:]:
        yield from _mismatch(case, path, image.geometry, *readable[0])
    if case.label is None:
        if case.split in (None, "train"):
            yield Finding(case.images[0], "an image without a label: an unlabelled case", "", "", "note", case.name)
    elif isinstance(facts.label, Unreadable):
        yield Finding(case.label, facts.label.found, facts.label.expected, facts.label.action, "error", case.name)
    elif facts.label is not None:
        if readable:
            yield from _mismatch(case, case.label, facts.label.geometry, *readable[0])
        yield from _value_findings(case, case.label, facts.label, dataset)


def _mismatch(case: Case, path: Path, geometry: Geometry, image_path: Path, image: ImageFacts) -> Iterator[Finding]:
    if geometry.shape != image.shape:
        found, expected = f"shape {_size(geometry)}", f"{_size(image.geometry)} as in {image_path.name}"
        yield Finding(path, found, expected, "export both on the same grid", "error", case.name)
        return
    moved_mm = geometry.corner_displacement_mm(image.geometry)
    side_mm = min(image.spacing_mm)
    if moved_mm < SILENT_SHARE * side_mm:
        return
    found = f"a geometry that puts a corner voxel {moved_mm:.3g} mm from where {image_path.name} has it"
    expected = f"less than {ERROR_SHARE * side_mm:.3g} mm"
    if moved_mm > ERROR_SHARE * side_mm:
        yield Finding(path, found, expected, "export both on the same grid", "error", case.name)
    else:
        yield Finding(path, found, expected, "nothing to do if that is rounding", "note", case.name)


def _value_findings(case: Case, path: Path, label: LabelFacts, dataset: Dataset) -> Iterator[Finding]:
    unknown = undeclared(label.values, dataset)
    if unknown and not dataset.other_is_background:
        voxels = sum(label.values[value] for value in unknown)
        found = f"label values {_some(unknown)} ({voxels} voxels)"
        known = {*(dataset.classes or {}).values(), dataset.ignore, *dataset.relabel}
        expected = f"only {_some(sorted(value for value in known if value is not None))}"
        action = "correct the file or declare them in dataset.json"
        yield Finding(path, found, expected, action, "error", case.name)
    if dataset.classes is None and len(label.values) > MANY_VALUES:
        found = f"{len(label.values)} different values"
        expected = "those of a label map, each of which is a class unless dataset.json names the classes"
        severity: Severity = "error" if len(label.values) > MOST_VALUES else "warning"
        yield Finding(path, found, expected, "see that it is no image, or declare the classes", severity, case.name)
    if not {class_value(value, dataset) for value in label.values} - {0, dataset.ignore}:
        found = "an empty label (background only)"
        yield Finding(path, found, "some foreground", "make sure that it is meant", "warning", case.name)


def _other_values(dataset: Dataset, facts: Mapping[str, CaseFacts]) -> Iterator[Finding]:
    """What a table of classes leaves out is said, so that a numbering that was not meant is seen."""
    labels = [one.label for one in facts.values() if isinstance(one.label, LabelFacts)]
    other = undeclared(sorted({value for label in labels for value in label.values}), dataset)
    if other and dataset.other_is_background:
        found = f"label values {', '.join(map(str, other))} are no class and count as background"
        yield Finding(dataset.root, found, "", "", "note")


def _size(geometry: Geometry) -> str:
    return "x".join(map(str, geometry.shape))


def _some(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:10])) + (", ..." if len(values) > 10 else "")


def _places(usable: Sequence[Case], splits: Splits | None) -> dict[str, str]:
    """Case name to train, unlabelled, val or test, for the cases that are used."""
    if splits is None:
        undecided = (None, "train")
        default = {case.name: "unlabelled" if case.label is None else "train" for case in usable}
        return {case.name: default[case.name] if case.split in undecided else case.split for case in usable}
    lists = {
        "unlabelled": splits.unlabelled,  # first: a scan that is labelled too is a training scan
        "train": splits.labelled,
        "val": splits.val,
        "test": splits.test,
    }
    names = {case.name for case in usable}
    return {case.name: place for place, cases in lists.items() for case in cases if case.name in names}


def _declared(usable: Sequence[Case]) -> dict[str, str]:
    """Where the dataset insists on a place; other cases of a group follow, unlabelled ones are not used."""
    return {case.name: case.split for case in usable if case.split in ("train", "val", "test")}


def _is_leak(first: str, second: str) -> bool:
    return first != second and {first, second} != {"train", "unlabelled"}


def _same_content(
    usable: Sequence[Case], facts: Mapping[str, CaseFacts], places: Mapping[str, str], transductive: bool
) -> Iterator[Finding]:
    for (first, first_path), (second, path) in _pairs(usable, facts):
        between = (places.get(first.name, ""), places.get(second.name, ""))
        leak = "" not in between and _is_leak(*between)
        if leak and transductive and set(between) == {"unlabelled", "test"}:
            found = f"the content of {first_path}, in {between[1]} and {between[0]} (transductive)"
            yield Finding(path, found, "", "", "note", second.name)
        elif leak:
            found = f"in {between[1]} the same content as {first_path} in {between[0]}"
            action = "remove one of the two"
            if set(between) == {"unlabelled", "test"}:
                action += ", or say --transductive"
            yield Finding(path, found, "every scan in one split", action, "error", second.name, leak=True)
        else:
            found = f"the same content as {first_path}"
            yield Finding(path, found, "every scan once", "remove one of the two", "warning", second.name)


_Image = tuple[Case, Path]


def _pairs(usable: Sequence[Case], facts: Mapping[str, CaseFacts]) -> Iterator[tuple[_Image, _Image]]:
    """Images with the same voxels. Constant ones are passed over: absent channels are often filled with 0."""
    same: dict[str, list[_Image]] = defaultdict(list)
    for case in usable:
        for path, image in zip(case.images, facts[case.name].images, strict=True):
            if isinstance(image, ImageFacts) and image.lowest < image.highest:
                same[image.content_hash].append((case, path))
    for images in same.values():
        yield from combinations(images, 2)


def _labels_among_images(cases: Sequence[Case], facts: Mapping[str, CaseFacts]) -> Iterator[Finding]:
    """Images that are a label file, a copy of one, or a map with its borders: the answer given with the question.

    Labels that are not to be opened are known by their place on disk alone.
    """
    labels: dict[object, Path] = {}
    for case in cases:
        label = facts[case.name].label
        if case.label is not None:
            labels |= dict.fromkeys(_on_disk(case.label), case.label)
            if isinstance(label, LabelFacts) and len(label.values) > 1:
                labels |= dict.fromkeys((label.content_hash, label.segment_hash), case.label)
    labels.pop("", None)
    for case in cases:
        for path, image in zip(case.images, facts[case.name].images, strict=True):
            hashes = (image.content_hash, image.segment_hash) if isinstance(image, ImageFacts) else ()
            found = next((labels[mark] for mark in (*_on_disk(path), *hashes) if mark in labels), None)
            if found is not None:
                got = f"an image with the content of the label {found}" if path != found else "a label as the image"
                yield Finding(path, got, "the scan itself", "correct the list of images", "error", case.name, leak=True)


def _on_disk(path: Path) -> list[tuple[int, int]]:
    """What is the same for one file under several names; nothing for a file that is not there."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return []
    return [(state.st_dev, state.st_ino)] if state.st_ino else []


def _parted_groups(usable: Sequence[Case], places: Mapping[str, str], transductive: bool) -> Iterator[Finding]:
    members: dict[str, dict[str, Case]] = defaultdict(dict)
    for case in usable:
        if case.name in places:
            members[case.group_name].setdefault(places[case.name], case)
    for group, by_place in members.items():
        for first, second in combinations(by_place, 2):
            allowed = transductive and {first, second} == {"unlabelled", "test"}
            if _is_leak(first, second) and not allowed:
                case, other = by_place[second], by_place[first]
                found = f"group {group!r} in {second}, and in {first} with {other.images[0]}"
                action = "correct the group or the split"
                yield Finding(case.images[0], found, "a group in one split", action, "error", case.name, leak=True)
