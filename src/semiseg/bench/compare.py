"""A whole comparison: plan once, run what is missing, write tables and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from semiseg.bench.launchers import Job, Launcher
from semiseg.bench.results import Finished, read_finished, write_results
from semiseg.bench.runs import (
    BenchSettings,
    Run,
    command,
    common_plan,
    is_finished,
    keep_settings,
    planned_runs,
    run_settings,
)
from semiseg.bench.summary import Line, summarise, to_json, write_summary
from semiseg.errors import SomeCasesFailed
from semiseg.files import write_json
from semiseg.progress import say


@dataclass(frozen=True)
class Comparison:
    """What a bench folder holds. failed: run to where its log is."""

    lines: Sequence[Line]
    failed: Mapping[str, Path]

    @property
    def exit_code(self) -> int:
        return SomeCasesFailed.exit_code if self.failed else 0


def run_bench(
    settings: BenchSettings, out: Path, launcher: Launcher, *, device: str = "auto", workers: int | None = None
) -> Comparison:
    """Do every run that is not finished, then write results.csv, summary.csv and bench.json to `out`.

    Runs lie in `out/runs`, their logs in `out/logs`. A run that fails is reported and the others go on; calling again
    does only what is missing. Raises UserError if `out` was begun with other settings.
    """
    out = Path(out)
    keep_settings(settings, out)
    plan = common_plan(settings, out, workers)
    runs = planned_runs(settings)
    folders = {run: out / "runs" / run.name for run in runs}
    missing = [run for run in runs if not is_finished(folders[run])]
    say(f"{out}: {len(runs)} runs, {len(runs) - len(missing)} finished")
    failed: dict[str, Path] = {}
    try:
        started = []
        for run in missing:
            words = command(run_settings(settings, run, plan), folders[run], device)
            job = Job(tuple(words), out / "logs" / f"{run.name}.log")
            started.append((run, job, launcher.submit(job)))
        for run, job, outcome in started:
            status = outcome.result()
            if status != 0 or not is_finished(folders[run]):
                failed[run.name] = job.log
                say(f"{run.name}: failed with exit status {status}; see {job.log}")
            else:
                say(f"{run.name}: finished")
    finally:
        launcher.close()
    return collect(settings, out, failed)


def collect(settings: BenchSettings, out: Path, failed: Mapping[str, Path]) -> Comparison:
    """Read the runs that are finished and write the tables."""
    finished = _finished(planned_runs(settings), out)
    lines = summarise(finished) if finished else []
    write_results(finished, out / "results.csv")
    write_summary(lines, out / "summary.csv")
    write_json(
        out / "bench.json", {"lines": to_json(lines), "failed": {name: str(log) for name, log in failed.items()}}
    )
    return Comparison(lines, failed)


def _finished(runs: Sequence[Run], out: Path) -> list[Finished]:
    folders = [(run, out / "runs" / run.name) for run in runs]
    return [read_finished(run, folder) for run, folder in folders if is_finished(folder)]
