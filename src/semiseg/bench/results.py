"""The scores of finished runs, as rows and as (replicates, cases) arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from semiseg.bench.grid import Run
from semiseg.bench.statistics import Scores
from semiseg.evaluation.summary import DISTANCES, OVERLAPS
from semiseg.runs.contents import RunResult, Score
from semiseg.runs.folder import RunFolder
from semiseg.tables import table_writer

Checkpoint = Literal["best", "last"]
METRICS = (*OVERLAPS, *DISTANCES, "far_ml")
COLUMNS = ("method", "labelled", "budget", "replicate", "checkpoint", "case", "class", "metric", "value")


@dataclass(frozen=True)
class Finished:
    """A run that has its scores, of the chosen checkpoint and always of the last one."""

    run: Run
    result: RunResult
    scores: Mapping[Checkpoint, Sequence[Score]]


def read_finished(run: Run, folder: Path) -> Finished:
    made = RunFolder(folder)
    result = made.read_result()
    return Finished(run, result, {result.checkpoint: made.read_scores(), "last": made.read_scores("last")})


def write_results(finished: Iterable[Finished], path: Path) -> None:
    """A row per run, checkpoint, case, class and metric that has a value."""
    with table_writer(path, COLUMNS) as write:
        for one in finished:
            run = one.run
            for checkpoint, scores in sorted(one.scores.items()):
                where = (run.method, run.labelled, run.budget, run.replicate, checkpoint)
                for score in scores:
                    for metric in METRICS:
                        if metric in score.numbers:
                            cells = (*where, score.case, score.name, metric, score.numbers[metric])
                            write(dict(zip(COLUMNS, cells, strict=True)))


def case_scores(runs: Sequence[Finished], metric: str = "dice", checkpoint: Checkpoint | None = None) -> Scores:
    """(replicates, cases) whose mean is the mean over classes of the mean over the cases that have the class.

    Regions are left out. A case counts, for each of its classes, as one over the number of cases with that class; so
    the mean of all cases is the number that `semiseg evaluate` prints. checkpoint: default the one that was chosen.
    """
    tables = [_table(run, metric, checkpoint) for run in runs]
    cases = sorted({case for table in tables for case, _ in table})
    classes = sorted({name for table in tables for _, name in table})
    result = np.zeros((len(runs), len(cases)))
    for row, table in zip(result, tables, strict=True):
        for name in classes:
            having = [index for index, case in enumerate(cases) if (case, name) in table]
            for index in having:
                row[index] += table[cases[index], name] * len(cases) / (len(having) * len(classes))
    return result


def mean_distance(runs: Sequence[Finished], metric: str) -> float | None:
    """In mm, of the chosen checkpoint: mean over cases, over classes, then over the runs that have any."""
    means = []
    for run in runs:
        by_class: dict[str, list[float]] = {}
        for (_, name), value in _table(run, metric, None).items():
            by_class.setdefault(name, []).append(value)
        if by_class:
            means.append(np.mean([np.mean(values) for values in by_class.values()]))
    return float(np.mean(means)) if means else None


def _table(run: Finished, metric: str, checkpoint: Checkpoint | None) -> dict[tuple[str, str], float]:
    scores = run.scores[checkpoint or run.result.checkpoint]
    return {
        (score.case, score.name): score.numbers[metric]
        for score in scores
        if score.in_truth and metric in score.numbers and score.kind == "class"
    }
