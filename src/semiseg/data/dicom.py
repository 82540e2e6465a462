"""DICOM is not read: it is recognised, so that a user is told how to convert it."""

from __future__ import annotations

import os
import shlex
from itertools import islice
from pathlib import Path

from semiseg.errors import InputError

FOLDERS, FILES = 200, 8
"""Most folders that are looked into, and files that are opened in each: of a series, all are DICOM."""
_PREAMBLE = 128
"""Bytes of any content before the four letters that make a file DICOM (PS3.10, 7.1)."""


def refuse_dicom(place: Path) -> None:
    """Raises InputError, with the command that converts it, for a DICOM file or a folder that holds some.

    Names of files mean nothing: many have no ending. Only a few files are opened.
    """
    if not (_is_dicom(place) if place.is_file() else _holds_dicom(place)):
        return
    folder = shlex.quote(str(place.parent if place.is_file() else place))
    raise InputError(
        f"{place}: got DICOM files, expected NIfTI; convert each series with dcm2niix (pip install dcm2niix; "
        f"mkdir -p NIFTI_FOLDER/images; dcm2niix -z y -f %s_%d -o NIFTI_FOLDER/images {folder}) and give NIFTI_FOLDER"
    )


def _holds_dicom(folder: Path) -> bool:
    for place, below, files in islice(os.walk(folder), FOLDERS):
        below[:] = sorted(name for name in below if not name.startswith("."))
        names = sorted(name for name in files if not name.startswith("."))
        if "DICOMDIR" in map(str.upper, names):  # of a disc, among viewers and what else is on it
            return True
        if any(_is_dicom(Path(place) / name) for name in names[:FILES]):
            return True
    return False


def _is_dicom(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:
        return False
