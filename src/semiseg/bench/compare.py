"""A whole comparison: plan once, run what is missing, write tables and verdicts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semiseg.bench.choice import Choice, too_many
from semiseg.bench.grid import (
    ALL,
    BASELINE,
    BenchSettings,
    Run,
    begin,
    command,
    continued,
    is_finished,
    planned_runs,
    run_settings,
)
from semiseg.bench.lines import Line, notes, summarise, to_json, write_summary
from semiseg.bench.results import read_finished, write_results
from semiseg.errors import SomeCasesFailed
from semiseg.experiments.experiment import prepare_dataset
from semiseg.files import write_json
from semiseg.jobs.job import Job, Launcher, last_line
from semiseg.processes import preempted_by_sigterm
from semiseg.progress import say, time_left


@dataclass(frozen=True)
class Comparison:
    """What a bench folder holds. failed: run to why and where its log is."""

    lines: Sequence[Line]
    failed: Mapping[str, str]
    choice: Choice
    notes: Sequence[str]
    """What is to be known of all verdicts together."""

    @property
    def exit_code(self) -> int:
        return SomeCasesFailed.exit_code if self.failed else 0

    def to_json(self) -> dict[str, Any]:
        facts = {"lines": to_json(self.lines), "failed": dict(self.failed), "notes": list(self.notes)}
        return self.choice.model_dump(mode="json") | facts


def run_bench(
    settings: BenchSettings, out: Path, launcher: Launcher, *, device: str = "auto", workers: int | None = None
) -> Comparison:
    """Do every run that is not finished, then write results.csv, summary.csv and bench.json to `out`.

    Runs lie in `out/runs`, their logs in `out/logs`. A run that fails is reported and the others go on; calling again
    does only what is missing. Raises UserError if `out` was begun with other settings, Preempted after SIGTERM.
    """
    out = Path(out)
    settings = continued(settings, out)
    plan = begin(settings, out, workers)
    runs = planned_runs(settings)
    missing = [run for run in runs if not is_finished(out / "runs" / run.name)]
    say(f"{out}: {len(runs)} runs, {len(runs) - len(missing)} finished")
    judged = sum(map(settings.choice.judges, settings.methods)) * len(settings.labelled)
    if missing and (note := too_many([settings.runs] * judged)):
        say(f"{out}: {note}")
    failed: dict[str, str] = {}
    try:
        if missing:  # once, not by all the runs that start at the same time
            prepare_dataset(run_settings(settings, Run(BASELINE, ALL, 0), plan), workers)
            jobs = {_job(settings, run, plan, out, device): run for run in missing}
            start = time.monotonic()
            with (
                preempted_by_sigterm(f"{out}: stopped; the same command goes on"),
                closing(launcher.run(list(jobs))) as ended,
            ):
                for done, (job, status) in enumerate(ended, start=1):
                    name = jobs[job].name
                    if status or not is_finished(out / "runs" / name):
                        failed[name] = f"exit status {status}: {last_line(job.log)} ({job.log})"
                    left = time_left(done, len(missing), time.monotonic() - start)
                    say(f"{done}/{len(missing)} {name}: {failed.get(name, 'finished')}{left}")
    finally:
        comparison = collect(settings, out, failed)
    return comparison


def _job(settings: BenchSettings, run: Run, plan: Path, out: Path, device: str) -> Job:
    words = command(run_settings(settings, run, plan), out / "runs" / run.name, device)
    return Job(tuple(words), out / "logs" / f"{run.name}.log", Path.cwd())


def collect(settings: BenchSettings, out: Path, failed: Mapping[str, str]) -> Comparison:
    """Read the runs that are finished and write the tables."""
    folders = {run: out / "runs" / run.name for run in planned_runs(settings)}
    finished = [read_finished(run, folder) for run, folder in folders.items() if is_finished(folder)]
    lines = summarise(finished, settings.choice)
    noted = notes(lines, settings.choice, settings.before_scores)
    comparison = Comparison(lines, failed, settings.choice, noted)
    write_results(finished, out / "results.csv")
    write_summary(comparison.lines, out / "summary.csv")
    write_json(out / "bench.json", comparison.to_json())
    return comparison
