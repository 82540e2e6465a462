"""The scores of finished runs, as rows and as (replicates, cases) arrays."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from semiseg.bench.grid import Run
from semiseg.bench.statistics import Scores
from semiseg.evaluation.summary import DISTANCES, OVERLAPS
from semiseg.files import replacing
from semiseg.runs.folder import RunFolder

Checkpoint = Literal["best", "last"]
METRICS = (*OVERLAPS, *DISTANCES)
COLUMNS = ("method", "labelled", "budget", "replicate", "checkpoint", "case", "class", "metric", "value")


@dataclass(frozen=True)
class Finished:
    """A run that has its scores. `scores` holds, per checkpoint, rows of metrics.csv; always those of the last one."""

    run: Run
    result: Mapping[str, Any]
    scores: Mapping[Checkpoint, Sequence[Mapping[str, str]]]


def read_finished(run: Run, folder: Path) -> Finished:
    result = json.loads(RunFolder(folder).result.read_text(encoding="utf-8"))
    chosen: Checkpoint = result["checkpoint"]
    scores = {chosen: _rows(folder / "scores" / "metrics.csv")}
    last = folder / "scores-last" / "metrics.csv"
    scores["last"] = _rows(last) if last.exists() else scores[chosen]  # not there if the last one was the best
    return Finished(run, result, scores)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_results(finished: Iterable[Finished], path: Path) -> None:
    """A row per run, checkpoint, case, class and metric that has a value."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for one in finished:
            run = one.run
            for checkpoint, rows in sorted(one.scores.items()):
                where = (run.method, run.labelled, run.budget, run.replicate, checkpoint)
                for row in rows:
                    writer.writerows(
                        (*where, row["case"], row["class"], metric, row[metric])
                        for metric in METRICS
                        if row.get(metric)
                    )


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


def _table(run: Finished, metric: str, checkpoint: Checkpoint | None) -> dict[tuple[str, str], float]:
    rows = run.scores[checkpoint or run.result["checkpoint"]]
    return {
        (row["case"], row["class"]): float(row[metric])
        for row in rows
        if row["in_truth"] == "True" and row[metric] and row["kind"] == "class"
    }
