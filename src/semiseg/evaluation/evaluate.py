"""Predictions against labels: one row per case and class, and a summary.

What every column and every mean stands for is written in docs/metrics.md.
"""

from __future__ import annotations

import difflib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from semiseg.data.dataset import Dataset
from semiseg.data.dicom import refuse_dicom
from semiseg.data.images import read_label
from semiseg.data.label_tables import apply_table
from semiseg.data.label_values import LabelValue, is_label_value
from semiseg.data.layouts.listing import scan_files
from semiseg.data.structures import structures
from semiseg.errors import InputError, SomeCasesFailed, UserError
from semiseg.evaluation.case import Task, score_case
from semiseg.evaluation.parts import read_parts, write_part
from semiseg.evaluation.summary import DISTANCES, ScoredCase, Tally
from semiseg.evaluation.truth import as_predicted, open_labels
from semiseg.files import read_json, write_json
from semiseg.jobs.shards import Shard, shards_folder
from semiseg.manifest import MANIFEST, begin_anew, claim, file_hashes, json_hash, settle, write_manifest
from semiseg.processes import each
from semiseg.progress import say
from semiseg.settings import ReadBack, shown
from semiseg.tables import table_writer, write_table

COLUMNS = (
    *("case", "class", "value", "kind", "state", "dice", "iou", *DISTANCES, "surface_dice", "tolerance_mm"),
    *("prediction_ml", "truth_ml", "difference_ml", "in_truth", "in_prediction", "dice_brats"),
    *("false_positive_ml", "far_ml"),
)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_folder` wrote to `out`; `summary` is the content of summary.json."""

    out: Path
    summary: dict[str, Any]
    skipped: bool = False
    """True where `out` held the result already, from the same files and settings."""

    @property
    def failed(self) -> tuple[str, ...]:
        """Cases without a prediction, or whose files could not be compared; failed.csv says why."""
        return tuple(failure["case"] for failure in self.summary["failed"])

    @property
    def exit_code(self) -> int:
        return SomeCasesFailed.exit_code if self.failed else 0


def evaluate_folder(
    predictions: Path,
    labels: Path | Dataset,
    out: Path,
    *,
    classes: Mapping[str, int] | str | None = None,
    ignore: int | None = None,
    tolerance_mm: float = 1.0,
    workers: int = 1,
    cases: Sequence[str] | None = None,
    overwrite: bool = False,
    shard: Shard | None = None,
) -> Evaluation:
    """Score the files CASE.nii.gz in `predictions`; write metrics.csv, summary.json, manifest.json to `out`.

    labels: a folder of label files CASE.nii.gz, or a dataset in any layout, opened or not.
    classes: name to value; the background (value 0) is never scored. Default: labels.json beside the
        predictions, else what the dataset declares, else every value found in any file, named by its number.
        Or a name or file as in training (`apply_table`): how to read the values in `labels`. Without it, labels
        that declare no classes are read as those that the model was trained on; see `as_predicted`.
    ignore: true voxels of this value are left out of both masks. Default: what the dataset declares.
    tolerance_mm: for the surface Dice. workers: processes to share the cases out over; with more than one, a
        script that calls this must do so under `if __name__ == "__main__":`, as these processes import it.
    cases: which to score. Default: those that the predictions' manifest.json lists as "requested", else all
        that have a label. One without a prediction gets Dice 0 and state `missing`; one whose files differ in
        grid or cannot be read is not scored; both are in `failed` and failed.csv, and make `exit_code` 4.
    overwrite: replace an evaluation of other files or settings. One of the same is not computed again.
    shard: score only its cases, into `out/shards`; without one, the scores that are there are put together.

    Raises InputError if no case can be scored at all, and UserError for an argument that makes no sense.
    """
    started = time.perf_counter()
    predictions, out = Path(predictions), Path(out)
    if not 0 <= tolerance_mm < np.inf:
        raise UserError(f"tolerance_mm: got {tolerance_mm}, expected a length of 0 mm or more; 1.0 is usual")
    predicted = _predicted_files(predictions)
    truth = open_labels(labels if isinstance(labels, Dataset) else Path(labels))
    labels = truth.root
    if isinstance(classes, str):
        truth, classes = apply_table(truth, classes), None
    files = {case.name: case.label for case in truth.cases if case.label is not None}
    if out.resolve() in (predictions.resolve(), labels.resolve()):
        raise UserError(f"{out}: got a folder of the input as --out, expected another; try {out / 'scores'}")
    selected = _select(cases, predictions, predicted, labels, files)
    ignore = truth.ignore if ignore is None else ignore
    named = _named_classes(classes, predictions, truth.classes, ignore)
    truth, regions, notes = as_predicted(truth, named or {}, _left(predictions).labels.model_dump())
    meaning = replace(truth, cases=(), ignore=ignore)
    pairs = [(case, predicted.get(case), files[case]) for case in selected]
    inputs = [path for _, *paths in pairs for path in paths if path is not None]
    settings = {
        "classes": named,
        "regions": {name: list(values) for name, values in regions.items()},
        "relabel": {str(value): meant for value, meant in meaning.relabel.items()},
        "other_is_background": meaning.other_is_background,
        "ignore": ignore,
        "tolerance_mm": tolerance_mm,
        "cases": selected,
    }
    earlier = None if shard else _earlier_result(out, inputs, settings, overwrite)
    if earlier is not None:
        settle(out)
        shutil.rmtree(shards_folder(out), ignore_errors=True)
        return earlier
    claim(out, "evaluate", ("metrics.csv", "summary.json", "failed.csv"), inputs=inputs)
    if not shard:
        begin_anew(out, "evaluate")
        (out / "failed.csv").unlink(missing_ok=True)

    named = named or _found_classes(inputs, labels, ignore, workers)
    wanted = structures(named, regions)
    tasks = [Task(*pair, wanted, meaning, tolerance_mm) for pair in pairs]
    tally = Tally(named, regions)
    tally.notes += notes
    files_of = {case: [path for path in paths if path is not None] for case, *paths in pairs}
    if shard:
        own = list(each(score_case, shard.of(tasks), "Scoring", workers))
        for scored in own:
            _tell(scored)
            tally.add(scored)
        write_part(out, shard, settings, own, files_of)
        return Evaluation(out, tally.summary())
    parts = read_parts(out, settings, files_of)
    missing = each(score_case, [task for task in tasks if task.case not in parts], "Scoring", workers)
    with table_writer(out / "metrics.csv", COLUMNS) as write:
        for task in tasks:
            scored = parts[task.case] if task.case in parts else next(missing)
            for row in scored.rows:
                write(row)
            _tell(scored)
            tally.add(scored)
        next(missing, None)  # to its end: it may hold processes
    unscored = [case for case in predicted if case not in files and not _is_probability(case, predicted)]
    summary = {**tally.summary(), "unscored": unscored, "tolerance_mm": tolerance_mm, "ignore": ignore}
    write_json(out / "summary.json", summary)
    outputs = ["metrics.csv", "summary.json"]
    if tally.failed:
        outputs.append("failed.csv")
        write_table(out / "failed.csv", ("case", "state", "message"), tally.failed)
    duration_s = time.perf_counter() - started
    write_manifest(
        out, "evaluate", inputs, map(Path, outputs), duration_s, settings=settings, summary=json_hash(summary)
    )
    shutil.rmtree(shards_folder(out), ignore_errors=True)
    return Evaluation(out, summary)


# Which files belong together, and what their values mean.


class _Meaning(ReadBack):
    """What `predict` left about label values: see `as_predicted`."""

    relabel: dict[LabelValue, LabelValue] = Field(default_factory=dict)
    other_is_background: bool = False
    regions: dict[str, Annotated[tuple[LabelValue, ...], Field(min_length=1)]] = Field(default_factory=dict)


class _Left(ReadBack):
    """What `predict` left about a folder of predictions."""

    requested: tuple[str, ...] | None = None
    """Cases that were to be predicted."""
    labels: _Meaning = _Meaning()


def _left(predictions: Path) -> _Left:
    path = predictions / MANIFEST
    return _Left.of(_read_json(path), str(path), "the manifest of predictions", "remove it, or predict anew")


def _predicted_files(predictions: Path) -> dict[str, Path]:
    if not predictions.is_dir():
        raise InputError(f"{predictions}: got no such folder, expected one with CASE.nii.gz; check PREDICTIONS")
    files = scan_files(predictions)
    if not files:
        refuse_dicom(predictions)
    return files


def _is_probability(name: str, predicted: Mapping[str, Path]) -> bool:
    return name.endswith("_prob") and name.removesuffix("_prob") in predicted


def _select(
    cases: Sequence[str] | None,
    predictions: Path,
    predicted: Mapping[str, Path],
    labels: Path,
    files: Mapping[str, Path],
) -> list[str]:
    if cases is None:
        requested = _left(predictions).requested
        selected = sorted(files) if requested is None else [case for case in requested if case in files]
    else:
        selected = list(dict.fromkeys(cases))
        for case in selected:
            if case not in files:
                close = difflib.get_close_matches(case, files, n=1)
                hint = f"did you mean {close[0]}?" if close else "check the list of cases"
                raise InputError(f"cases: got {case}, expected a case with a label in {labels}; {hint}")
    if not any(case in predicted for case in selected):
        example = next(iter(selected or files))
        raise InputError(
            f"{predictions}: got {len(predicted)} predictions, none of them for a labelled case, "
            f"expected names as in {labels} such as {example}.nii.gz; check both folders"
        )
    return selected


def _named_classes(
    given: Mapping[str, int] | None, predictions: Path, declared: Mapping[str, int] | None, ignore: int | None
) -> dict[str, int] | None:
    """The foreground classes, or None where nobody names any."""
    beside = predictions / "labels.json"
    if given is not None:
        where, named = "classes", given
    elif beside.exists():
        where, named = str(beside), _read_json(beside)
    elif declared is not None:
        where, named = "dataset.json", declared
    else:
        return None
    values = list(named.values())
    if not all(map(is_label_value, values)) or len(set(values)) < len(values):
        raise InputError(
            f"{where}: got {shown(dict(named))}, expected a whole number per class, each once, of 32 bits; edit it"
        )
    foreground = {
        name: value for name, value in named.items() if value not in (0, ignore) and name.lower() != "background"
    }
    if not foreground:
        raise InputError(f"{where}: got {shown(dict(named))}, expected a class besides the background; name one")
    return foreground


def _found_classes(inputs: Sequence[Path], labels: Path, ignore: int | None, workers: int) -> dict[str, int]:
    found = set[int]().union(*each(_values, inputs, "Finding classes", workers)) - {0, ignore}
    if not found:
        raise InputError(f"{labels}: got only background, expected a value above 0; check the labels")
    return {str(value): value for value in sorted(found)}


def _values(path: Path) -> set[int]:
    try:
        return set(np.unique(read_label(path).array).tolist())
    except InputError:  # reported when the case is scored
        return set()


def _read_json(path: Path) -> dict[str, Any]:
    """An empty dictionary where there is no file."""
    if not path.exists():
        return {}
    value = read_json(path, "JSON", "remove the file or write it again")
    if not isinstance(value, dict):
        raise InputError(f"{path}: got a {type(value).__name__}, expected a JSON object; write it again")
    return value


def _earlier_result(
    out: Path, inputs: Sequence[Path], settings: Mapping[str, Any], overwrite: bool
) -> Evaluation | None:
    """What `out` holds, if made from the same files and settings; else None."""
    manifest = _read_json(out / MANIFEST)
    if manifest.get("command") == "evaluate" and not overwrite:
        now = {"version": version("semiseg"), "settings": settings, "inputs": file_hashes(inputs)}
        if any(manifest.get(key) != value for key, value in now.items()):
            raise UserError(
                f"{out}: got an evaluation of other files or settings, expected one of the same; "
                "pass --overwrite to replace it, or choose another --out"
            )
        summary = _read_json(out / "summary.json")
        if manifest.get("summary") == json_hash(summary) and (out / "metrics.csv").exists():  # else it is made anew
            return Evaluation(out, summary, skipped=True)
    return None


def _tell(scored: ScoredCase) -> None:
    if scored.state != "ok":
        say(f"{scored.case}: {scored.state}: {scored.message}")
