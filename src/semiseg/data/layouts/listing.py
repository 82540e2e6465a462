"""What the layouts share: listing scan files, grouping channels, and dataset.json with nnU-Net's keys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semiseg.data.dataset import Case, Dataset
from semiseg.data.images import ENDINGS, case_name, is_picture, scan_ending
from semiseg.data.label_values import is_label_value
from semiseg.errors import InputError
from semiseg.files import read_json
from semiseg.settings import is_text, shown

_OF_OTHERS = (".npz", ".mgz", ".mgh", ".nrrd", ".mha", ".mhd", ".img", ".tif", ".tiff")
"""Endings of scans that cannot be read here."""
_SUFFIXED = re.compile(r"(.+)_(\d{4})")


def scan_files(folder: Path) -> dict[str, Path]:
    """Case name to file for every scan in a folder, sorted; empty if there is no such folder.

    Hidden files (macOS leaves `._name` files on foreign disks) are passed over, and so are pictures beside a volume of
    the same name: they show it. Raises InputError if two other files differ in nothing but their ending, or for a name
    that is not UTF-8, which no file of results can hold.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not scan_ending(path):
            continue
        if not is_text(path.name):
            raise InputError(f"{str(path)!a}: got a name that is not UTF-8, expected one that is; rename it (`convmv`)")
        if (name := case_name(path)) in found:
            if is_picture(path) != is_picture(found[name]):
                found[name] = found[name] if is_picture(path) else path
                continue
            raise InputError(f"{path}: got a second file of case {name!r}, expected one; remove one of the two")
        found[name] = path
    return found


def unused_note(dataset: Dataset, cases: Iterable[Case]) -> str:
    """The files of a dataset's folder that look like scans and are used by none of its cases; empty if there is none.

    cases: those that were read, before channels were chosen, and those added since. Folders are looked through three
    deep, as far as any layout goes; of many files the first five are named.
    """
    used = {*dataset.known, *dataset.orphan_labels}
    for case in cases:
        used.update(case.images if case.label is None else (*case.images, case.label))
    real = {os.path.realpath(path) for path in used}
    unused = [
        path.relative_to(dataset.root).as_posix()
        for folder in folders_below(dataset.root, depth=3)
        for path in sorted(folder.iterdir())
        if _looks_like_data(path) and os.path.realpath(path) not in real
    ]
    if not unused:
        return ""
    named = ", ".join(name[:100] if name.isprintable() else ascii(name)[:100] for name in unused[:5])
    more = f" and {len(unused) - 5} more" if len(unused) > 5 else ""
    return f"not used by the layout {dataset.layout}: {named}{more}; docs/data.md says which files it reads"


def _looks_like_data(path: Path) -> bool:
    name = path.name.lower()
    return not name.startswith(".") and name.endswith((*ENDINGS, *_OF_OTHERS)) and path.is_file()


def spacing_note(cases: Iterable[Case]) -> str:
    """What is to be known of scans that are NumPy arrays; empty where there is none."""
    count = sum(any(scan_ending(path) == ".npy" for path in case.images) for case in cases)
    if not count:
        return ""
    return (
        f"spacing and place of NumPy arrays (.npy) are not known, number of scans: {count}; they are taken for axial "
        "slices of 1 mm; convert them to NIfTI where millimetres matter"
    )


def folders_below(root: Path, depth: int) -> Iterator[Path]:
    """`root` and the folders in it, down to `depth`, sorted at each level; hidden ones are passed over."""
    if not root.is_dir():
        return
    yield root
    for path in sorted(root.iterdir()) if depth else ():
        if path.is_dir() and not path.name.startswith("."):
            yield from folders_below(path, depth - 1)


def has_suffixes(names: Iterable[str], taken: Iterable[str] = ()) -> bool:
    """Whether all names end in a channel suffix and every case has channel 0.

    `taken` are names of label files: where one equals a whole image name, four digits at its end number
    patients, not channels.
    """
    names = list(names)
    matches = [_SUFFIXED.fullmatch(name) for name in names]
    if not names or not all(matches) or set(names) & set(taken):
        return False
    return all(f"{match[1]}_0000" in set(names) for match in matches if match)


def group_channels(files: Mapping[str, Path], channels: int = 0) -> tuple[dict[str, tuple[Path, ...]], list[Path]]:
    """Case name (suffix removed) to its files in channel order, and the files without a suffix.

    A channel missing below the highest suffix, or below `channels`, is listed under the name that it should
    have, so that reading it says which file is absent.
    """
    indices: dict[str, dict[int, Path]] = {}
    loose: list[Path] = []
    for name, path in files.items():
        if match := _SUFFIXED.fullmatch(name):
            indices.setdefault(match[1], {})[int(match[2])] = path
        else:
            loose.append(path)
    cases = {}
    for name, found in indices.items():
        one = next(iter(found.values()))
        ending = one.name[len(case_name(one)) :]
        count = max(*found, channels - 1) + 1 if channels else max(found) + 1
        cases[name] = tuple(found.get(index, one.with_name(f"{name}_{index:04d}{ending}")) for index in range(count))
    return cases, loose


