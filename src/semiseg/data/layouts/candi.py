"""Child and Adolescent NeuroDevelopment Initiative (CANDI): folders of groups, then of subjects, CMA label numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from semiseg.data.dataset import Case, Dataset
from semiseg.data.label_tables import FREESURFER, with_table
from semiseg.data.layouts.listing import folders_below, scan_files

NAME = "candi"
looks_for = "GROUP/SUBJECT/SUBJECT_procimg.nii.gz and GROUP/SUBJECT/SUBJECT_seg.nii.gz"


def fits(root: Path) -> bool:
    return any(_cases(root))


def read(root: Path) -> Dataset:
    """A case for each subject, with the classes of ROAM."""
    return with_table(Dataset(root, NAME, tuple(_cases(root)), channels=("T1",)), FREESURFER, True)


def _cases(root: Path) -> Iterator[Case]:
    for folder in folders_below(root, depth=3):
        name = folder.name
        if any((folder / f"{name}_procimg{ending}").is_file() for ending in (".nii.gz", ".nii")):
            files = scan_files(folder)
            yield Case(name, (files[f"{name}_procimg"],), files.get(f"{name}_seg"))
