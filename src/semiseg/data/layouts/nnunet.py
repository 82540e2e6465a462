"""nnU-Net v2 raw: imagesTr, labelsTr, imagesTs, dataset.json; and imagesUn for scans without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from semiseg.data.dataset import Case, Dataset
from semiseg.data.layouts.listing import add_cases, group_channels, read_description, scan_files
from semiseg.errors import InputError

NAME = "nnunet"
looks_for = "imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz (or imagesTs, imagesUn), with dataset.json"

_Split = Literal["test", "unlabelled"] | None
_FOLDERS: tuple[tuple[str, str | None, _Split], ...] = (
    ("imagesTr", "labelsTr", None),
    ("imagesUn", None, "unlabelled"),
    ("imagesTs", "labelsTs", "test"),
)


def fits(root: Path) -> bool:
    return any((root / images).is_dir() for images, _, _ in _FOLDERS)


def read(root: Path) -> Dataset:
    """Cases of imagesTr (unlabelled where labelsTr lacks one), imagesUn (unlabelled), imagesTs (test)."""
    description = read_description(root)
    cases: tuple[Case, ...] = ()
    orphans: list[Path] = []
    loose: list[Path] = []
    for folder, label_folder, split in _FOLDERS:
        grouped, without = group_channels(scan_files(root / folder), len(description.channels))
        loose += without
        labels = scan_files(root / label_folder) if label_folder else {}
        orphans += [path for name, path in labels.items() if name not in grouped]
        found = (Case(name, images, labels.get(name), split=split) for name, images in grouped.items())
        cases = add_cases(cases, found, prefix=folder)
    if loose and not cases:
        raise InputError(
            f"{loose[0]}: got no channel suffix, expected {loose[0].parent.name}/CASE_0000.nii.gz; "
            "rename the images, or use the plain layout (images/ and labels/)"
        )
    notes = tuple(f"{path}: got no channel suffix, expected CASE_0000.nii.gz; left out" for path in loose)
    return Dataset(
        root=root,
        layout=NAME,
        cases=cases,
        channels=description.channels,
        classes=description.classes,
        ignore=description.ignore,
        regions=description.regions,
        channel_suffix=True,
        orphan_labels=tuple(orphans),
        known=tuple(loose),
        notes=description.notes + notes,
    )
