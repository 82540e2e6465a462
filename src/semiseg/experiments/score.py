"""From a finished run to the scores of its own test scans, which no training saw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from semiseg.data.corrections import with_corrections
from semiseg.data.splits import Splits
from semiseg.errors import SomeCasesFailed, UserError
from semiseg.evaluation.evaluate import Evaluation, evaluate_folder
from semiseg.models.model import LoadedModel, load_model
from semiseg.prediction.cases import predict_cases
from semiseg.runs.folder import RunFolder

if TYPE_CHECKING:
    from semiseg.experiments.run_settings import RunSettings


def score_run(settings: RunSettings, out: Path, *, device: str = "auto", workers: int | None = None) -> Evaluation:
    """Segment the test scans of the run in `out` into `predictions`, and score them into `scores`, both inside it.

    Where validation scans chose another checkpoint than the last, that one's go to `predictions-last` and
    `scores-last`. Test scans without a label are segmented, and not scored. Finished work is kept. Raises UserError for
    a run without labelled test scans, SomeCasesFailed if one of them could not be segmented or scored.
    """
    folder, data = RunFolder(out), settings.data
    dataset = with_corrections(data.open(), data.corrected)
    splits = Splits.load(folder.splits, dataset)
    names = scored_names(splits)
    evaluations = {}
    for ending, model in {**_last(folder), "": load_model(folder.path)}.items():  # the run's own scores complete it
        predictions, scores = folder.path / f"predictions{ending}", folder.path / f"scores{ending}"
        predict_cases([model], splits.test, predictions, device=device)
        evaluations[ending] = evaluate_folder(
            predictions,
            dataset,  # as the run reads it: its layout and classes may have been asked for
            scores,
            cases=names,
            workers=workers or 1,
            overwrite=(scores / "failed.csv").exists(),  # what failed then may be there now
        )
        if evaluations[ending].failed:
            raise SomeCasesFailed(
                f"{scores}: got no scores for {', '.join(evaluations[ending].failed)}, expected them of all; "
                "see failed.csv there"
            )
    return evaluations[""]


def scored_names(splits: Splits) -> list[str]:
    """The test scans that have a label. Raises UserError where none has."""
    names = [case.name for case in splits.test if case.label is not None]
    if not names:
        raise UserError(
            f"--score: got {len(splits.test)} test scan(s), none with a label, expected some to score; ask for them "
            "with --test (and data.declared_splits=false where the dataset's own have no labels), or set score=false"
        )
    return names


def _last(folder: RunFolder) -> dict[str, LoadedModel]:
    """The last checkpoint, where an earlier one was chosen."""
    result = folder.read_result()
    another = result.checkpoint == "best" and result.best.step != result.last.step
    return {"-last": load_model(folder.path, "last")} if another else {}
