"""Internet Brain Segmentation Repository (IBSR), second version: a folder for each subject, CMA label numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from semiseg.data.dataset import Case, Dataset
from semiseg.data.label_tables import FREESURFER, with_table
from semiseg.data.layouts.listing import folders_below, scan_files

NAME = "ibsr"
looks_for = "IBSR_01/IBSR_01_ana.nii.gz (or _ana_strip) and IBSR_01/IBSR_01_seg_ana.nii.gz"


def fits(root: Path) -> bool:
    return any(_cases(root))


def read(root: Path) -> Dataset:
    """A case for each subject, with the classes of ROAM; the whole head where it is there stripped as well."""
    return with_table(Dataset(root, NAME, tuple(_cases(root)), channels=("T1",)), FREESURFER, True)


def _cases(root: Path) -> Iterator[Case]:
    for folder in folders_below(root, depth=2):
        if folder.name.startswith("IBSR_"):
            files, name = scan_files(folder), folder.name
            image = files.get(f"{name}_ana", files.get(f"{name}_ana_strip"))
            if image is not None:
                yield Case(name, (image,), files.get(f"{name}_seg_ana"))
