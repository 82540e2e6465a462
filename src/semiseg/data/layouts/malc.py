"""2012 multi-atlas labelling challenge (MALC): OASIS brains, labels of the BrainCOLOR protocol, read as ROAM's classes.

Landman and Warfield, MICCAI 2012 Workshop on Multi-Atlas Labeling. A file such as 1000_3 is scan 3 of subject 1000.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from semiseg.data.dataset import Case, Dataset
from semiseg.data.label_tables import choose_table
from semiseg.data.layouts.listing import add_cases, scan_files

NAME = "malc"
looks_for = (
    "images/1000_3.nii.gz and labels/1000_3_glm.nii.gz, or training-images, training-labels, testing-images, ..."
)

_FOLDERS: tuple[tuple[str, str | None, Literal["test", "unlabelled"] | None], ...] = (
    ("images", "labels", None),
    ("training-images", "training-labels", None),
    ("testing-images", "testing-labels", "test"),
    ("unlabelled", None, "unlabelled"),
)


def fits(root: Path) -> bool:
    """The challenge's own folders, or plain ones whose label files end in _glm."""
    return (root / "training-images").is_dir() or any(name.endswith("_glm") for name in scan_files(root / "labels"))


def accepts(root: Path) -> bool:
    """Where the layout is asked for by name: plain folders too, whatever their label files are called."""
    return fits(root) or (root / "images").is_dir()


def read(root: Path) -> Dataset:
    """Scans of one subject are a group; cases of testing-images are test cases; the classes are those of ROAM."""
    cases: tuple[Case, ...] = ()
    orphans: list[Path] = []
    for folder, label_folder, split in _FOLDERS:
        images = scan_files(root / folder)
        files = scan_files(root / label_folder) if label_folder else {}
        labels = {re.sub(r"_(glm|seg)$", "", name): path for name, path in files.items()}
        orphans += [path for name, path in labels.items() if name not in images]
        found = (Case(name, (path,), labels.get(name), _subject(name), split) for name, path in images.items())
        cases = add_cases(cases, found, prefix=folder)
    dataset = Dataset(root, NAME, cases, channels=("T1",), orphan_labels=tuple(orphans))
    return choose_table(dataset, "roam28")


def _subject(name: str) -> str:
    """Empty where the name does not end in the number of a scan."""
    scan = re.fullmatch(r"(\d+)_\d+", name)
    return scan[1] if scan else ""
