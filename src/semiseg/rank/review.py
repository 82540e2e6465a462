"""The worst segmentations for people to correct: labels, uncertainty and image side by side, and a table to fill in."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from semiseg.data.corrections import RECORD, SHEET, read_record, read_sheet, voxel_hash
from semiseg.data.dataset import Case
from semiseg.data.images import new_scan, read_image, scan_ending, write_like
from semiseg.data.space import most_probable
from semiseg.devices import chosen_device
from semiseg.errors import InputError, SomeCasesFailed, UserError
from semiseg.files import replacing, write_json, write_text
from semiseg.manifest import MANIFEST, claim, file_hash, read_manifest, write_manifest
from semiseg.models.model import LoadedModel, weights_hash
from semiseg.prediction.cases import case_volumes
from semiseg.prediction.label_files import CLASS_TABLES, write_failures, write_tables
from semiseg.prediction.segment import models_and_cases
from semiseg.progress import say, track
from semiseg.rank.correlation import read_ranking
from semiseg.rank.scans import rank_with
from semiseg.runs.folder import RunFolder
from semiseg.tables import write_table

COLUMNS = ("number", "case", "label", "look_at", "estimated_dice", "equivariance_dice", "status", "who", "remark")
README = """Segmentations to correct, the least trusted first.

For each scan, in the order of the numbers:
  NNN_CASE.nii.gz              the segmentation: correct this file, and save it under the same name
  NNN_CASE_image...            the scan
  NNN_CASE_uncertainty.nii.gz  in bits: 0 is certain, 1 is as between two equally likely classes
review.csv says which structure is likely to be the worst (look_at).

3D Slicer: drag NNN_CASE_image and NNN_CASE_uncertainty into the window as volumes, and NNN_CASE.nii.gz as a
segmentation. Correct it in the module Segment Editor. Save: export the segmentation to a label map with the scan as
reference volume and labels.ctbl as colour table (module Segmentations, export to files, NIfTI, or export to a label map
and save that), over NNN_CASE.nii.gz.

ITK-SNAP: open NNN_CASE_image as main image, NNN_CASE_uncertainty.nii.gz as additional image, NNN_CASE.nii.gz as
segmentation, and labels.txt as label descriptions. Correct it; Segmentation, Save: over NNN_CASE.nii.gz.

Then, in review.csv, in the line of the scan:
  status  corrected (or nothing: a changed file counts as corrected), accepted (right as it was), or skip (do not use)
  who     your name or initials

To train on what you corrected and accepted, repeat the command that trained the model with another --out, and add
  --corrected {folder}

