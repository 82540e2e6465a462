"""COVID-19 CT: stacked slices of MedSeg or of ROAM's authors, and the pictures of UCSD-AI4H COVID-CT.

MedSeg's `tr_im.nii.gz` holds 100 slices of more than 40 patients, `tr_mask.nii.gz` their labels (1 ground glass,
2 consolidation, 3 pleural effusion), `tr_lungmasks_updated.nii.gz` the lungs; ROAM's authors have the slices as
`COVID.npy`, one label array with the lungs as value 1, and further slices as `unlCovid.nii` and `unlNonCovid.nii`.
Stacks are unpacked into the cache once, a file a slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from semiseg.data.dataset import Case, Dataset
from semiseg.data.images import PICTURE_AFFINE, BadFile, Scan, case_name, new_scan, read_array, read_image, read_label
from semiseg.data.layouts.listing import add_cases, scan_files
from semiseg.data.layouts.stacks import origin, unpacked
from semiseg.types import Geometry

NAME = "covid"
looks_for = (
    "tr_im.nii.gz and tr_mask.nii.gz, COVID.npy, COVID_Seg.npy, unlCovid.nii and unlNonCovid.nii, or pictures in "
    "CT_COVID/ and CT_NonCOVID/"
)

INFECTION = {"background": 0, "ground glass": 1, "consolidation": 2, "pleural effusion": 3}
LUNG_AND_INFECTION = {"background": 0, "lung": 1, "ground glass": 2, "consolidation": 3, "pleural effusion": 4}

_PICTURES = ("CT_COVID", "CT_NonCOVID")
_UNLABELLED = {"val_im": "val", "unlCovid": "unlCovid", "unlNonCovid": "unlNonCovid"}
"""Stacks without labels: what their cases are called after."""
_Array = np.ndarray[Any, np.dtype[Any]]
_Stack = Sequence[Scan]
"""One scan of shape (width, height, 1) a slice."""


def fits(root: Path) -> bool:
    stacks = (root / "tr_im.nii.gz", root / "COVID.npy", *_unlabelled_stacks(root))
    return any(path.is_file() for path in stacks) or bool(_picture_folders(root))


def read(root: Path) -> Dataset:
    """A case `slice_000`, ... for each slice of the stack; those of other stacks and the pictures are unlabelled.

    MedSeg's files are taken where both forms are there. Raises InputError, naming the file, for stacks that cannot
    be read, differ in shape, or hold a label value that has no meaning.
    """
    cases, classes, sources, notes = _medseg(root) if (root / "tr_im.nii.gz").is_file() else _arrays(root)
    unlabelled = _unlabelled_stacks(root)
    for path in unlabelled:
        images = _stack(path)
        found = _cases(_UNLABELLED[case_name(path)], images, [])
        cases = add_cases(cases, (replace(case, split="unlabelled") for case in found), prefix=path.name)
        notes.append(origin(images, [path]))
    for folder in _picture_folders(root):
        pictures = scan_files(folder)
        shown = (Case(name, (path,), split="unlabelled") for name, path in pictures.items())
        cases = add_cases(cases, shown, prefix=folder.name)
        notes.append(f"{len(pictures)} unlabelled cases: the pictures in {folder.relative_to(root)}")
    return Dataset(
        root=root,
        layout=NAME,
        cases=cases,
        channels=("CT",),
        classes=dict(classes),
        known=(*sources, *unlabelled),
        notes=tuple(notes),
    )


_Found = tuple[tuple[Case, ...], dict[str, int], list[Path], list[str]]
"""Cases, classes, the files that they came from, and notes."""


def _medseg(root: Path) -> _Found:
    image, mask, lung = (root / name for name in ("tr_im.nii.gz", "tr_mask.nii.gz", "tr_lungmasks_updated.nii.gz"))
    masks = [path for path in (mask, lung) if path.is_file()] if mask.is_file() else []
    images, sources = _stack(image), [image, *masks]
    labels = unpacked(sources, lambda: _medseg_labels(*sources)) if masks else []
    classes = LUNG_AND_INFECTION if lung in masks else INFECTION
    return _cases("slice", images, labels), classes, sources, [origin(images, sources)]


def _arrays(root: Path) -> _Found:
    image, mask = root / "COVID.npy", root / "COVID_Seg.npy"
    if not image.is_file():
        return (), LUNG_AND_INFECTION, [], []
    sources = [image, mask] if mask.is_file() else [image]
    images = unpacked([image], lambda: _slices(_from_pictures(read_array(image), np.float32)))
    labels = unpacked(sources, lambda: _array_labels(image, mask)) if mask in sources else []
    return _cases("slice", images, labels), LUNG_AND_INFECTION, sources, [origin(images, sources)]


def _unlabelled_stacks(root: Path) -> list[Path]:
    names = (f"{stem}{ending}" for stem in _UNLABELLED for ending in (".nii.gz", ".nii"))
    return [root / name for name in names if (root / name).is_file()]


def _picture_folders(root: Path) -> list[Path]:
    """Also in the repository that they are shared in, `COVID-CT/Images-processed`."""
    if not root.is_dir():
        return []
    patterns = [f"{above}{name}" for above in ("", "*/", "*/*/") for name in _PICTURES]
    folders = chain.from_iterable(sorted(root.glob(pattern)) for pattern in patterns)
    return [folder for folder in folders if scan_files(folder)]


def _cases(stem: str, images: Sequence[Path], labels: Sequence[Path]) -> tuple[Case, ...]:
    pairs = enumerate(zip_longest(images, labels))
    return tuple(Case(f"{stem}_{index:03d}", (image,), label) for index, (image, label) in pairs)


def _stack(path: Path) -> list[Path]:
    return unpacked([path], lambda: _slices(read_image(path)))


def _slices(stack: Scan) -> _Stack:
    """Slices of many patients have no place along the third axis: all keep the geometry of the first."""
    width, height, count = stack.geometry.shape
    geometry = Geometry((width, height, 1), stack.geometry.affine)
    return [Scan(stack.array[..., index : index + 1], geometry, stack.header) for index in range(count)]


def _medseg_labels(image: Path, mask: Path, lung: Path | None = None) -> _Stack:
    scan, values = read_image(image), read_label(mask).array
    _same_shape(mask, values, image, scan.array)
    _known(mask, values, INFECTION)
    if lung is not None:
        inside = read_label(lung).array > 0
        _same_shape(lung, inside, image, scan.array)
        values = np.where(values > 0, values + 1, inside)  # infection wins: it may reach beyond the mask of the lung
    return _slices(Scan(values, scan.geometry, scan.header))


def _array_labels(image: Path, mask: Path) -> _Stack:
    values = read_array(mask)
    _same_shape(mask, values, image, read_array(image))
    _known(mask, values, LUNG_AND_INFECTION)
    return _slices(_from_pictures(values, np.int32))


def _from_pictures(stack: _Array, kind: type) -> Scan:
    """From slices x rows x columns, which lie as in a picture, to columns x rows x slices."""
    return new_scan(stack.transpose(2, 1, 0).astype(kind), PICTURE_AFFINE)


def _same_shape(path: Path, array: _Array, image: Path, expected: _Array) -> None:
    if array.shape != expected.shape:
        found, wanted = ("x".join(map(str, sides)) for sides in (array.shape, expected.shape))
        raise BadFile(path, f"shape {found}", f"{wanted} as in {image.name}", "use files that belong together")


def _known(path: Path, values: _Array, classes: dict[str, int]) -> None:
    unknown = np.setdiff1d(values, list(classes.values()))
    if len(unknown):
        listed = ", ".join(f"{value} ({name})" for name, value in classes.items())
        raise BadFile(path, f"label value {unknown[0]:g}", listed, "correct the file")
