"""What is in the files, measured by reading each of them once and remembered on disk.

What a label file holds is for `check`. The plan must see only labels that are not hidden and no test scan:
give it the facts of cases from `Splits`, whose unlabelled cases carry no label.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from semiseg.data.dataset import Case
from semiseg.data.duplicates import Box, bounding_box, content_hash, segment_hash
from semiseg.data.images import BadFile, Scan, read_image, read_label
from semiseg.errors import InputError
from semiseg.files import cache_folder, write_json, write_text
from semiseg.manifest import file_hash
from semiseg.processes import each
from semiseg.settings import Settings
from semiseg.types import Geometry

_VERSION = 2  # of what is remembered; raise it when the facts of an unchanged file change
_WORTH_PROCESSES = 16  # below this, starting processes takes longer than reading

Affine = tuple[tuple[float, float, float, float], ...]


class Unreadable(Settings):
    """A file that cannot be used, and why."""

    found: str
    expected: str
    action: str


class ImageFacts(Settings):
    """Of one channel. Axes in file order; `lowest` and `highest` are of the finite voxels (0 if none is)."""

    shape: tuple[int, int, int]
    affine: Affine
    non_finite: int
    """Voxels that are NaN or infinite."""
    lowest: float
    highest: float
    zero_share: float
    """Share of voxels that are exactly 0."""
    box: Box | None
    """Of the voxels that are not 0; None if all are 0."""
    content_hash: str
    """The same for the same scan, however it is stored (`semiseg.data.duplicates`)."""
    segment_hash: str
    """The same for maps that divide the scan alike; empty for grey values."""

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.shape, np.array(self.affine))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return self.geometry.spacing_mm


class LabelFacts(Settings):
    """Of one label file whose values are whole numbers (others are `Unreadable`)."""

    shape: tuple[int, int, int]
    affine: Affine
    values: dict[int, int]
    """Value to number of voxels."""
    content_hash: str
    segment_hash: str
    """Both as of an image, which it must not be."""

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.shape, np.array(self.affine))


class CaseFacts(Settings):
    """Of one case: an entry for each image file, and the label if the case has one."""

    name: str
    images: tuple[ImageFacts | Unreadable, ...]
    label: LabelFacts | Unreadable | None = None


def case_facts(case: Case) -> CaseFacts:
    """Read the files of one case, or remember what they held. A file that cannot be read is a fact too."""
    images = tuple(_remembered(path, "image", _image_facts, ImageFacts) for path in case.images)
    label = None if case.label is None else _remembered(case.label, "label", _label_facts, LabelFacts)
    return CaseFacts(name=case.name, images=images, label=label)


def all_facts(cases: Sequence[Case], workers: int = 1) -> dict[str, CaseFacts]:
    """Case name to facts, in the order of `cases`; read by several processes where many are not known yet."""
    new = [case for case in cases if not _is_known(case)]
    processes = workers if len(new) >= _WORTH_PROCESSES else 1
    read = {facts.name: facts for facts in each(case_facts, new, "Reading scans", processes)}
    return {case.name: read.get(case.name) or case_facts(case) for case in cases}


def source_hash(path: Path) -> str:
    """`file_hash` of a scan or label file, remembered until its size or time of change differs.

    Raises InputError if the file cannot be read, OSError if the cache cannot be written to.
    """
    place = _place(path, "hash")
    if place is not None and place.is_file():
        known = place.read_bytes()
        if re.fullmatch(rb"[0-9a-f]{32}", known):  # else damaged: every scan would have the hash of an emptied file
            return known.decode()
    try:
        digest = file_hash(path)
    except (OSError, ValueError) as error:  # a NUL in the name
        found = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: got {found}, expected a readable file; restore it or leave the case out") from None
    if place is not None:
        write_text(place, digest)
    return digest


def _is_known(case: Case) -> bool:
    places = [_place(path, "image") for path in case.images]
    if case.label is not None:
        places.append(_place(case.label, "label"))
    return all(place is not None and place.is_file() for place in places)


_Facts = TypeVar("_Facts", ImageFacts, LabelFacts)


def _remembered(path: Path, role: str, measure: Callable[[Path], _Facts], kind: type[_Facts]) -> _Facts | Unreadable:
    """Facts of one file. Failures are not remembered: a network disk may only have been away."""
    place = _place(path, role)
    if place is not None and place.is_file():
        try:
            return kind.model_validate_json(place.read_bytes())
        except ValueError:
            pass  # damaged: measure again
    try:
        facts = measure(path)
    except BadFile as error:
        return Unreadable(found=error.found, expected=error.expected, action=error.action)
    if place is not None:
        write_json(place, facts.model_dump(mode="json"))
    return facts


def _place(path: Path, role: str) -> Path | None:
    try:
        state = path.stat()
    except (OSError, ValueError):  # a NUL in the name
        return None
    key = json.dumps([_VERSION, role, str(path.absolute()), state.st_size, state.st_mtime_ns])
    return cache_folder() / "facts" / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.json"


def _image_facts(path: Path) -> ImageFacts:
    scan = read_image(path)
    finite = np.isfinite(scan.array)
    non_finite = int(finite.size - finite.sum())
    values = scan.array[finite] if non_finite else scan.array
    box = bounding_box(scan.array != 0)
    return ImageFacts(
        shape=scan.geometry.shape,
        affine=_nested(scan),
        non_finite=non_finite,
        lowest=float(values.min()) if values.size else 0.0,
        highest=float(values.max()) if values.size else 0.0,
        zero_share=float(np.mean(scan.array == 0)),
        box=box,
        content_hash=content_hash(scan.array, box),
        segment_hash=segment_hash(scan.array, box),
    )


def _label_facts(path: Path) -> LabelFacts:
    scan = read_label(path)
    box = bounding_box(scan.array != 0)
    return LabelFacts(
        shape=scan.geometry.shape,
        affine=_nested(scan),
        values=_counts(scan.array),
        content_hash=content_hash(scan.array, box),
        segment_hash=segment_hash(scan.array, box),
    )


def _nested(scan: Scan) -> Any:
    return scan.geometry.affine.tolist()


def _counts(array: np.ndarray[Any, Any]) -> dict[int, int]:
    if array.min() >= 0 and array.max() < 2**16:  # counting is many times faster than sorting
        counts = np.bincount(array.ravel(order="K"))
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, number = np.unique(array, return_counts=True)
    return dict(zip(values.tolist(), number.tolist(), strict=True))