The values in the files are those of labels.json; use no others.
"""


@dataclass(frozen=True)
class Review:
    """Names of cases by what became of them, in the order of their numbers."""

    out: Path
    done: tuple[str, ...]
    kept: tuple[str, ...]
    """There already; their files were not touched."""
    left_out: tuple[str, ...]
    """Labelled, validation and test scans of the runs."""
    failed: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        return SomeCasesFailed.exit_code if self.failed else 0

    def text(self) -> str:
        """For the user."""
        left = [f"{len(self.left_out)} labelled, validation or test scans of the run left out"] * bool(self.left_out)
        failures = f", {len(self.failed)} failed (see failed.csv)" if self.failed else ""
        written = f"{self.out}: {len(self.done)} scans written, {len(self.kept)} already there{failures}"
        return "\n".join([*left, f"{written}; read README.txt there"])


def review_scans(
    models: Sequence[Path],
    scans: Sequence[Path],
    out: Path,
    *,
    count: int = 10,
    ranking: Path | None = None,
    only: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
) -> Review:
    """Write the `count` segmentations that are likely to be the worst for people to correct.

    Scans that a run in `models` has labels of, or tests on, are left out. ranking: a folder of `semiseg rank` with the
    same models; made in `out/ranking` unless given. only: as in `segment`. A second call adds scans that are not there,
    and touches no file that is. overwrite: write all anew, unless somebody has worked on them.

    Beside NNN_CASE.nii.gz (label values of the training data), NNN_CASE_image and NNN_CASE_uncertainty.nii.gz, all on
    the grid of the scan, lie labels.json, labels.txt, labels.ctbl, README.txt, review.csv (for people), review.json
    (for `train --corrected`) and manifest.json. A case that fails is listed in failed.csv and does not stop the others.

    Raises UserError for another review in `out`, or for work that `overwrite` would destroy; InputError if no scan is
    left, or the ranking is of other models or scans.
    """
    start, out = time.monotonic(), Path(out)
    if count < 1:
        raise UserError(f"--count: got {count}, expected at least 1; say how many scans you have time for")
    loaded, cases = models_and_cases(models, scans, only)
    known = _known(models)
    left_out = tuple(case.name for case in cases if case.name in known)
    cases = [case for case in cases if case.name not in known]
    if not cases:
        raise InputError(
            f"{scans[0]}: got only scans that the run has labels of, or tests on, expected others; name more scans"
        )
    claim(
        out,
        "review",
        (RECORD, SHEET, "README.txt", "failed.csv", *CLASS_TABLES),
        inputs=[path for case in cases for path in case.images],
        owned=(out / RECORD).exists(),
    )
    record = _earlier(out, [weights_hash(model) for model in loaded], overwrite)
    if ranking is None:
        ranking = out / "ranking"
        rank_with(models, loaded, cases, ranking, overwrite=overwrite, device=device)
    by_name = {case.name: case for case in cases}
    ranked = {name: rows for name, rows in _ranked(ranking, record["weights"]).items() if name in by_name}
    if not ranked:
        raise InputError(
            f"{ranking}: got a ranking of none of these scans, expected theirs; rank them, or leave it out"
        )
    target = chosen_device(device)
    for model in loaded:
        model.network.to(target)
    sheet = read_sheet(out)
    worst, done, failed = list(ranked)[:count], [], {}
    for name in track([name for name in worst if name not in record["cases"]], "Writing"):
        number = 1 + max((one["number"] for one in record["cases"].values()), default=0)
        try:
            written = _write_case(loaded, by_name[name], out, number, target)
        except InputError as error:
            failed[name] = str(error)
            say(f"{name}: failed: {error}")
            continue
        record["cases"][name] = written
        sheet[name] = _line(name, written, ranked[name])
        _write_sheet(out / SHEET, sheet)
        write_json(out / RECORD, record)  # at once and last: the next call keeps what is in it
        done.append(name)
    write_tables(out, loaded[0].plan.classes)
    write_text(out / "README.txt", README.format(folder=out))
    write_failures(out, failed)
    _write_manifest(out, record, by_name, loaded, time.monotonic() - start)
    kept = tuple(name for name in record["cases"] if name not in done)
    return Review(out, tuple(done), kept, left_out, failed)


def _known(models: Sequence[Path]) -> set[str]:
    """Names of the scans whose labels the runs have seen, or are scored by."""
    names: set[str] = set()
    for run in map(RunFolder, models):
        if run.config.exists() and run.splits.exists():
            split = run.read_splits()
            names.update((*split.train, *split.val, *split.test))
    return names


def _earlier(out: Path, weights: Sequence[str], overwrite: bool) -> dict[str, Any]:
    """The record of the review in `out`, to be added to; an empty one where there is none or it may be replaced."""
    fresh: dict[str, Any] = {"weights": list(weights), "cases": {}}
    if not (out / RECORD).exists():
        if (out / MANIFEST).exists():  # its files would be taken for new ones
            raise UserError(
                f"{out}: got no {RECORD}, expected a review or nothing; restore it, or choose another --out"
            )
        return fresh
    record = read_record(out)
    if overwrite:
        sheet = read_sheet(out)
        worked_on = [
            one["label"]
            for name, one in record["cases"].items()
            if sheet.get(name, {}).get("status") or _changed(out / one["label"], one["voxels"])
        ]
        if worked_on:
            raise UserError(
                f"{out}: got --overwrite, but {', '.join(worked_on)} were corrected or have a status, expected "
                "untouched files; choose another --out"
            )
        for one in record["cases"].values():
            for file in one["files"]:
                (out / file).unlink(missing_ok=True)
        for file in (SHEET, RECORD):
            (out / file).unlink(missing_ok=True)
        return fresh
    if record["weights"] != list(weights):
        raise UserError(
            f"{out}: got a review of other models, expected one of the same; choose another --out, so that nothing "
            "of it is lost"
        )
    return record


def _changed(label: Path, written: str) -> bool:
    return label.exists() and voxel_hash(label) != written


def _ranked(folder: Path, weights: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """Case to its rows of ranking.csv, worst case first."""
    made = read_manifest(folder)
    if made is None:
        raise InputError(f"{folder}: got no {MANIFEST}, expected what `semiseg rank` writes; check --ranking")
    by_case: dict[str, list[dict[str, str]]] = {}
    for row in read_ranking(folder / "ranking.csv", ("case", "class", "kind", "estimated_dice", "equivariance_dice")):
        by_case.setdefault(row["case"], []).append(row)
    if made.weights != tuple(weights):
        raise InputError(f"{folder}: got a ranking by other models, expected one by these; rank anew")
    return by_case


def _write_case(
    models: Sequence[LoadedModel], case: Case, out: Path, number: int, device: torch.device
) -> dict[str, Any]:
    """Write the files of one case; returns what review.json says of it. The label comes last."""
    stem = f"{number:03d}_{case.name}"
    label = out / f"{stem}.nii.gz"
    scan, volumes = case_volumes(models, case, device)
    uncertainty = np.zeros(scan.geometry.shape, np.float32)
    index = most_probable(_adding_entropy(volumes, uncertainty))
    class_values = np.array(list(models[0].plan.classes.values()))
    values = class_values[index]
    if scan_ending(case.images[0]) not in (".nii", ".nii.gz"):
        scan = new_scan(scan.array, scan.geometry.affine)
    if label.exists() and not np.array_equal(read_image(label).array, values):
        raise UserError(
            f"{label}: got a file that review.json does not know, expected none; move it away, or choose another --out"
        )
    images = [out / _image_name(stem, path, channel, len(case.images)) for channel, path in enumerate(case.images)]
    for path, copy in zip(case.images, images, strict=True):
        _copy_image(path, copy)
    certain = out / f"{stem}_uncertainty.nii.gz"
    most_bits = math.log2(len(class_values))  # all classes equally likely
    steps = np.rint(255 * (uncertainty / most_bits).clip(0, 1)).astype(np.uint8)
    write_like(certain, steps, scan, scale=most_bits / 255)
    write_like(label, values, scan)
    return {
        "number": number,
        "label": label.name,
        "voxels": voxel_hash(label),
        "images": [file_hash(path) for path in case.images],
        "files": [path.name for path in (*images, certain, label)],
    }


def _adding_entropy(
    volumes: Iterator[Float[np.ndarray, "x y z"]], total: Float[np.ndarray, "x y z"]
) -> Iterator[Float[np.ndarray, "x y z"]]:
    """Pass the probabilities on, and add their entropy in bits to `total`."""
    for volume in volumes:
        positive = np.maximum(volume, np.finfo(np.float32).tiny)
        total -= volume * np.log2(positive)
        yield volume


def _image_name(stem: str, path: Path, channel: int, channels: int) -> str:
    ending = scan_ending(path)
    which = f"_{channel:04d}" if channels > 1 else ""
    return f"{stem}_image{which}{ending if ending in ('.nii', '.nii.gz') else '.nii.gz'}"


def _copy_image(source: Path, target: Path) -> None:
    """The file itself; of a picture or an HDF5 file, the same voxels as NIfTI, which viewers of volumes read."""
    if scan_ending(source) in (".nii", ".nii.gz"):
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
    else:
        scan = read_image(source)
        write_like(target, scan.array, new_scan(scan.array, scan.geometry.affine))


def _line(name: str, written: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """A line of review.csv. rows: of the ranking."""
    mean = rows[0]
    by = "estimated_dice" if mean["estimated_dice"] else "equivariance_dice"
    scored = [(float(row[by]), row["class"]) for row in rows if row["kind"] != "mean" and row[by]]
    shown = {key: _rounded(mean[key]) for key in ("estimated_dice", "equivariance_dice")}
    look_at = min(scored)[1] if scored else ""
    line = {"number": str(written["number"]), "case": name, "label": written["label"], "look_at": look_at, **shown}
    return {**line, "status": "", "who": "", "remark": ""}


def _rounded(text: str) -> str:
    return f"{float(text):.3f}" if text and math.isfinite(float(text)) else ""


def _write_sheet(path: Path, sheet: Mapping[str, Mapping[str, str]]) -> None:
    write_table(path, COLUMNS, sheet.values())


def _write_manifest(
    out: Path, record: Mapping[str, Any], cases: Mapping[str, Case], models: Sequence[LoadedModel], duration_s: float
) -> None:
    images = [path for name in record["cases"] if name in cases for path in cases[name].images]
    files = [file for one in record["cases"].values() for file in one["files"]]
    tables = (*CLASS_TABLES, "README.txt", RECORD, SHEET)
    write_manifest(
        out, "review", images, [out / file for file in (*files, *tables) if (out / file).exists()], duration_s,
        models=[model.name for model in models], weights=record["weights"],
    )  # fmt: skip
