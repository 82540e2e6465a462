"""The runs of a comparison: every method with every number of labels, over replicates, as ordinary run folders.

A replicate is a pair of a draw of labelled scans and a seed, the same for all methods. Draws nest: four labelled scans
contain the two of the same draw. Plan, test and validation scans are the same for all.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from semiseg.data.plan import merged
from semiseg.errors import UserError
from semiseg.experiment import RunSettings, plan_dataset
from semiseg.files import write_text
from semiseg.run import RunFolder
from semiseg.settings import Settings

BASELINE = "supervised"
DEFAULT_METHODS = ("supervised", "roam", "equireg")
ALL = "all"
"""In place of a number of labels: every label there is."""
UPPER_BUDGETS = (1, 2)
"""Of the upper bound, in steps of the others: at twice the steps, to show that it was not stopped too early."""


class BenchSettings(Settings):
    """What is compared. Saved as `bench.yaml`; more methods, numbers of labels and runs may be added later."""

    run: dict[str, Any]
    """What all runs have in common (`RunSettings`), but for method, labels, draw and seed."""
    methods: dict[str, dict[str, Any]]
    """Name to `name` and settings of the method."""
    labelled: tuple[str, ...] = Field(min_length=1)
    """Numbers or fractions of labelled groups, as `train --labelled` takes them."""
    runs: int = Field(default=9, ge=1)
    upper_runs: int = Field(default=3, ge=0)
    """Replicates of the upper bound; it has no draw, so only the seed differs."""


@dataclass(frozen=True)
class Run:
    """One run of the comparison."""

    method: str
    labelled: str
    replicate: int
    budget: int = 1
    """In steps of the others."""

    @property
    def name(self) -> str:
        longer = f"-{self.budget}x" if self.budget != 1 else ""
        return f"{self.method}-{self.labelled.replace('%', 'pct')}{longer}-{self.replicate}"


def planned_runs(settings: BenchSettings) -> list[Run]:
    """All runs, replicate by replicate, so that an interrupted comparison is a smaller one."""
    found = []
    for replicate in range(max(settings.runs, settings.upper_runs)):
        if replicate < settings.runs:
            found += [Run(name, count, replicate) for count in settings.labelled for name in settings.methods]
        if replicate < settings.upper_runs:
            found += [Run(BASELINE, ALL, replicate, budget) for budget in UPPER_BUDGETS]
    return found


def run_settings(settings: BenchSettings, run: Run, plan: Path) -> RunSettings:
    """Of one run: an ordinary `semiseg train` that scores its test scans at the end."""
    values = merged(
        settings.run,
        {
            "data": {"draw": run.replicate, "labelled": None if run.labelled == ALL else run.labelled},
            "seed": run.replicate,
            "plan_file": str(plan),
            "score": True,
        },
    )
    values["plan"] = {}  # already in the file
    values["method"] = settings.methods.get(run.method, {"name": run.method})
    steps = RunSettings.parse(values, where="run").training.steps * run.budget
    return RunSettings.parse(merged(values, {"training": {"steps": steps}}), where="run")


def common_plan(settings: BenchSettings, out: Path, workers: int | None) -> Path:
    """Write `out/plan.json` once, from the scans that are no test scans and the first draw's fewest labels."""
    path = out / "plan.json"
    if not path.exists():
        values = merged(settings.run, {"data": {"labelled": settings.labelled[0], "draw": 0}})
        plan_dataset(RunSettings.parse(values, where="run"), workers).save(path)
    return path


def command(settings: RunSettings, folder: Path, device: str) -> list[str]:
    """The command line that does one run or goes on with it; its settings are written beside the run."""
    config = folder.with_suffix(".yaml")
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    if not config.exists() or config.read_text(encoding="utf-8") != text:
        write_text(config, text)
    words = [sys.executable, "-m", "semiseg.cli", "train", settings.data.path, "--config", str(config)]
    return [*words, "--out", str(folder), "--resume", "--device", device, "--workers", "1", "--quiet"]


def is_finished(folder: Path) -> bool:
    return RunFolder(folder).result.exists() and (folder / "scores" / "summary.json").exists()


def keep_settings(settings: BenchSettings, out: Path) -> None:
    """Write `bench.yaml`; refuse a folder begun with other data, training or method settings."""
    path = out / "bench.yaml"
    if path.exists():
        before = BenchSettings.parse(yaml.safe_load(path.read_text(encoding="utf-8")), where=str(path))
        changed = [
            key
            for key in sorted(before.run.keys() | settings.run.keys())
            if before.run.get(key) != settings.run.get(key)
        ]
        changed += [name for name, values in settings.methods.items() if before.methods.get(name, values) != values]
        if changed:
            raise UserError(
                f"{path}: got another {', '.join(changed)} than it was begun with; "
                "use the same settings, or another --out"
            )
    write_text(path, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def bench_settings(
    values: Mapping[str, Any],
    *,
    methods: Sequence[str] | None = None,
    labelled: Sequence[str] | None = None,
    runs: int | None = None,
    upper_runs: int | None = None,
) -> BenchSettings:
    """From the settings of a run that may also hold `methods`, `labelled`, `runs` and `upper_runs`; arguments win.

    values["methods"]: `roam: {alpha: 1}` or, under a name of one's own, `plain: {name: roam, alpha: 1}`. methods: which
    of these, or names of methods with their defaults. The baseline is always there.
    """
    common = {key: value for key, value in values.items() if key not in ("methods", "labelled", "runs", "upper_runs")}
    described = {name: {"name": name, **(own or {})} for name, own in (values.get("methods") or {}).items()}
    chosen = list(methods or described or DEFAULT_METHODS)
    run = RunSettings.parse({**common, "method": {"name": BASELINE}, "recipe": None}, where="")
    given = {
        "run": run.model_dump(mode="json"),
        "methods": {name: described.get(name, {"name": name}) for name in dict.fromkeys((BASELINE, *chosen))},
        "labelled": tuple(map(str, labelled or values.get("labelled", ()))),
        "runs": values.get("runs", 9) if runs is None else runs,
        "upper_runs": values.get("upper_runs", 3) if upper_runs is None else upper_runs,
    }
    if not given["labelled"]:
        raise UserError("--labelled: got none, expected numbers of labelled scans such as 2,4,8; name at least one")
    settings = BenchSettings.parse(given, where="bench")
    for name in settings.methods:  # a mistake must be found before hours of training
        run_settings(settings, Run(name, settings.labelled[0], 0), Path("plan.json")).resolved()
    return settings
