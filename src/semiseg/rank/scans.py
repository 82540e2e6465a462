"""From runs to a ranking: what a run knows besides its weights is its other network, volumes and validation scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from semiseg.data.dataset import Case
from semiseg.devices import chosen_device
from semiseg.errors import UserError
from semiseg.evaluation.evaluate import evaluate_folder
from semiseg.experiments.run_settings import DataConfig
from semiseg.models.model import LoadedModel, load_teacher_and_student, model_facts, weights_hash
from semiseg.models.volumes import Volume
from semiseg.prediction.cases import predict_cases
from semiseg.prediction.segment import models_and_cases
from semiseg.progress import say
from semiseg.rank.calibration import FEWEST_SCANS, Calibration, Point, leave_one_out
from semiseg.rank.ranking import Ranking, Transforms, rank_cases
from semiseg.runs.contents import read_scores
from semiseg.runs.folder import METRICS, RunFolder
from semiseg.settings import ReadBack

CALIBRATION = "calibration"
"""Folder inside the ranking's: predictions, scores and ranking of the validation scans."""


class _Facts(ReadBack):
    """Of a model's description."""

    volumes: list[Volume] = Field(default_factory=list)


def rank_scans(
    models: Sequence[Path],
    scans: Sequence[Path],
    out: Path,
    *,
    only: Path | None = None,
    transforms: Path | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    device: str = "auto",
) -> Ranking:
    """Rank files, folders of images or datasets with one or more runs or models (averaged).

    only: as in `segment`. transforms: the transforms.json of another ranking, instead of `seed` (default 0): two models
    are compared under equal transformations. The rest as in `rank_with`.
    """
    if transforms is not None and seed is not None:
        raise UserError(f"--seed: got {seed} beside --transforms {transforms}, expected one of the two; leave one out")
    drawn_from = Transforms.load(transforms) if transforms is not None else Transforms(seed=seed or 0)
    loaded, cases = models_and_cases(models, scans, only)
    return rank_with(models, loaded, cases, out, transforms=drawn_from, overwrite=overwrite, device=device)


def rank_with(
    paths: Sequence[Path],
    models: Sequence[LoadedModel],
    cases: Sequence[Case],
    out: Path,
    *,
    transforms: Transforms | None = None,
    overwrite: bool = False,
    device: str = "auto",
) -> Ranking:
    """`rank_cases` with what the runs in `paths`, of which `models` were loaded, know.

    Of a single run with an averaged network, teacher and student are compared. The volumes of labels are those of the
    first model that has them. Where all paths are runs, their common validation scans are segmented, scored and ranked
    in `out/calibration`, and the Dice of every case is estimated from its scores as theirs teach; where that cannot be
    done, summary.json and the text say why.
    """
    chosen_device(device)  # a mistake is told once, not for the validation scans first
    transforms = transforms or Transforms()
    compared = _compared(paths, models)
    volumes = next((found for found in map(volumes_of, paths) if found), [])
    try:
        points = _calibration_points(paths, models, compared, Path(out), transforms, overwrite, device)
    except UserError as error:
        say(f"no estimate of the Dice: {error}")
        points = []
        reason = f"the validation scans could not be used ({error})"
    else:
        reason = f"got {len({point.case for point in points})} validation scans, expected at least {FEWEST_SCANS}"
    calibration, estimate = _calibrated(points, reason)
    return rank_cases(
        models, cases, out, transforms=transforms, overwrite=overwrite, device=device, compared=compared,
        volumes=volumes, calibration=calibration, estimate=estimate,
    )  # fmt: skip


def _compared(paths: Sequence[Path], models: Sequence[LoadedModel]) -> list[LoadedModel]:
    if len(paths) != 1:
        return []
    found = load_teacher_and_student(paths[0])
    if found is None:
        return []
    teacher, student = found
    # most runs export their last teacher: the same network need not run twice
    return [models[0] if weights_hash(teacher) == weights_hash(models[0]) else teacher, student]


def volumes_of(path: Path) -> list[Volume]:
    """Of the scans with labels that a run or model learned from; none where its description has none."""
    expected, action = "volumes as training writes them", "export the model again"
    return _Facts.of(model_facts(path), f"{path}: model.json", expected, action).volumes


def _calibration_points(
    paths: Sequence[Path],
    models: Sequence[LoadedModel],
    compared: Sequence[LoadedModel],
    out: Path,
    transforms: Transforms,
    overwrite: bool,
    device: str,
) -> list[Point]:
    """What each structure of each validation scan scores without its label, and its true Dice; none without scans."""
    data, cases = _validation_scans(paths)
    if len(cases) < FEWEST_SCANS:
        return []
    folder, names = out / CALIBRATION, [case.name for case in cases]
    unlabelled = [replace(case, label=None) for case in cases]
    ranking = rank_cases(
        models, unlabelled, folder / "ranking", transforms=transforms, overwrite=overwrite, device=device,
        compared=compared,
    )  # fmt: skip
    predict_cases(models, unlabelled, folder / "predictions", overwrite=overwrite, device=device)
    evaluate_folder(folder / "predictions", data.open(), folder / "scores", cases=names, overwrite=overwrite)
    scored = read_scores(folder / "scores" / METRICS)
    true = {(score.case, *score.structure): score.dice for score in scored if score.state == "ok"}
    points = []
    for row in ranking.rows:
        dice = true.get((row["case"], row["class"], row["kind"], frozenset(row["value"].split("+"))))
        if dice is not None and row["volume_ml"]:
            points.append(Point(row["case"], row, dice))
    return points


def _validation_scans(paths: Sequence[Path]) -> tuple[DataConfig, list[Case]]:
    """Those that every run held out for validation, with the data settings of the first; none unless all are runs."""
    runs = [RunFolder(path) for path in paths]
    if not all(run.config.exists() and run.splits.exists() for run in runs):
        return DataConfig(path=""), []
    data = DataConfig.parse(runs[0].read_config()["data"], where=f"{runs[0].config}: data")
    common = set.intersection(*(set(run.read_splits().val) for run in runs))
    if len(common) < FEWEST_SCANS:
        return data, []
    return data, [case for case in data.open().cases if case.name in common and case.label is not None]


def _calibrated(points: Sequence[Point], reason: str) -> tuple[Calibration | None, Mapping[str, Any]]:
    scans = len({point.case for point in points})
    if scans < FEWEST_SCANS:
        return None, {"calibrated": False, "note": f"no estimate of the Dice: {reason}"}
    errors = leave_one_out(points)
    of_scans = errors["scans"]
    rho = "-" if of_scans["rho"] is None else f"{of_scans['rho']:.2f}"
    note = (
        f"Dice estimated from {scans} validation scans; left out in turn, they were missed by {of_scans['mae']:.3f} on "
        f"average (their mean would miss by {of_scans['mae_of_mean']:.3f}; rho {rho}, n = {of_scans['n']})"
    )
    fitted = Calibration.fit(points)
    return fitted, {"calibrated": True, "note": note, "coefficients": dict(fitted.coefficients), **errors}
