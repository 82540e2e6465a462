"""HDF5 files of QuickNAT: train, val, test and unlabel with Data_CASE.h5 and Label_CASE.h5 of coronal slices.

Roy et al., QuickNAT: A fully convolutional network for quick and accurate segmentation of neuroanatomy, NeuroImage
2019. The files hold the datasets `data` and `label`. ROAM's authors have all volumes of a split in one file, as
train/Data_train.h5 and Data_Test.h5: volumes.csv says how many slices each has, and they are unpacked into the cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import numpy as np

from semiseg.data.dataset import Case, Dataset
from semiseg.data.images import HDF5_AFFINE, BadFile, Scan, new_scan, read_image, read_label
from semiseg.data.label_tables import QUICKNAT_28
from semiseg.data.layouts.listing import add_cases, scan_files
from semiseg.data.layouts.stacks import origin, unpacked
from semiseg.errors import InputError
from semiseg.tables import parse_table

NAME = "quicknat"
looks_for = "train/Data_CASE.h5 and train/Label_CASE.h5 (and val/, test/, unlabel/), or Data_train.h5 with volumes.csv"

TABLE = "volumes.csv"
"""In the dataset's folder: file (from there), case and slices, a row for each volume in the order of the slices."""

_FOLDERS: Mapping[str, Literal["train", "val", "test", "unlabelled"]] = {
    "train": "train",
    "val": "val",
    "test": "test",
    "unlabel": "unlabelled",
}


@dataclass(frozen=True)
class _Pair:
    """A Data file, the Label file beside it, and the folder of `_FOLDERS` that they are in or called after."""

    name: str
    image: Path
    label: Path | None
    folder: str


def fits(root: Path) -> bool:
    return any(_pairs(root))


def read(root: Path) -> Dataset:
    """A case for each Data file, where its folder says; unlabelled without a Label file, and always in unlabel/.

    A file that volumes.csv divides has a case for each volume. Raises InputError for one that is called after its split
    and is not divided, and for a division that does not fit the files.
    """
    pairs, divisions = list(_pairs(root)), _divisions(root)
    cases: tuple[Case, ...] = ()
    notes: list[str] = []
    for pair in pairs:
        if division := divisions.get(pair.image):
            images = _volumes(pair.image, read_image, division)
            labels = _volumes(pair.label, read_label, division) if pair.label else []
            notes.append(origin(images, [pair.image, *([pair.label] if pair.label else [])], "volume"))
        elif pair.name.lower() in _FOLDERS:
            raise InputError(
                f"{pair.image}: got the volumes of a split in one file, expected {root / TABLE} to say how many slices "
                "each of them has; write it with the columns file,case,slices and a row for each volume, in the order "
                f"of the slices, as in {pair.image.relative_to(root).as_posix()},1000,256"
            )
        else:
            division, images, labels = {pair.name: 0}, [pair.image], [pair.label] if pair.label else []
        rows = zip_longest(division, images, labels)
        found = (Case(name, (image,), label, split=_FOLDERS[pair.folder]) for name, image, label in rows)
        cases = add_cases(cases, found, prefix=pair.folder)
    with_image = {pair.label for pair in pairs}
    return Dataset(
        root=root,
        layout=NAME,
        cases=cases,
        channels=("T1",),
        classes=dict(QUICKNAT_28),
        orphan_labels=tuple(path for path in _label_files(root) if path not in with_image),
        known=tuple(path for pair in pairs for path in (pair.image, pair.label) if path),
        notes=tuple(notes),
    )


def _pairs(root: Path) -> Iterator[_Pair]:
    for folder in _FOLDERS:
        labels = _files(root / folder, "Label_") if folder != "unlabel" else {}
        for name, path in _files(root / folder, "Data_").items():
            yield _Pair(name, path, labels.get(name), folder)
    labels = _top_files(root, "Label_")
    for name, path in _top_files(root, "Data_").items():
        yield _Pair(name, path, labels.get(name) if name.lower() != "unlabel" else None, name.lower())


def _label_files(root: Path) -> Iterator[Path]:
    for folder in _FOLDERS:
        if folder != "unlabel":
            yield from _files(root / folder, "Label_").values()
    yield from (path for name, path in _top_files(root, "Label_").items() if name.lower() != "unlabel")


def _files(folder: Path, start: str) -> dict[str, Path]:
    """By what follows `start` in the name."""
    return {
        name.removeprefix(start): path
        for name, path in scan_files(folder).items()
        if name.startswith(start) and path.suffix.lower() in (".h5", ".hdf5")
    }


def _top_files(root: Path, start: str) -> dict[str, Path]:
    """Those that are called after a split, as Data_Test.h5; the folder may hold anything else."""
    files = {path.stem.removeprefix(start): path for path in sorted(root.glob(f"{start}*.h5"))}
    return {name: path for name, path in files.items() if name.lower() in _FOLDERS}


def _divisions(root: Path) -> dict[Path, dict[str, int]]:
    """Of a file that volumes.csv names: case to its number of slices, in their order."""
    table = root / TABLE
    if not table.is_file():
        return {}
    expected, action = "file,case,slices, a row for each volume, such as train/Data_train.h5,1000,256", "correct it"
    divisions: dict[Path, dict[str, int]] = {}
    data = {pair.image for pair in _pairs(root)}

    def add(row: dict[str, str]) -> None:
        path, case = root / row["file"].strip(), row["case"].strip()
        slices = int(row["slices"])
        if path not in data:
            raise ValueError(f"{row['file']!r}, which is no Data file of this folder")
        if not case or case.startswith(".") or re.search(r"[/\\]", case):
            raise ValueError(f"case {case!r}, which cannot be the name of a file")
        if case in divisions.setdefault(path, {}):
            raise ValueError(f"case {case!r} a second time")
        if not 0 < slices < 2**31:
            raise ValueError(f"{slices} slices")
        divisions[path][case] = slices

    parse_table(table, ("file", "case", "slices"), expected, action, add, by_hand=True)
    return divisions


def _volumes(path: Path, read_file: Callable[[Path], Scan], division: Mapping[str, int]) -> list[Path]:
    counts = list(division.values())

    def cut() -> list[Scan]:
        slices = read_file(path).array
        if len(slices) != sum(counts):
            expected = f"{sum(counts)} as in {TABLE}"
            raise BadFile(path, f"{len(slices)} slices", expected, "correct the table, or the file")
        return [new_scan(part, HDF5_AFFINE) for part in np.split(slices, np.cumsum(counts)[:-1])]

    return unpacked([path], cut, "volume", counts)