def add_cases(cases: Iterable[Case], more: Iterable[Case], prefix: str) -> tuple[Case, ...]:
    """Both lists; a name in `more` that is taken gets `prefix_` before it, and with it a group of its own."""
    together = list(cases)
    taken = {case.name for case in together}
    for case in more:
        if case.name in taken:
            case = replace(case, name=f"{prefix}_{case.name}")
        if case.name in taken:
            raise InputError(f"{case.images[0]}: got case name {case.name!r} twice, expected it once; rename the file")
        taken.add(case.name)
        together.append(case)
    return tuple(together)


@dataclass(frozen=True)
class Description:
    """What dataset.json declares; nothing if there is none."""

    channels: tuple[str, ...] = ()
    classes: dict[str, int] | None = None
    ignore: int | None = None
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        if self.channels:
            return ()
        advice = 'say {"channel_names": {"0": "CT"}} in dataset.json if it is CT'
        return (f"modality not declared, treated as MR (z-score); {advice}",)


def read_description(folder: Path) -> Description:
    """Channels, classes (by value, background first), ignore value and regions from `folder/dataset.json`, if any."""
    path = folder / "dataset.json"
    if not path.is_file():
        return Description()
    document = read_json(path, "a JSON file", "repair it")
    if not isinstance(document, dict):
        raise InputError(f"{path}: got a {type(document).__name__}, expected an object; see docs/data.md")
    ending = document.get("file_ending", ".nii.gz")
    if ending not in ENDINGS:
        raise InputError(
            f"{path}: got file_ending {ending!r}, expected one of {', '.join(ENDINGS)}; convert the scans to NIfTI"
        )
    channels = _channels(path, document.get("channel_names", document.get("modality", {})))
    labels = document.get("labels")
    if labels is None:
        return Description(channels)
    if not isinstance(labels, dict):
        raise InputError(
            f'{path}: got labels {shown(labels)}, expected {{"background": 0, "name": 1}}; see docs/data.md'
        )
    regions = _regions(path, labels, bool(document.get("regions_class_order")))
    single = {name: value for name, value in labels.items() if not isinstance(value, list)}
    return Description(channels, *_classes(path, single, regions), regions)


def _channels(path: Path, names: Any) -> tuple[str, ...]:
    numbers = [str(index) for index in range(len(names))] if isinstance(names, dict) else None
    if numbers is None or set(names) != set(numbers) or not all(isinstance(name, str) for name in names.values()):
        example = '{"0": "T1", "1": "FLAIR"}'
        raise InputError(f"{path}: got channel_names {shown(names)}, expected {example}; number them from 0")
    return tuple(names[number] for number in numbers)


def _regions(path: Path, labels: dict[str, Any], all_are_regions: bool) -> dict[str, tuple[int, ...]]:
    """The lists of values; in nnU-Net's form, which gives an order of regions, single values are regions too."""
    regions: dict[str, tuple[int, ...]] = {}
    for name, values in labels.items():
        if isinstance(values, list):
            if not values or not all(is_label_value(value) and value != 0 for value in values):
                raise InputError(
                    f"{path}: got {shown(values)} for label {name!r}, expected whole numbers other than 0, of 32 bits; "
                    "list the values that the region unites"
                )
            regions[name] = tuple(dict.fromkeys(values))
        elif all_are_regions and name != "ignore" and type(values) is int and values != 0:
            regions[name] = (values,)
    return regions


def _classes(
    path: Path, labels: dict[str, Any], regions: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, int], int | None]:
    """Named by `labels`, else by a region of that value alone, else by number."""
    for name, value in labels.items():
        if not is_label_value(value):
            raise InputError(
                f"{path}: got {shown(value)} for label {name!r}, expected a whole number of 32 bits; "
                'write names before values, as in {"background": 0}'
            )
    if len(set(labels.values())) < len(labels):
        raise InputError(f"{path}: got the same value for two labels, expected each once; {labels}")
    named = dict(labels)
    ignore = named.pop("ignore", None)
    if 0 not in named.values():
        raise InputError(f'{path}: got labels without the value 0, expected a background; add "background": 0')
    alone = {values[0]: name for name, values in regions.items() if len(values) == 1}
    for value in {value for values in regions.values() for value in values} - set(named.values()):
        if value == ignore:
            raise InputError(f"{path}: got the ignore value {ignore} in a region, expected others; remove it")
        named[alone.get(value, str(value))] = value
    return dict(sorted(named.items(), key=lambda item: (item[1] != 0, item[1]))), ignore
