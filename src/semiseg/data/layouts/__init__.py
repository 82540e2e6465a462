"""Folder conventions, one a file; the one that a dataset follows is found by looking at its folders."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from semiseg.data.dataset import Case, Dataset
from semiseg.data.dicom import refuse_dicom
from semiseg.data.images import ENDINGS, case_name, scan_ending
from semiseg.data.label_tables import numbered
from semiseg.data.layouts import brats, candi, covid, ibsr, malc, nnunet, plain, quicknat, table
from semiseg.data.layouts.listing import add_cases, group_channels, has_suffixes, scan_files, spacing_note, unused_note
from semiseg.errors import InputError, UserError
from semiseg.files import is_there

LAYOUTS: tuple[ModuleType, ...] = (table, quicknat, covid, nnunet, malc, ibsr, candi, brats, plain)
"""In the order in which they are tried: the most explicit first."""


def open_dataset(
    root: Path | str,
    layout: str | None = None,
    unlabelled: Path | str | None = None,
    channels: Sequence[str] | None = None,
    *,
    labels: bool = True,
) -> Dataset:
    """Read what a dataset declares and which files it has.

    Of the voxels no more than one label file is read, for its numbering; but stacked slices are unpacked, once.

    root: a folder, a table, or the name of a folder in the one that the variable nnUNet_raw names.
    layout: the name of one in LAYOUTS; found by looking if None. unlabelled: see `add_unlabelled`. channels: names
    of those to keep, in that order; all if None. labels: without, no label file is opened: a numbering that only one
    can tell is left to `label_tables.numbered`. Raises InputError where no layout fits or no image is there,
    UserError for an unknown layout or channel.
    """
    path = _locate(root)
    chosen = _named(layout) if layout else layout_of(path)
    if chosen is None or not getattr(chosen, "accepts", chosen.fits)(path):
        refuse_dicom(path)
        wanted = LAYOUTS if chosen is None else (chosen,)
        looked = "; ".join(f"{one.NAME}: {one.looks_for}" for one in wanted)
        raise InputError(f"{path}: got no layout that fits, expected one of [{looked}]; see docs/data.md")
    dataset: Dataset = chosen.read(path)
    as_read = dataset.cases
    if not dataset.cases:
        refuse_dicom(path)
        raise InputError(f"{path}: got no image, expected {chosen.looks_for}; check the names and endings")
    others = [one.NAME for one in LAYOUTS if one is not chosen and one.fits(path)]
    if others and layout is None:
        note = f"read as {chosen.NAME}; {' and '.join(others)} would fit too (force one with --layout)"
        dataset = replace(dataset, notes=(*dataset.notes, note))
    if note := spacing_note(dataset.cases):
        dataset = replace(dataset, notes=(*dataset.notes, note))
    if channels is not None:
        dataset = _select_channels(dataset, channels)
    dataset = add_unlabelled(dataset, unlabelled) if unlabelled else dataset
    if note := unused_note(dataset, (*as_read, *dataset.cases)):
        dataset = replace(dataset, notes=(*dataset.notes, note))
    return numbered(dataset) if labels else dataset


def open_inputs(
    paths: Sequence[Path],
    channels: int,
    channel_suffix: bool | None = None,
    channel_names: Sequence[str] = (),
) -> list[Case]:
    """The cases to segment, without labels: from files, folders of images, and datasets of any layout.

    channels: how many images the model needs for a case. channel_names: of those, if known; a dataset that names
    them all is cut to them, in that order. channel_suffix: whether names end in _0000, ...; None
    takes it for a suffix if all files of a place have it and every case then has `channels` images.
    Cases with another number of images are kept, so that the rest can go on without them. Raises InputError
    for an empty input, a name that comes twice, and if no case at all has `channels` images.
    """
    loose: dict[str, Path] = {}
    cases: list[Case] = []
    for path in map(_locate, paths):
        if path.is_file() and scan_ending(path):
            if case_name(path) in loose:
                raise InputError(f"{path}: got case {case_name(path)!r} twice, expected it once; rename the file")
            loose[case_name(path)] = path
        else:
            cases += _cases_in(path, channels, channel_suffix, channel_names)
    cases = _from_files(loose, channels, channel_suffix) + cases
    _refuse_repeated(cases)
    if not cases:
        named = ", ".join(map(str, paths)) or "input"
        raise InputError(f"{named}: got no image, expected scans to segment; name files or folders")
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
        replace(case, label=None, split="unlabelled")
        for case in open_inputs([path], channels, channel_names=dataset.channels)
    ]
    return replace(dataset, cases=add_cases(dataset.cases, more, prefix=path.resolve().name))


def _locate(root: Path | str) -> Path:
    raw = os.environ.get("nnUNet_raw")  # noqa: SIM112  (the name that nnU-Net reads)
    places = [Path(root), *([Path(raw) / root] if raw else [])]
    found = next((place for place in places if is_there(place)), None)
    if found is None:
        looked = " or ".join(str(place)[:200] for place in places)
        raise InputError(f"{str(root)[:200]}: got no such file or folder, expected {looked}; check the path")
    return found


def _named(layout: str) -> ModuleType:
    names = [one.NAME for one in LAYOUTS]
    if layout not in names:
        close = difflib.get_close_matches(layout, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "choose one or leave it out"
        raise UserError(f"--layout: got {layout!r}, expected one of {', '.join(sorted(names))}; {hint}")
    return LAYOUTS[names.index(layout)]


def layout_of(root: Path) -> ModuleType | None:
    """The first of LAYOUTS that a folder or file follows; None if it follows none."""
    return next((layout for layout in LAYOUTS if layout.fits(root)), None)


def _select_channels(dataset: Dataset, names: Sequence[str]) -> Dataset:
    known = dataset.channels
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "the dataset must name its channels to choose from them"
            expected = f"one of {', '.join(known)}" if known else "none, as the dataset names no channels"
            raise UserError(f"data.channels: got {name!r}, expected {expected}; {hint}")
    if not names or len(set(names)) < len(names):
        raise UserError(f"data.channels: got {list(names)}, expected at least one name, each once; correct it")
    wanted = [known.index(name) for name in names]
    # where the last channels are absent, so they are here, for `check` to report
    cases = (
        replace(case, images=tuple(case.images[k] for k in wanted if k < len(case.images))) for case in dataset.cases
    )
    return replace(dataset, cases=tuple(cases), channels=tuple(names))


def _cases_in(path: Path, channels: int, channel_suffix: bool | None, channel_names: Sequence[str]) -> list[Case]:
    if layout := layout_of(path):
        dataset: Dataset = layout.read(path)
        if channel_names and set(channel_names) <= set(dataset.channels):
            dataset = _select_channels(dataset, channel_names)
        if not dataset.cases:
            refuse_dicom(path)
        return [replace(case, label=None) for case in dataset.cases]
    cases = _from_files(scan_files(path), channels, channel_suffix)
    if not cases:
        refuse_dicom(path)
        looked = "; ".join([f"images ({', '.join(ENDINGS)})", *(f"{one.NAME}: {one.looks_for}" for one in LAYOUTS)])
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
