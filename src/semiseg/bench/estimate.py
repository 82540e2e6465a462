"""How long a comparison will take, from a few timed steps and one segmented scan of each method."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from semiseg.bench.launchers import Job, Launcher
from semiseg.bench.runs import BenchSettings, Run, command, common_plan, is_finished, planned_runs, run_settings
from semiseg.errors import SomeCasesFailed
from semiseg.run import RunFolder

STEPS = 8
WARM_UP = 3
"""Steps that are not counted: the first ones load and compile."""


@dataclass(frozen=True)
class Estimate:
    """Of the runs that are still to be done; `seconds` of one after another, to be divided by what runs at once."""

    runs: int
    finished: int
    seconds: float
    seconds_per_step: dict[str, float]

    def text(self, at_once: int) -> str:
        steps = ", ".join(f"{name} {seconds:.2f} s a step" for name, seconds in self.seconds_per_step.items())
        hours = self.seconds / 3600 / at_once
        return f"{self.runs} runs to do, {self.finished} finished; about {hours:.1f} h with {at_once} at once ({steps})"


def estimate(
    settings: BenchSettings, out: Path, launcher: Launcher, *, device: str = "auto", workers: int | None = None
) -> Estimate:
    """Train each method for a few steps in a temporary folder and extrapolate; nothing is left but plan and cache.

    Raises SomeCasesFailed with the log's last line if a method does not train.
    """
    out = Path(out)
    plan = common_plan(settings, out, workers)
    runs = planned_runs(settings)
    missing = [run for run in runs if not is_finished(out / "runs" / run.name)]
    step: dict[str, float] = {}
    after: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(run.method for run in missing):
            step[name], after[name] = _timed(settings, name, plan, Path(folder), launcher, device)
    seconds = 0.0
    for run in missing:
        steps = run_settings(settings, run, plan).training.steps
        seconds += steps * step[run.method] + after[run.method]
    return Estimate(len(missing), len(runs) - len(missing), seconds, step)


def _timed(
    settings: BenchSettings, name: str, plan: Path, folder: Path, launcher: Launcher, device: str
) -> tuple[float, float]:
    """Seconds of a step, and of everything else: start, validation, segmenting and scoring the test scans."""
    run = run_settings(settings, Run(name, settings.labelled[0], 0), plan)
    training = run.training.model_copy(update={"steps": STEPS, "log_every": 1, "validate_every": None})
    place, log = folder / name, folder / f"{name}.log"
    job = Job(tuple(command(run.model_copy(update={"training": training}), place, device)), log)
    if launcher.submit(job).result() != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"]
        raise SomeCasesFailed(f"{name}: {lines[-1]}")
    ends = [line["duration_s"] for line in RunFolder(place).read_log() if line["kind"] == "train"]
    each = median(b - a for a, b in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False))
    result = json.loads(RunFolder(place).result.read_text(encoding="utf-8"))
    scoring = json.loads((place / "scores" / "manifest.json").read_text(encoding="utf-8"))["duration_s"]
    segmenting = json.loads((place / "predictions" / "manifest.json").read_text(encoding="utf-8"))["duration_s"]
    return each, result["duration_s"] - STEPS * each + scoring + segmenting
