"""Bringing cases to the network's space once, as memory-mapped arrays that training reads patches of."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from semiseg.data.dataset import Case
from semiseg.data.facts import source_hash
from semiseg.data.images import Scan, read_image, read_label
from semiseg.data.label_values import class_values
from semiseg.data.plan import Plan
from semiseg.data.space import NetworkSpace, label_to_network_space, to_network_space
from semiseg.errors import InputError
from semiseg.files import cache_folder, new_folder, write_json
from semiseg.processes import each
from semiseg.types import IGNORE, Geometry

FORMAT = 2
"""Part of every key: raise it when the meaning of what is written changes."""

FOREGROUND_VOXELS = 2000
"""Per class: enough to centre patches anywhere in a structure, and small beside any scan."""


@dataclass(frozen=True)
class PreparedCase:
    """A case in the network's space, on disk. Opening it is cheap; nothing is read before it is indexed."""

    name: str
    image: Path
    label: Path | None
    """None for an unlabelled case."""
    foreground: Path | None
    spacing_mm: tuple[float, float, float]
    """Along the prepared axes."""
    shape: tuple[int, int, int]
    """Voxels along the prepared axes."""

    def open_image(self) -> Float[np.ndarray, "c i j k"]:
        """16-bit floating point, memory-mapped."""
        return _open(self.image)

    def open_label(self) -> Int[np.ndarray, "i j k"]:
        """Class indices (IGNORE where not annotated), memory-mapped. InputError if unlabelled."""
        return _open(self._labelled(self.label))

    def open_foreground(self) -> Int[np.ndarray, "n 4"]:
        """Class index and prepared voxel of up to 2000 random voxels of each class but the first."""
        return _open(self._labelled(self.foreground))

    def _labelled(self, path: Path | None) -> Path:
        if path is None:
            raise InputError(f"{self.name}: got an unlabelled case, expected one with a label; check the splits")
        return path


def prepare_cases(
    cases: Sequence[Case], plan: Plan, *, workers: int = 1, cache: Path | None = None
) -> list[PreparedCase]:
    """Prepare every case that is not in the cache (`SEMISEG_CACHE` unless told), in `workers` processes.

    Results are found by the content of the source files and the plan's preprocessing: an edited file or plan
    is prepared anew, anything else is never done twice. Labels lie apart from images, so that preparing an
    unlabelled case never looks for its label. Returned in the order of `cases`.

    Raises InputError for unreadable files, a wrong number of channels, shapes that differ within a case,
    values that are not finite, and label values that the plan does not list.
    """
    folder = (cache or cache_folder()) / "prepared"
    prepared = {case.name: _find(case, plan, folder) for case in cases}
    missing = [case for case in cases if prepared[case.name] is None]
    for case in each(partial(_prepare, plan=plan, folder=folder), missing, "Preparing", workers):
        prepared[case.name] = case
    return [case for case in (prepared[case.name] for case in cases) if case is not None]


def read_channels(case: Case, plan: Plan) -> tuple[Float[np.ndarray, "c x y z"], Scan]:
    """All channels of a case in file order, and the first file for its geometry and header.

    Raises InputError if a file is unreadable or not finite, or number or shapes of the channels are wrong.
    """
    if len(case.images) != len(plan.channels):
        raise InputError(
            f"{case.images[0]}: got {len(case.images)} channel(s), expected {len(plan.channels)} "
            f"({', '.join(plan.channels)}); add or remove channel files"
        )
    scans = [read_image(path) for path in case.images]
    for path, scan in zip(case.images, scans, strict=True):
        _same_shape(path, scan, case.images[0], scans[0])
        broken = scan.array.size - np.count_nonzero(np.isfinite(scan.array))
        if broken:
            raise InputError(
                f"{path}: got NaN or infinity in {broken} voxels, expected finite numbers; repair the file"
            )
    return np.stack([scan.array for scan in scans]), scans[0]


def _find(case: Case, plan: Plan, folder: Path) -> PreparedCase | None:
    image = _image_folder(case, plan, folder)
    label = _label_folder(case, plan, image, folder)
    there = _is_whole(image, None, plan) and (label is None or _is_whole(image, label, plan))
    return _prepared_case(case, image, label) if there else None


def _is_whole(image: Path, label: Path | None, plan: Plan) -> bool:
    """Whether the arrays are there as they were written: of an image, or of its label.

    A damaged folder (a copy that was interrupted, a full disk) is removed, so that it is prepared anew.
    """
    folder = label or image
    if not folder.is_dir():
        return False
    try:
        shape = _read_space(image).shape
        if label is None:
            array = _open(image / "image.npy")
            whole = array.dtype == np.float16 and array.shape == (len(plan.channels), *shape)
        else:
            array, foreground = _open(label / "label.npy"), _open(label / "foreground.npy")
            whole = array.dtype in (np.uint8, np.int16) and array.shape == shape
            whole = whole and foreground.dtype == np.int32 and foreground.ndim == 2 and foreground.shape[1] == 4
            whole = whole and (IGNORE <= int(array.min()) <= int(array.max()) < len(plan.classes))
    except (OSError, EOFError, ValueError, TypeError, LookupError, RecursionError):
        whole = False
    if not whole:
        shutil.rmtree(folder, ignore_errors=True)
    return whole


