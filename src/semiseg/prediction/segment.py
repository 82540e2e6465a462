"""From paths to segmentations: load models, find the scans, predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from semiseg.data.dataset import Case
from semiseg.data.dicom import refuse_dicom
from semiseg.data.layouts import open_inputs
from semiseg.data.layouts.listing import spacing_note
from semiseg.data.splits import SplitNames, refuse_twice
from semiseg.errors import InputError, UserError
from semiseg.jobs.shards import Shard
from semiseg.models.model import LoadedModel, load_model
from semiseg.prediction.cases import Predictions, predict_cases
from semiseg.prediction.look import Look
from semiseg.progress import say


def segment(
    models: Sequence[Path],
    scans: Sequence[Path],
    out: Path,
    *,
    only: Path | None = None,
    checkpoint: Literal["best", "last"] | None = None,
    probabilities: bool = False,
    tta: bool = False,
    keep_largest: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    overlay: Look | None = None,
    truth: Path | None = None,
    beside: Path | None = None,
    shard: Shard | None = None,
) -> Predictions:
    """Segment files, folders of images or datasets of any layout with one or more runs or models (averaged).

    only: a file of case names, one a line, or a run's splits.json, which means its test scans. checkpoint: of runs;
    default: their exported model. overlay: how the predictions are drawn into `out/overlays`, beside the labels in
    `truth` (or in scans that are datasets; they are opened after prediction only) and beside the predictions of the run
    or model `beside`, which go to `out/beside`; None: not at all. shard: only its cases; without one, what shards left
    in `out/shards` is put together. The rest as in `predict_cases`.

    Raises UserError for `truth` or `beside` without `overlay`, `overlay` of a shard or of a channel or window that
    is not there, or a `beside` of other classes.
    """
    if overlay and shard:
        raise UserError("--overlay: got it with --shard, expected one of them; draw when all shards are there")
    if not overlay and (truth or beside):
        flag = "--truth" if truth else "--beside"
        raise UserError(f"{flag}: got {truth or beside} without --overlay, expected both; add --overlay")
    if truth and not truth.exists():
        raise UserError(f"--truth: got {truth}, expected label files or a dataset; no such file or folder")
    loaded, cases = models_and_cases(models, scans, only, checkpoint)
    cases = shard.of(cases) if shard else cases
    if note := spacing_note(cases):
        say(note)
    if overlay:
        overlay.channel_of(loaded[0].plan)
    other = load_model(beside, checkpoint) if beside else None
    if other and list(other.plan.classes.items()) != list(loaded[0].plan.classes.items()):
        raise UserError(
            f"--beside {beside}: got classes {other.plan.classes}, expected {loaded[0].plan.classes} as in "
            f"{loaded[0].name}; show models of the same classes beside each other"
        )

    def predicted(with_models: Sequence[LoadedModel], folder: Path) -> Predictions:
        return predict_cases(
            with_models, cases, folder, probabilities=probabilities, tta=tta, keep_largest=keep_largest,
            overwrite=overwrite, device=device, describe_in=shard.folder(folder) if shard else None,
        )  # fmt: skip

    made = predicted(loaded, out)
    if other and beside:
        made = replace(made, failed={**predicted([other], out / "beside").failed, **made.failed})
    if overlay:
        from semiseg.prediction.overlays import (  # reads labels: never before the prediction is made
            draw_overlays,
            true_labels,
        )

        second = (_title([beside]), out / "beside") if beside else None
        draw_overlays(out, cases, loaded[0].plan, _title(models), true_labels(truth, scans), second, overlay)
    return made


def _title(models: Sequence[Path]) -> str:
    """The name of a run or model; RUN/model goes by the run's."""
    names = [path.resolve().parent.name if path.name == "model" else path.resolve().name for path in models]
    return " + ".join(names)


def models_and_cases(
    models: Sequence[Path], scans: Sequence[Path], only: Path | None, checkpoint: Literal["best", "last"] | None = None
) -> tuple[list[LoadedModel], list[Case]]:
    """The models, and the cases that the scans are for them. Arguments as in `segment`."""
    for path in models:
        if path.is_file():  # of several files without a known ending, all but the last are taken for models
            refuse_dicom(path)
    loaded = [load_model(path, checkpoint) for path in models]
    plan = loaded[0].plan
    # several channels can only be told apart by their suffixes, whatever layout the model was trained from
    suffix = plan.channel_suffix if len(plan.channels) == 1 else None
    cases = open_inputs(scans, len(plan.channels), suffix, plan.channels)
    return loaded, cases if only is None else _chosen(cases, only)


def _names(only: Path) -> Sequence[str]:
    if only.suffix == ".json":
        return SplitNames.load(only).test
    try:
        lines = [line.strip() for line in only.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--cases {only}: got {error}, expected case names, one a line, or a run's splits.json; check the path"
        ) from None
    return [line for line in lines if line]


def _chosen(cases: Sequence[Case], only: Path) -> list[Case]:
    names = _names(only)
    refuse_twice(names, f"--cases {only}")
    by_name = {case.name: case for case in cases}
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        raise InputError(
            f"--cases {only}: got {', '.join(unknown) or 'no names'}, expected names of the {len(cases)} scans given; "
            "name the dataset that the list was made for"
        )
    return [by_name[name] for name in names]
