"""Files beside predictions: their names, tables of the classes, what failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from semiseg.colours import value_colours
from semiseg.data.dataset import Case
from semiseg.data.images import is_picture
from semiseg.files import write_json, write_text
from semiseg.tables import write_table

CLASS_TABLES = ("labels.json", "labels.txt", "labels.ctbl")
"""Names, values and colours of the classes: for programs, ITK-SNAP and 3D Slicer."""


def label_file(out: Path, case: Case) -> Path:
    return Path(out) / f"{case.name}{'.png' if is_picture(case.images[0]) else '.nii.gz'}"


def probability_file(out: Path, case: Case) -> Path:
    return Path(out) / f"{case.name}_prob.nii.gz"


def write_tables(out: Path, classes: Mapping[str, int]) -> None:
    """Names, values and colours of the classes: labels.json, labels.txt (ITK-SNAP) and labels.ctbl (3D Slicer)."""
    write_json(out / "labels.json", dict(classes))
    colours = value_colours(classes)
    rows = [(value, name, *colours[value]) for name, value in classes.items()]
    snap = [
        f'{value} {red} {green} {blue} {int(order > 0)} {int(order > 0)} {int(order > 0)} "{name}"'
        for order, (value, name, red, green, blue) in enumerate(rows)
    ]
    write_text(out / "labels.txt", "# ITK-SnAP Label Description File\n" + "\n".join(snap) + "\n")
    slicer = [
        f"{value} {name.replace(' ', '_')} {red} {green} {blue} {255 * (order > 0)}"
        for order, (value, name, red, green, blue) in enumerate(rows)
    ]
    write_text(out / "labels.ctbl", "# Color table file\n" + "\n".join(slicer) + "\n")


def write_failures(out: Path, failed: Mapping[str, str]) -> None:
    """Write failed.csv (case, error), or remove that of an earlier time where nothing failed."""
    path = out / "failed.csv"
    if not failed:
        path.unlink(missing_ok=True)
        return
    write_table(path, ("case", "error"), ({"case": case, "error": error} for case, error in failed.items()))
