"""A dataset as a list of cases: which files belong together, before any voxel is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from semiseg.errors import InputError
from semiseg.settings import is_text

LONGEST_NAME = 230
"""Bytes of a case's name: 255 that a file's may have, less `001_` and `_uncertainty.nii.gz`, the longest of what
is put around it."""


@dataclass(frozen=True)
class Case:
    """One scan. `images` holds one file per channel; `label` is None for an unlabelled scan.

    Raises InputError for names that files of results could not have, or hold.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    group: str = ""
    """Scans of one patient share a group and never part; empty means the case is a group of its own."""
    split: Literal["train", "val", "test", "unlabelled"] | None = None
    """Where the dataset itself puts the case, if it says so."""

    @property
    def group_name(self) -> str:
        return self.group or self.name

    def __post_init__(self) -> None:
        files = [*self.images, *([] if self.label is None else [self.label])]
        where = ascii(str(files[0] if files else self.name))
        for text in (self.name, self.group, *map(str, files)):
            if not is_text(text) or "\0" in text:
                raise InputError(
                    f"{where}: got the name {text!a}, expected text in UTF-8 without NUL; rename it (`convmv`)"
                )
        if len(self.name.encode()) > LONGEST_NAME:
            raise InputError(
                f"{where:.300}: got a case name of {len(self.name.encode())} bytes ({self.name[:40]!r}...), expected "
                f"at most {LONGEST_NAME}, as files of results are called after it; rename the scan"
            )


@dataclass(frozen=True)
class Correction:
    """A label of a review that a person has corrected, or found right as it was."""

    case: str
    """The scan's name at the time of the review."""
    image_hashes: tuple[str, ...]
    label: Path
    status: Literal["corrected", "accepted"]
    who: str
    """As the table of the review says; may be empty."""
    folder: Path


@dataclass(frozen=True)
class Dataset:
    """What a folder layout says: cases, and what is declared about channels and label values."""

    root: Path
    layout: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...] = ()
    """Names such as 'MRI' or 'CT', in channel order; empty if the dataset does not say."""
    classes: dict[str, int] | None = None
    """Name to value in the label files, background first; None if the dataset does not say."""
    relabel: dict[int, int] = field(default_factory=dict)
    """Further values in the label files, and the value of `classes` that each stands for."""
    other_is_background: bool = False
    """Values in the label files that are none of all these stand for the background."""
    table: str = ""
    """Of a set of classes whose numbering a label file has yet to tell: see `label_tables.numbered`."""
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Name to the values of `classes` that it unites."""
    ignore: int | None = None
    """Label value that means 'not annotated'."""
    channel_suffix: bool = False
    """True where image files end in _0000, _0001, ... (nnU-Net)."""
    corrections: dict[str, Correction] = field(default_factory=dict)
    """By case name: where a label is not the dataset's own."""
    orphan_labels: tuple[Path, ...] = ()
    """Label files without an image."""
    known: tuple[Path, ...] = ()
    """Further files that it was made of, or that a note is about."""
    notes: tuple[str, ...] = ()
    """What the reader of the layout wants the user to know."""
