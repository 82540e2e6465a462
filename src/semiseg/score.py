"""From a finished run to the scores of its own test scans, which no training saw."""

from __future__ import annotations

from pathlib import Path

from semiseg.data.layouts import open_dataset
from semiseg.data.splits import Splits
from semiseg.errors import UserError
from semiseg.evaluate import Evaluation, evaluate_folder
from semiseg.experiment import RunSettings
from semiseg.model import load_model
from semiseg.predict import predict_cases
from semiseg.run import RunFolder


def score_run(settings: RunSettings, out: Path, *, device: str = "auto", workers: int | None = None) -> Evaluation:
    """Segment the test scans of the run in `out` into `predictions`, and score them into `scores`, both inside it.

    Finished work is kept. Raises UserError for a run without test scans.
    """
    folder = RunFolder(out)
    data = settings.data
    dataset = open_dataset(data.path, data.layout, data.unlabelled, data.channels)
    cases = Splits.load(folder.splits, dataset).test
    if not cases:
        raise UserError("--score: got a run without test scans, expected some; ask for them with --test")
    predict_cases([load_model(out)], cases, folder.path / "predictions", device=device)
    return evaluate_folder(
        folder.path / "predictions",
        Path(settings.data.path),
        folder.path / "scores",
        cases=[case.name for case in cases],
        workers=workers or 1,
    )
