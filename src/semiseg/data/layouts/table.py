"""A CSV table with a row per case: case,image[,image_2...],label,split,group."""

from __future__ import annotations

import csv
import difflib
import re
from pathlib import Path

from semiseg.data.dataset import Case, Dataset
from semiseg.data.layouts.listing import read_description
from semiseg.errors import InputError

NAME = "table"
looks_for = "a CSV file (or a folder with dataset.csv) with the columns case,image[,image_2...],label,split,group"

_COLUMNS = ("case", "image", "image_2", "label", "split", "group")
_SPLITS = {"": None, "train": "train", "val": "val", "test": "test", "unlabelled": "unlabelled"}


def fits(root: Path) -> bool:
    return _file(root).is_file()


def read(root: Path) -> Dataset:
    """Cases in file order. Paths are relative to the table; dataset.json beside it is optional."""
    path = _file(root)
    description = read_description(path.parent)
    return Dataset(
        root=path.parent,
        layout=NAME,
        cases=_cases(path),
        channels=description.channels,
        classes=description.classes,
        ignore=description.ignore,
        regions=description.regions,
        notes=description.notes,
    )


def _file(root: Path) -> Path:
    return root if root.suffix == ".csv" else root / "dataset.csv"


def _cases(path: Path) -> tuple[Case, ...]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="")
        try:
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            image_columns = _image_columns(path, columns)
            cases: dict[str, Case] = {}
            for row in reader:
                case = _case(path, reader.line_num, row, image_columns)
                if case.name in cases:
                    raise InputError(
                        f"{path}, line {reader.line_num}: got case {case.name!r} a second time, "
                        "expected each once; put the scans of one patient in one group instead"
                    )
                cases[case.name] = case
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: got {error}, expected a comma-separated table in UTF-8; save it anew") from None
    return tuple(cases.values())


def _image_columns(path: Path, columns: list[str]) -> list[str]:
    for name in columns:
        if name in _COLUMNS or re.fullmatch(r"image_[2-9]\d*|image_1\d+", name):
            continue
        close = difflib.get_close_matches(name, _COLUMNS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "remove it"
        raise InputError(f"{path}: got column {name!r}, expected {looks_for.partition('columns ')[2]}; {hint}")
    images = ["image"] + [f"image_{index}" for index in range(2, 2 + sum(map(_is_more, columns)))]
    for name in ["case", *images]:
        if columns.count(name) != 1:
            count = columns.count(name) or "no"
            raise InputError(f"{path}: got {count} column {name!r}, expected one; add or rename it")
    return images


def _is_more(column: str) -> bool:
    return column.startswith("image_")


def _case(path: Path, line: int, row: dict[str, str], image_columns: list[str]) -> Case:
    where = f"{path}, line {line}"
    if None in row:
        raise InputError(f"{where}: got more values than columns, expected one each; quote values that hold a comma")
    value = {key: text.strip() for key, text in row.items()}
    name = value["case"]
    if not name or name.startswith(".") or re.search(r"[/\\]", name):
        raise InputError(f"{where}: got case {name!r}, expected a name that can be a file name; change it")
    images = [value[column] for column in image_columns]
    while images and not images[-1]:
        images.pop()
    if not all(images) or not images:
        raise InputError(f"{where}: got an empty image for case {name!r}, expected a path; fill it in")
    split = value.get("split", "")
    if split not in _SPLITS:
        raise InputError(f"{where}: got split {split!r}, expected train, val, test, unlabelled or nothing; change it")
    label = value.get("label", "")
    try:
        return Case(
            name,
            tuple(path.parent / image for image in images),
            path.parent / label if label else None,
            value.get("group", ""),
            _SPLITS[split],  # type: ignore[arg-type]
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
