"""What a round's model guesses of the unlabelled scans, and which of it the next round learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from semiseg.colours import value_colours
from semiseg.data.dataset import Case
from semiseg.data.images import Scan, read_label, write_like
from semiseg.data.prepare import index_map
from semiseg.data.space import most_probable
from semiseg.data.splits import Splits
from semiseg.devices import chosen_device
from semiseg.errors import InputError
from semiseg.experiments.pseudo_labels import COLUMNS, TABLE, ignore_value, to_guess
from semiseg.experiments.run_settings import StudentConfig
from semiseg.files import write_json
from semiseg.models.model import LoadedModel, load_model
from semiseg.prediction.cases import case_volumes
from semiseg.prediction.label_files import label_file, write_tables
from semiseg.progress import say, track
from semiseg.rank.ranking import rank_cases
from semiseg.rank.scans import volumes_of
from semiseg.rank.scores import Row
from semiseg.rounds.threshold import LEVELS, Threshold, smallest_threshold, tally
from semiseg.runs.folder import RunFolder
from semiseg.tables import write_table
from semiseg.types import IGNORE

NOT_SURE = "not sure"
"""In the tables of classes beside pseudo-labels."""


def write_pseudo_labels(teacher: RunFolder, splits: Splits, config: StudentConfig, device: str) -> Path:
    """Segment every unlabelled scan with a finished run's model, into `pseudo` in its folder, which is returned.

    There is a label map of each on its own grid, in the dataset's values, with `ignore_value` where the model is not
    sure; beside them lie tables of the classes and, written last, TABLE. What is not sure, threshold.json in the run's
    folder says; the scores of the scans are in `ranking` there. Nothing is done where TABLE is there.
    """
    out = teacher.path / "pseudo"
    if (out / TABLE).exists():
        return out
    target, model, cases = chosen_device(device), load_model(teacher.path), to_guess(splits)
    model.network.to(target)
    threshold = _threshold(model, splits.val, config, target, teacher.path / "threshold.json")
    doubts = _doubts(teacher, model, cases, config, device)
    values, ignore = np.array(list(model.plan.classes.values())), ignore_value(model.plan)
    classes = {**model.plan.classes, NOT_SURE: ignore}
    rows: list[dict[str, Any]] = []
    for case in track(cases, "Guessing"):
        try:
            scan, index, confidence = guess(model, case, target, tta=config.tta)
        except InputError as error:
            rows.append({"case": case.name, "used": "no", "reason": str(error), "kept": None})
            continue
        sure = confidence >= np.float32(threshold)
        write_like(label_file(out, case), np.where(sure, values[index], ignore), scan, colours=value_colours(classes))
        reason = doubts.get(case.name) or ("" if sure.any() else "no voxel is sure")
        used = "no" if reason else "yes"
        rows.append({"case": case.name, "used": used, "reason": reason, "kept": round(float(sure.mean()), 6)})
    write_tables(out, classes)
    write_table(out / TABLE, COLUMNS, rows)
    return out


def guess(
    model: LoadedModel, case: Case, device: torch.device, *, tta: bool = False
) -> tuple[Scan, Int[np.ndarray, "x y z"], Float[np.ndarray, "x y z"]]:
    """The first file of a case, and on its grid the index of the most probable class and that class's probability."""
    scan, volumes = case_volumes([model], case, device, tta=tta)
    confidence = np.zeros(scan.geometry.shape, np.float32)

    def seen() -> Iterator[Float[np.ndarray, "x y z"]]:
        for volume in volumes:
            np.maximum(confidence, volume, out=confidence)
            yield volume

    return scan, most_probable(seen()), confidence


def _threshold(
    model: LoadedModel, validation: Sequence[Case], config: StudentConfig, device: torch.device, path: Path
) -> float:
    """Written to `path`, with why."""
    counts = sum(
        (_tally(model, case, config, device) for case in track(validation, "Guessing validation scans")),
        start=np.zeros((2, len(LEVELS)), np.int64),
    )
    if not counts[0].any():
        none = "no validation scans" if not validation else "no such guess on the validation scans"
        chosen, why = Threshold(config.threshold), f"{none}: student.threshold"
    else:
        chosen = smallest_threshold(counts, config.precision)
        assert chosen.precision is not None
        share = f"{config.precision:g} of {config.precision_of} guesses on the validation scans are right"
        enough = chosen.precision >= config.precision
        why = (
            f"the smallest from which on {share}"
            if enough
            else f"the most precise ({chosen.precision:.3f}), as there is none from which on {share}"
        )
    say(f"{path.parent}: learns from guesses with a probability of {chosen.value:g} or more: {why}")
    facts: dict[str, Any] = {
        "threshold": chosen.value,
        "why": why,
        "precision": chosen.precision,
        "kept": chosen.kept,
        "validation": [case.name for case in validation],
        "tta": config.tta,
    }
    write_json(path, facts)
    return chosen.value


def _tally(model: LoadedModel, case: Case, config: StudentConfig, device: torch.device) -> Int[np.ndarray, "2 levels"]:
    """Over the annotated voxels of a scan with a label."""
    assert case.label is not None
    _, index, confidence = guess(model, case, device, tta=config.tta)
    truth = index_map(case.label, read_label(case.label).array, model.plan)
    counted = (truth != IGNORE) & ((index > 0) | (config.precision_of == "all"))
    return tally(confidence[counted], (index == truth)[counted])


def _doubts(
    teacher: RunFolder, model: LoadedModel, cases: Sequence[Case], config: StudentConfig, device: str
) -> dict[str, str]:
    """Name to the reason why a scan is left out, by its scores."""
    ranking = rank_cases([model], cases, teacher.path / "ranking", device=device, volumes=volumes_of(teacher.path))
    rows: dict[str, list[Row]] = {}
    for row in ranking.rows:
        rows.setdefault(row["case"], []).append(row)
    found = {name: _doubt(of_case, config) for name, of_case in rows.items()}
    return {**ranking.failed, **{name: reason for name, reason in found.items() if reason}}


def _doubt(rows: Sequence[Mapping[str, Any]], config: StudentConfig) -> str:
    """Of one scan, the row of the mean first; empty where there is none."""
    dice = rows[0]["equivariance_dice"]
    if (dice or 0.0) < config.lowest_dice:
        return "unsure: no class found" if dice is None else f"unsure: equivariance Dice {dice:.3f}"
    for row in rows:
        if config.largest_z is not None and abs(row["volume_z"] or 0) > config.largest_z:
            return f"implausible: volume of {row['class']} {row['volume_z']:+.1f} deviations from those with labels"
    return ""
