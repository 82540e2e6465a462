"""Labels that come back from a review: which of them count, whose they are, and which scans they belong to."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from semiseg.data.dataset import Case, Correction, Dataset
from semiseg.data.facts import source_hash
from semiseg.data.images import read_label
from semiseg.data.splits import Splits
from semiseg.errors import InputError
from semiseg.files import read_json
from semiseg.settings import PlainName, ReadBack
from semiseg.tables import read_table

RECORD, SHEET = "review.json", "review.csv"
"""What `semiseg review` wrote, for programs; and the table that people fill in."""
STATUSES = ("corrected", "accepted", "skip")


def voxel_hash(path: Path) -> str:
    """Of shape and values of a label file, however it is compressed. InputError if it cannot be read."""
    array = np.ascontiguousarray(read_label(path).array)
    return hashlib.blake2b(str(array.shape).encode() + array.tobytes(), digest_size=16).hexdigest()


class _Reviewed(ReadBack):
    """What was written of one case. Names of files are plain: they are read, and removed, in the review's folder."""

    number: int
    label: PlainName
    voxels: str
    """Hash of the label as it was written."""
    images: list[str]
    files: list[PlainName]


class _Labelled(ReadBack):
    case: str
    hash: str


class _Provenance(ReadBack):
    rows: list[_Labelled]


class _Record(ReadBack):
    weights: list[str]
    cases: dict[str, _Reviewed]


def read_record(folder: Path) -> dict[str, Any]:
    """review.json of a review. Raises InputError where there is none, or it is damaged."""
    path = Path(folder) / RECORD
    expected, action = f"what `semiseg review --out {folder}` writes", "check the folder"
    return _Record.of(read_json(path, expected, action), str(path), expected, action).model_dump()


def read_sheet(folder: Path) -> dict[str, dict[str, str]]:
    """Case to row of review.csv, as spreadsheet programs save it (commas, semicolons or tabs); empty without one.

    Raises InputError for a table without the columns `case`, `status` and `who`, and for another status.
    """
    path = Path(folder) / SHEET
    if not path.exists():
        return {}
    needed, action = ("case", "status", "who"), "restore the first line, and save it as CSV in UTF-8"
    rows = read_table(path, needed, "the table of a review", action, by_hand=True)
    for row in rows:
        row["status"] = row["status"].strip().lower()
        if row["status"] not in ("", *STATUSES):
            raise InputError(
                f"{path}: got status {row['status']!r:.99} of {row['case']}, expected {', '.join(STATUSES)} or "
                "nothing; correct the table"
            )
    return {row["case"]: row for row in rows}


def read_corrections(folder: Path) -> list[Correction]:
    """Of a review: label files whose voxels differ from what was written, or that the table accepts; never `skip`.

    Raises InputError for a table or a label file that cannot be used, or a status that the file contradicts.
    """
    folder = Path(folder)
    sheet = read_sheet(folder)
    found = []
    for case, written in read_record(folder)["cases"].items():
        row = sheet.get(case, {})
        status, label = row.get("status", ""), folder / written["label"]
        if status == "skip" or (not label.exists() and not status):
            continue
        changed = voxel_hash(label) != written["voxels"]
        if status == "corrected" and not changed:
            raise InputError(
                f"{label}: got the label as it was written, expected another, as {SHEET} says `corrected`; "
                "save the correction under this name, or say `accepted`"
            )
        if changed or status:
            who = row.get("who", "").strip()
            kind: Literal["corrected", "accepted"] = "corrected" if changed else "accepted"
            found.append(Correction(case, tuple(written["images"]), label, kind, who, folder))
    return found


def with_corrections(dataset: Dataset, folders: Sequence[Path | str]) -> Dataset:
    """The dataset with the labels of all reviews in the place of its own.

    A case is found by its name if its image is the one reviewed, else by the image. A later folder wins over an
    earlier one. Raises InputError for a folder without any correction, and for a scan that the dataset lacks.
    """
    placed: dict[str, Correction] = {}
    for folder in folders:
        corrections = read_corrections(Path(folder))
        if not corrections:
            raise InputError(
                f"--corrected {folder}: got no corrected or accepted label, expected at least one; save corrections "
                f"over the files there, or say `accepted` in {SHEET}"
            )
        placed |= {_case_of(one, dataset): one for one in corrections}
    cases = tuple(
        replace(case, label=placed[case.name].label, split=None if case.split == "unlabelled" else case.split)
        if case.name in placed
        else case
        for case in dataset.cases
    )
    return replace(dataset, cases=cases, corrections=placed)


