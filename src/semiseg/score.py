"""From a finished run to the scores of its own test scans, which no training saw."""

from __future__ import annotations

import json
from pathlib import Path

from semiseg.data.corrected import with_corrections
from semiseg.data.splits import Splits
from semiseg.errors import SomeCasesFailed, UserError
from semiseg.evaluate import Evaluation, evaluate_folder
from semiseg.experiment import RunSettings
from semiseg.model import load_model
from semiseg.predict import LoadedModel, predict_cases
from semiseg.run import RunFolder


def score_run(settings: RunSettings, out: Path, *, device: str = "auto", workers: int | None = None) -> Evaluation:
    """Segment the test scans of the run in `out` into `predictions`, and score them into `scores`, both inside it.

    Where validation scans chose another checkpoint than the last, that one's go to `predictions-last` and
    `scores-last`. Finished work is kept. Raises UserError for a run without test scans, SomeCasesFailed if one of them
    could not be segmented or scored.
    """
    folder, data = RunFolder(out), settings.data
    dataset = with_corrections(data.open(), data.corrected)
    cases = Splits.load(folder.splits, dataset).test
    if not cases:
        raise UserError("--score: got a run without test scans, expected some; ask for them with --test")
    evaluations = {}
    for ending, model in {**_last(folder), "": load_model(folder.path)}.items():  # the run's own scores complete it
        predictions, scores = folder.path / f"predictions{ending}", folder.path / f"scores{ending}"
        predict_cases([model], cases, predictions, device=device)
        evaluations[ending] = evaluate_folder(
            predictions,
            dataset.root,
            scores,
            classes=data.classes,
            cases=[case.name for case in cases],
            workers=workers or 1,
            overwrite=(scores / "failed.csv").exists(),  # what failed then may be there now
        )
        if evaluations[ending].failed:
            raise SomeCasesFailed(
                f"{scores}: got no scores for {', '.join(evaluations[ending].failed)}, expected them of all; "
                "see failed.csv there"
            )
    return evaluations[""]


def _last(folder: RunFolder) -> dict[str, LoadedModel]:
    """The last checkpoint, where an earlier one was chosen."""
    result = json.loads(folder.result.read_text(encoding="utf-8"))
    another = result["checkpoint"] == "best" and result["best"]["step"] != result["last"]["step"]
    return {"-last": load_model(folder.path, "last")} if another else {}
