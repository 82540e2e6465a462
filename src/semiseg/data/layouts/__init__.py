"""Folder conventions, one a file; the one that a dataset follows is found by looking at its folders."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from semiseg.data.dataset import Case, Dataset
from semiseg.data.images import ENDINGS, case_name
from semiseg.data.layouts import nnunet, plain, table
from semiseg.data.layouts.listing import add_cases, group_channels, has_suffixes, scan_files
from semiseg.errors import InputError, UserError

LAYOUTS: tuple[ModuleType, ...] = (table, nnunet, plain)
"""In the order in which they are tried: the most explicit first."""


def open_dataset(root: Path | str, layout: str | None = None, unlabelled: Path | str | None = None) -> Dataset:
    """Read what a dataset declares and which files it has, without reading a voxel.

    root: a folder, a table, or the name of a folder in the one that the variable nnUNet_raw names.
    layout: nnunet, plain or table; found by looking if None. unlabelled: see `add_unlabelled`. Raises InputError
    where none fits or no image is there, UserError for an unknown layout.
    """
    path = _locate(root)
    chosen = _named(layout) if layout else _fitting(path)
    if chosen is None or not chosen.fits(path):
        wanted = LAYOUTS if chosen is None else (chosen,)
        looked = "; ".join(f"{one.NAME}: {one.looks_for}" for one in wanted)
        raise InputError(f"{path}: got no layout that fits, expected one of [{looked}]; see docs/data.md")
    dataset: Dataset = chosen.read(path)
    if not dataset.cases:
        raise InputError(f"{path}: got no image, expected {chosen.looks_for}; check the names and endings")
    others = [one.NAME for one in LAYOUTS if one is not chosen and one.fits(path)]
    if others and layout is None:
        note = f"read as {chosen.NAME}; {' and '.join(others)} would fit too (force one with --layout)"
        dataset = replace(dataset, notes=(*dataset.notes, note))
    return add_unlabelled(dataset, unlabelled) if unlabelled else dataset


def open_inputs(paths: Sequence[Path], channels: int, channel_suffix: bool | None = None) -> list[Case]:
    """The cases to segment, without labels: from files, folders of images, and datasets of any layout.

    channels: how many images the model needs for a case. channel_suffix: whether names end in _0000, ...;
    None takes it for a suffix if all files of a place have it and every case then has `channels` images.
    Cases with another number of images are kept, so that the rest can go on without them. Raises InputError
    for an empty input, a name that comes twice, and if no case at all has `channels` images.
    """
    loose: dict[str, Path] = {}
    cases: list[Case] = []
    for path in map(_locate, paths):
        if path.is_file() and path.name.endswith(ENDINGS):
            if case_name(path) in loose:
                raise InputError(f"{path}: got case {case_name(path)!r} twice, expected it once; rename the file")
            loose[case_name(path)] = path
        else:
            cases += _cases_in(path, channels, channel_suffix)
    cases = _from_files(loose, channels, channel_suffix) + cases
    _refuse_repeated(cases)
    if not cases:
        raise InputError("input: got no image, expected scans to segment; name files or folders")
    if not any(len(case.images) == channels for case in cases):
        first = cases[0]
        raise InputError(
            f"{first.images[0]}: got {len(first.images)} image(s) for case {first.name!r}, "
            f"expected {channels}; name them CASE_0000.nii.gz, CASE_0001.nii.gz, ... in channel order"
        )
    return cases


def add_unlabelled(dataset: Dataset, folder: Path | str) -> Dataset:
    """The dataset with the scans of `folder` (images, or any layout) as further unlabelled cases.

    Labels there are dropped. A case name that is taken gets the folder's name before it.
    """
    path = _locate(folder)
    channels = len(dataset.channels) or len(dataset.cases[0].images)
    more = [
        replace(case, label=None, split="unlabelled") for case in open_inputs([path], channels, channel_suffix=None)
    ]
    return replace(dataset, cases=add_cases(dataset.cases, more, prefix=path.resolve().name))


def _locate(root: Path | str) -> Path:
    raw = os.environ.get("nnUNet_raw")  # noqa: SIM112  (the name that nnU-Net reads)
    places = [Path(root), *([Path(raw) / root] if raw else [])]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        looked = " or ".join(map(str, places))
        raise InputError(f"{root}: got no such file or folder, expected {looked}; check the path")
    return found


def _named(layout: str) -> ModuleType:
    names = [one.NAME for one in LAYOUTS]
    if layout not in names:
        close = difflib.get_close_matches(layout, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "choose one or leave it out"
        raise UserError(f"--layout: got {layout!r}, expected one of {', '.join(sorted(names))}; {hint}")
    return LAYOUTS[names.index(layout)]


def _fitting(root: Path) -> ModuleType | None:
    return next((layout for layout in LAYOUTS if layout.fits(root)), None)


def _cases_in(path: Path, channels: int, channel_suffix: bool | None) -> list[Case]:
    if layout := _fitting(path):
        return [replace(case, label=None) for case in layout.read(path).cases]
    cases = _from_files(scan_files(path), channels, channel_suffix)
    if not cases:
        looked = "; ".join(["images (.nii.gz, .nii)", *(f"{one.NAME}: {one.looks_for}" for one in LAYOUTS)])
        raise InputError(f"{path}: got no image, expected one of [{looked}]; check the names and endings")
    return cases


def _from_files(files: dict[str, Path], channels: int, channel_suffix: bool | None) -> list[Case]:
    grouped, loose = group_channels(files)
    if channel_suffix is None:
        whole = all(len(images) == channels for images in grouped.values())
        channel_suffix = has_suffixes(files) and whole
    if not channel_suffix:
        return [Case(name, (path,)) for name, path in files.items()]
    named = [Case(name, images) for name, images in grouped.items()]
    return named + [Case(case_name(path), (path,)) for path in loose]


def _refuse_repeated(cases: list[Case]) -> None:
    seen: dict[str, Case] = {}
    for case in cases:
        if case.name in seen:
            first = seen[case.name].images[0]
            raise InputError(f"{case.images[0]}: got case {case.name!r} as in {first}, expected it once; rename it")
        seen[case.name] = case