def _prepare(case: Case, plan: Plan, folder: Path) -> PreparedCase:
    try:
        image = _image_folder(case, plan, folder)
        if not _is_whole(image, None, plan):
            _write_image(case, plan, image)
        label = _label_folder(case, plan, image, folder)
        if label is not None and not _is_whole(image, label, plan):
            _write_label(case, plan, image, label)
    except InputError as error:  # its subclasses need not survive the way between processes; their message does
        raise InputError(str(error)) from None
    return _prepared_case(case, image, label)


def _prepared_case(case: Case, image: Path, label: Path | None) -> PreparedCase:
    space = _read_space(image)
    return PreparedCase(
        case.name,
        image / "image.npy",
        label / "label.npy" if label else None,
        label / "foreground.npy" if label else None,
        space.spacing_mm,
        space.shape,
    )


def _image_folder(case: Case, plan: Plan, folder: Path) -> Path:
    """Keyed by what the images hold and everything in the plan that changes the prepared image."""
    return folder / "images" / _key([FORMAT, plan.preprocessing, *map(source_hash, case.images)])


def _label_folder(case: Case, plan: Plan, image: Path, folder: Path) -> Path | None:
    if case.label is None:
        return None
    meaning = plan.model_dump(mode="json", include={"relabel", "other_is_background", "ignore"})
    meaning["relabel"] = dict(sorted(meaning["relabel"].items()))  # a saved plan lists them in another order
    return folder / "labels" / _key([image.name, list(plan.classes.values()), meaning, source_hash(case.label)])


def _key(parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _write_image(case: Case, plan: Plan, target: Path) -> None:
    channels, scan = read_channels(case, plan)
    try:
        image, space = to_network_space(channels, scan.geometry, plan)
    except InputError as error:
        raise InputError(f"{case.images[0]}: {error}") from None
    with new_folder(target) as folder:
        np.save(folder / "image.npy", image.astype(np.float16))
        write_json(
            folder / "meta.json",
            {
                "case": case.name,
                "sources": {str(path): source_hash(path) for path in case.images},
                "file_shape": space.geometry.shape,
                "affine": space.geometry.affine.tolist(),
                "box": space.box,
                "axes": space.axes,
                "shape": space.shape,
                "spacing_mm": space.spacing_mm,
            },
        )


def _write_label(case: Case, plan: Plan, image: Path, target: Path) -> None:
    assert case.label is not None
    scan = read_label(case.label)
    space = _read_space(image)
    if scan.geometry.shape != space.geometry.shape:
        _raise_shape(case.label, scan.geometry.shape, case.images[0], space.geometry.shape)
    label = label_to_network_space(index_map(case.label, scan.array, plan), space)
    kind = np.uint8 if label.min() >= 0 and len(plan.classes) <= 256 else np.int16
    with new_folder(target) as folder:
        np.save(folder / "label.npy", label.astype(kind))
        np.save(folder / "foreground.npy", _foreground(label, len(plan.classes), seed=int(target.name, 16)))
        write_json(folder / "meta.json", {"case": case.name, "source": str(case.label), "image": image.name})


def _read_space(image: Path) -> NetworkSpace:
    meta = json.loads((image / "meta.json").read_text(encoding="utf-8"))
    geometry = Geometry(tuple(meta["file_shape"]), np.array(meta["affine"]))
    first, second, third = (tuple(side) for side in meta["box"])
    return NetworkSpace(geometry, (first, second, third), tuple(meta["axes"]), tuple(meta["shape"]))


def index_map(path: Path, values: Int[np.ndarray, "x y z"], plan: Plan) -> Int[np.ndarray, "x y z"]:
    values = class_values(values, plan)
    result = np.full(values.shape, IGNORE, np.int16)
    known = values == plan.ignore if plan.ignore is not None else np.zeros(values.shape, bool)
    for index, value in enumerate(plan.classes.values()):
        here = values == value
        result[here] = index
        known |= here
    if not known.all():
        unlisted = ", ".join(map(str, np.unique(values[~known])[:10]))
        listed = ", ".join(f"{value} ({name})" for name, value in plan.classes.items())
        raise InputError(
            f"{path}: got label value(s) {unlisted}, expected {listed}; "
            "correct the file, or add the values to `classes` in the plan or dataset.json"
        )
    return result


def _foreground(label: Int[np.ndarray, "i j k"], classes: int, seed: int) -> Int[np.ndarray, "n 4"]:
    """A random sample of each class's voxels, so that it is spread over the whole structure."""
    generator = np.random.default_rng(seed)
    rows = [np.zeros((0, 4), np.int32)]
    for index in range(1, classes):
        voxels = np.flatnonzero(label == index)
        if len(voxels) > FOREGROUND_VOXELS:
            voxels = np.sort(generator.choice(voxels, FOREGROUND_VOXELS, replace=False))
        where = np.unravel_index(voxels, label.shape)
        rows.append(np.stack([np.full(len(voxels), index), *where], axis=1).astype(np.int32))
    return np.concatenate(rows)


def _same_shape(path: Path, scan: Scan, first_path: Path, first: Scan) -> None:
    if scan.geometry.shape != first.geometry.shape:
        _raise_shape(path, scan.geometry.shape, first_path, first.geometry.shape)


def _raise_shape(path: Path, shape: Sequence[int], other: Path, expected: Sequence[int]) -> None:
    raise InputError(
        f"{path}: got shape {'x'.join(map(str, shape))}, expected {'x'.join(map(str, expected))} "
        f"like {other}; resample one onto the other, or leave the case out"
    )


def _open(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    array: np.ndarray[Any, np.dtype[Any]] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