def correct_splits(splits: Splits, dataset: Dataset, usable: Collection[str]) -> Splits:
    """Corrected cases become labelled ones, beside those that were drawn; nothing else moves.

    dataset: with the corrections. usable: names of the cases without an error. Raises InputError if a corrected one is
    not among them, is a test or validation scan, belongs to the group of one, or is labelled already.
    """
    corrected = [case for case in dataset.cases if case.name in dataset.corrections]
    for case in corrected:
        if case.name not in usable:
            raise InputError(
                f"--corrected {case.label}: got a label that cannot be used with its scan, expected one on its grid "
                f"with known values; look at what `semiseg check` says of the scan, or say `skip` in {SHEET}"
            )
    for what, held in (("test", splits.test), ("validation", splits.val)):
        groups = {case.group_name for case in held}
        leaking = [case for case in corrected if case.group_name in groups]
        _refuse(leaking, f"of {what} scans (or of their patients), which would be trained on")
    labelled = {case.name for case in splits.labelled}
    _refuse([case for case in corrected if case.name in labelled], "of scans that have a label already")
    names = {case.name for case in corrected}
    reused = labelled & {case.name for case in splits.unlabelled}
    return replace(
        splits,
        labelled=(*splits.labelled, *corrected),
        unlabelled=tuple(case for case in splits.unlabelled if reused or case.name not in names),
    )


def provenance(splits: Splits, dataset: Dataset) -> list[dict[str, str]]:
    """Who labelled each labelled and validation case: from which file, with its hash; for a run's provenance.json."""
    rows = []
    for case in (*splits.labelled, *splits.val):
        assert case.label is not None
        row = {"case": case.name, "label": str(case.label), "hash": source_hash(case.label)}
        one = dataset.corrections.get(case.name)
        if one is None:
            rows.append({**row, "from": "dataset"})
        else:
            rows.append({**row, "from": one.status, "who": one.who or "not stated", "review": str(one.folder)})
    return rows


def refuse_changed(path: Path, now: Sequence[Mapping[str, str]]) -> None:
    """Raises InputError if other labels are used than when the run was begun. path: of its provenance.json."""
    if not path.exists():  # begun by a version that wrote none
        return
    expected, action = "the labels that the run was begun with", "restore it, or choose another --out"
    begun = _Provenance.of({"rows": read_json(path, expected, action)}, str(path), expected, action)
    before = {row.case: row.hash for row in begun.rows}
    others = sorted(before.keys() ^ {row["case"] for row in now})
    if others:
        raise InputError(
            f"{path.parent}: got splits.json with other labelled or validation scans ({', '.join(others):.300}) than "
            f"the run was begun with ({path.name}), expected the same; {action}"
        )
    changed = [row["label"] for row in now if before[row["case"]] != row["hash"]]
    if changed:
        raise InputError(
            f"{', '.join(changed)}: got other labels than the run was begun with ({path}), expected the same; "
            "restore them, or choose another --out"
        )


def _case_of(one: Correction, dataset: Dataset) -> str:
    """Hashes are remembered, and needed for preparation anyway."""
    named = [case for case in dataset.cases if case.name == one.case]
    for case in (*named, *dataset.cases):
        if len(case.images) == len(one.image_hashes) and _same_images(case, one):
            return case.name
    close = difflib.get_close_matches(one.case, [case.name for case in dataset.cases], n=1)
    hint = f"its scan {named[0].images[0]} is another" if named else f"closest name: {close[0]}" if close else "no such"
    raise InputError(
        f"--corrected {one.label}: got a label of a scan that is not among the {len(dataset.cases)} given ({hint}), "
        f"expected the scans that were reviewed; add them with --unlabelled, or say `skip` in {SHEET}"
    )


def _same_images(case: Case, one: Correction) -> bool:
    return all(
        path.is_file() and source_hash(path) == reviewed
        for path, reviewed in zip(case.images, one.image_hashes, strict=True)
    )


def _refuse(cases: Sequence[Case], why: str) -> None:
    if cases:
        names, files = (
            ", ".join(parts) for parts in zip(*((case.name, str(case.label)) for case in cases), strict=True)
        )
        raise InputError(
            f"--corrected: got corrections {why}: {names}, expected ones of unlabelled scans; "
            f"say `skip` for them in {SHEET} ({files})"
        )
