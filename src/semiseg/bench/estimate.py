"""How long a comparison will take, from a few timed steps and the scored test scans of one short run of each method."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

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
from semiseg.errors import SomeCasesFailed
from semiseg.experiments.experiment import prepare_dataset
from semiseg.experiments.run_settings import RunSettings
from semiseg.jobs.job import Job, Launcher, last_line
from semiseg.manifest import MANIFEST
from semiseg.runs.folder import RunFolder

STEPS, VALIDATION = 8, 4
"""Timed steps, and after which of them there is a validation, beside the one at the end."""
WARM_UP = 3
"""Steps that are not counted: the first ones load and compile."""


@dataclass(frozen=True)
class Timing:
    """Of one method."""

    step_s: float
    validation_s: float
    rest_s: float
    """Start, checks, segmenting and scoring the test scans."""

    def of(self, settings: RunSettings) -> float:
        steps, every = settings.training.steps, settings.training.validate_every
        validations = steps // (every or max(1, steps // 10))
        return steps * self.step_s + validations * self.validation_s + self.rest_s


@dataclass(frozen=True)
class Estimate:
    """Of the runs that are still to be done; `duration_s`: of one after another."""

    runs: int
    finished: int
    duration_s: float
    timings: dict[str, Timing]

    def text(self, at_once: int | None) -> str:
        steps = ", ".join(f"{name} {timing.step_s:.3g} s a step" for name, timing in self.timings.items())
        parts = [f"{self.runs} runs to do, {self.finished} finished", f"about {_hours(self.duration_s)} one by one"]
        if at_once and at_once > 1 and self.runs > 1:
            shared = min(at_once, self.runs)
            parts.append(f"{_hours(self.duration_s / shared)} with {shared} at once, more if they share cores or a GPU")
        return "; ".join(parts) + (f" ({steps}, alone)" if steps else "")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def estimate(
    settings: BenchSettings, out: Path, launcher: Launcher, *, device: str = "auto", workers: int | None = None
) -> Estimate:
    """Train each method for a few steps in a temporary folder in `out`, one after the other, and extrapolate.

    Nothing is left but the cache. Raises UserError as `run_bench` does, SomeCasesFailed if a method does not train.
    """
    out = Path(out)
    settings = continued(settings, out)
    runs = planned_runs(settings)
    missing = [run for run in runs if not is_finished(out / "runs" / run.name)]
    out.mkdir(parents=True, exist_ok=True)
    timings: dict[str, Timing] = {}
    with tempfile.TemporaryDirectory(dir=out, prefix=".estimate-") as folder:
        plan = begin(settings, out if (out / "bench.yaml").exists() else Path(folder), workers)
        if missing:
            prepare_dataset(run_settings(settings, Run(BASELINE, ALL, 0), plan), workers)
        for name in dict.fromkeys(run.method for run in missing):
            timings[name] = _timed(settings, name, plan, Path(folder), launcher, device)
        duration_s = sum(timings[run.method].of(run_settings(settings, run, plan)) for run in missing)
    return Estimate(len(missing), len(runs) - len(missing), duration_s, timings)


def _timed(settings: BenchSettings, name: str, plan: Path, folder: Path, launcher: Launcher, device: str) -> Timing:
    run = run_settings(settings, Run(name, settings.labelled[0], 0), plan)
    training = run.training.model_copy(update={"steps": STEPS, "log_every": 1, "validate_every": VALIDATION})
    place, log = folder / name, folder / f"{name}.log"
    words = command(run.model_copy(update={"training": training, "rounds": 0}), place, device)
    ((_, status),) = launcher.run([Job(tuple(words), log, Path.cwd())])
    if status:
        raise SomeCasesFailed(f"{name}: {last_line(log)}")
    ends = [line.duration_s for line in RunFolder(place).train_lines()]
    steps = [after - before for before, after in pairwise(ends)]  # of the second step, the third ...
    step_s = median(steps[WARM_UP - 1 :])
    validation_s = max(0.0, steps[VALIDATION - 1] - step_s)
    # the lock is taken when the job starts on its machine, however long it waited for one
    wall_s = (RunFolder(place).scores / MANIFEST).stat().st_mtime - log.with_suffix(".lock").stat().st_mtime
    return Timing(step_s, validation_s, max(0.0, wall_s - STEPS * step_s - 2 * validation_s))
