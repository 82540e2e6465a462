"""HDF5 files of QuickNAT: train, val, test and unlabel with Data_CASE.h5 and Label_CASE.h5 of coronal slices.

Roy et al., QuickNAT: A fully convolutional network for quick and accurate segmentation of neuroanatomy, NeuroImage
2019. The files hold the datasets `data` and `label`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from semiseg.data.dataset import Case, Dataset
from semiseg.data.label_tables import QUICKNAT_28
from semiseg.data.layouts.listing import add_cases, scan_files

NAME = "quicknat"
looks_for = "train/Data_CASE.h5 and train/Label_CASE.h5 (and val/, test/, unlabel/)"

_FOLDERS: Mapping[str, Literal["train", "val", "test", "unlabelled"]] = {
    "train": "train",
    "val": "val",
    "test": "test",
    "unlabel": "unlabelled",
}


def fits(root: Path) -> bool:
    return any(_files(root / folder, "Data_") for folder in _FOLDERS)


def read(root: Path) -> Dataset:
    """A case for each Data file, where its folder says; unlabelled without a Label file, and always in unlabel/."""
    cases: tuple[Case, ...] = ()
    orphans: list[Path] = []
    for folder, split in _FOLDERS.items():
        images = _files(root / folder, "Data_")
        labels = _files(root / folder, "Label_") if split != "unlabelled" else {}
        orphans += [path for name, path in labels.items() if name not in images]
        found = (Case(name, (path,), labels.get(name), split=split) for name, path in images.items())
        cases = add_cases(cases, found, prefix=folder)
    return Dataset(
        root=root,
        layout=NAME,
        cases=cases,
        channels=("T1",),
        classes=dict(QUICKNAT_28),
        orphan_labels=tuple(orphans),
    )


def _files(folder: Path, start: str) -> dict[str, Path]:
    """By what follows `start` in the name."""
    return {
        name.removeprefix(start): path
        for name, path in scan_files(folder).items()
        if name.startswith(start) and path.suffix.lower() in (".h5", ".hdf5")
    }
