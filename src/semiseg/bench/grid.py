"""The runs of a comparison: every method with every number of labels, over replicates, as ordinary run folders.

A replicate is a pair of a draw of labelled scans and a seed, the same for all methods. Draws nest: four labelled scans
contain the two of the same draw. Plan, test and validation scans are the same for all.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, Field

from semiseg.bench.choice import EVERYONE, Choice, Family, refuse_unknown
from semiseg.data.plan import merged
from semiseg.errors import InputError, UserError
from semiseg.experiments.experiment import checked_splits, plan_dataset
from semiseg.experiments.run_settings import RunSettings
from semiseg.files import read_yaml, write_text
from semiseg.manifest import BEGUN, claim
from semiseg.methods.own import flags_for, refuse_other_file
from semiseg.processes import default_workers
from semiseg.runs.contents import ScansOfRun
from semiseg.runs.folder import RunFolder
from semiseg.settings import ReadBack, Settings, flat, shown

BASELINE = "supervised"
DEFAULT_METHODS = ("supervised", "roam", "equireg")
DEFAULT_RUNS, DEFAULT_UPPER_RUNS = 9, 3
MOST_RUNS = 10_000
ALL = "all"
"""In place of a number of labels: every label there is."""
UPPER_BUDGETS = (1, 2)
"""Of the upper bound, in steps of the others: at twice the steps, to show that it was not stopped too early."""
ROUNDS = "rounds"
"""Beside the `name` of a method: of self-training, see `train_rounds`."""
_LABELLED = re.compile(r"[0-9.]{1,20}%?")
_NAME = re.compile(r"\w[\w.+-]{0,99}")


def _plain(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"got the method {name!r:.80}, expected a plain name, as runs are folders of that name")
    return name


def _count(labelled: str) -> str:
    if not _LABELLED.fullmatch(labelled):
        raise ValueError(f"got {labelled!r:.80}, expected a number or share of labelled scans, such as 4 or 10%")
    return labelled


class _Common(ReadBack):
    """Of what all runs have in common, what is asked for by name."""

    data: ScansOfRun


class BenchSettings(Settings):
    """What is compared. Saved as `bench.yaml`; more methods, numbers of labels and runs may be added later."""

    run: dict[str, Any]
    """What all runs have in common (`RunSettings`), but for method, labels, draw and seed."""
    methods: dict[Annotated[str, AfterValidator(_plain)], dict[str, Any]]
    """Name to `name` and all settings of the method; of one's own the file's hash too; `rounds` where there are any."""
    labelled: tuple[Annotated[str, AfterValidator(_count)], ...] = Field(min_length=1)
    """Numbers or fractions of labelled groups, as `train --labelled` takes them."""
    runs: int = Field(default=DEFAULT_RUNS, ge=1, le=MOST_RUNS)
    upper_runs: int = Field(default=DEFAULT_UPPER_RUNS, ge=0, le=MOST_RUNS)
    """Replicates of the upper bound; it has no draw, so only the seed differs."""
    against: str = BASELINE
    family: Family = EVERYONE
    """As in `Choice`."""
    before_scores: Choice | None = None
    """What was chosen before any score was there, where that was something else."""

    @property
    def choice(self) -> Choice:
        return Choice(against=self.against, family=self.family)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a bench.yaml. Raises InputError for a damaged one, or one whose names lead out of its folder."""
        action = "restore it, or choose another folder"
        values = read_yaml(path, "the settings of a bench", action)
        try:
            settings = cls.parse(values, where=str(path))
        except UserError as error:
            raise InputError(f"{error}; {action}") from None
        _Common.of(settings.run, f"{path}: run", "the settings of a bench", action)
        return settings


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
            "plan_file": str(plan.absolute()),  # the same from whichever folder the command is given
            "score": True,
        },
    )
    values |= {"plan": {}, "unlabelled_ratio": None}  # already in the file
    method = dict(settings.methods.get(run.method, {"name": run.method}))
    values |= {"rounds": method.pop(ROUNDS, 0), "method": method}
    steps = RunSettings.parse(values, where="run").training.steps * run.budget
    return RunSettings.parse(merged(values, {"training": {"steps": steps}}), where="run")


def resolved(settings: BenchSettings, out: Path) -> str:
    """The settings as they would stand in bench.yaml, below the names of all runs; nothing is read or written.

    Raises UserError for what a run would refuse of them.
    """
    runs = planned_runs(settings)
    RunSettings.parse(settings.run, where="run").resolved()  # the plan is made of these, once
    for run in runs:
        run_settings(settings, run, out / "plan.json").resolved()
    refuse_unknown(settings.choice, settings.methods)
    return f"# {len(runs)} runs: {', '.join(run.name for run in runs)}\n{_as_yaml(settings)}"


def _as_yaml(settings: Settings) -> str:
    text: str = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def continued(settings: BenchSettings, out: Path) -> BenchSettings:
    """With the methods and numbers of labels that `out` was begun with, too, and its choice unless there is another.

    Raises UserError if it was begun with other data, training or method settings.
    """
    path = out / "bench.yaml"
    if not path.exists():
        refuse_unknown(settings.choice, settings.methods)
        return settings
    before = BenchSettings.read(path)
    for name, method in before.methods.items():
        refuse_other_file(method, settings.methods.get(name, {}), f"{out}: methods.{name}", f"--methods {name}=")
    was, now = _compared(before, path), _compared(settings, path)
    compared = [key for key in sorted(was | now) if key.startswith("run.") or (key in was and key in now)]
    changed = [f"{key}: {was.get(key)!r} -> {now.get(key)!r}" for key in compared if was.get(key) != now.get(key)]
    if changed:
        raise UserError(
            f"{out}: got other settings than it was begun with ({'; '.join(changed)}); "
            "use the same settings, or another --out"
        )
    kept = {key: getattr(before, key) for key in Choice.model_fields if key not in settings.model_fields_set}
    settings = settings.model_copy(
        update={
            "methods": before.methods | settings.methods,
            "labelled": tuple(dict.fromkeys((*before.labelled, *settings.labelled))),
            **kept,
        }
    )
    refuse_unknown(settings.choice, settings.methods)
    seen = any(is_finished(folder) for folder in (out / "runs").glob("*"))
    first = before.before_scores or (before.choice if seen else settings.before_scores)
    return settings.model_copy(update={"before_scores": None if first == settings.choice else first})


def _compared(settings: BenchSettings, path: Path) -> dict[str, Any]:
    """What another call has to agree with; parsed, so that settings that came later have their defaults."""
    run = RunSettings.parse(settings.run, where=f"{path}: run").model_dump(mode="json")
    return flat({"run": run, **{name: {ROUNDS: 0, **method} for name, method in settings.methods.items()}})


def begin(settings: BenchSettings, out: Path, workers: int | None) -> Path:
    """Write `out/plan.json`, once, and `out/bench.yaml`; returns the plan's path.

    The plan is made from the scans that are no test scans and the first draw's labels. Raises UserError or InputError
    for what would stop a run later: no test scans, too few labels, scans that leak.
    """
    path, config = out / "plan.json", out / "bench.yaml"
    plan = None
    if not config.exists():  # it is written last: without it, the plan may be of other settings
        values = merged(settings.run, {"data": {"labelled": settings.labelled[0], "draw": 0}})
        plan = plan_dataset(RunSettings.parse(values, where="run"), workers, announce=False)  # preparing tells
    for count in settings.labelled:
        data = run_settings(settings, Run(BASELINE, count, 0), path).data
        _, splits, _ = checked_splits(data, default_workers() if workers is None else workers)
        if not splits.test:
            raise UserError(
                "--test: got no test scans, expected some to compare on; give a count, a fraction or a file"
            )
    claim(out, "bench", ("plan.json", "results.csv", "summary.csv", "bench.json"), owned=config.exists())
    if plan is not None:
        plan.save(path)
    write_text(config, _as_yaml(settings))
    (out / BEGUN).unlink(missing_ok=True)  # from now on the settings say whose folder it is
    return path


def command(settings: RunSettings, folder: Path, device: str) -> list[str]:
    """The command line that does one run or goes on with it; its settings are written beside the run."""
    config = folder.parent / f"{folder.name}.yaml"
    text = _as_yaml(settings)
    if not config.exists() or config.read_text(encoding="utf-8") != text:
        write_text(config, text)
    words = [sys.executable, "-m", "semiseg.cli", "train", settings.data.path, "--config", str(config)]
    words += flags_for(settings.method["name"])
    return [*words, "--out", str(folder), "--resume", "--device", device, "--workers", "1", "--quiet"]


def is_finished(folder: Path) -> bool:
    """Trained, and all its test scans scored."""
    run = RunFolder(folder)
    return run.finished and run.scored


def bench_settings(
    values: Mapping[str, Any],
    *,
    methods: Sequence[str] | None = None,
    labelled: Sequence[str] | None = None,
    runs: int | None = None,
    upper_runs: int | None = None,
    against: str | None = None,
    family: Sequence[str] | None = None,
) -> BenchSettings:
    """From the settings of a run that may also hold those of `BenchSettings`; arguments win.

    values["methods"]: `roam: {alpha: 1}` or, under a name of one's own, `plain: {name: roam, alpha: 1}`. methods: which
    of these, or names of methods with their defaults. The baseline is always there. A method in values["method"], such
    as a recipe's, gives that method its settings. Raises UserError for what makes no sense.
    """
    values = dict(values)
    own = values.pop("methods", None) or {}
    if not isinstance(own, Mapping):
        raise UserError(f"methods: got {shown(own)}, expected `NAME: {{settings}}`; list names with --methods")
    single = values.pop("method", {})
    for name, one in {**own, "method": single}.items():
        if not isinstance(one or {}, Mapping) or not isinstance((one or {}).get("name", ""), str):
            raise UserError(f"{name}: got {shown(one)}, expected settings of a method, `KEY: value`; correct them")
    described = {str(name): {"name": name, **(given or {})} for name, given in own.items()}
    chosen = list(methods or described or DEFAULT_METHODS)
    if single and single.get("name") not in (BASELINE, *chosen):
        raise UserError(f"method: got {single}, expected settings of a method that is compared; say methods.NAME.KEY")
    if single:
        described.setdefault(single["name"], single)
    flags = {"labelled": labelled, "runs": runs, "upper_runs": upper_runs, "against": against, "family": family}
    defaults = {"labelled": (), "runs": DEFAULT_RUNS, "upper_runs": DEFAULT_UPPER_RUNS}
    listed = {name: values.pop(name, default) for name, default in defaults.items()}
    listed |= {name: values.pop(name) for name in ("against", "family", "before_scores") if name in values}
    given = listed | {name: flag for name, flag in flags.items() if flag is not None}
    asked = given["labelled"] or ()
    counts = list(map(str, asked if isinstance(asked, list | tuple) else [asked]))
    given |= {
        "methods": {name: described.get(name, {"name": name}) for name in dict.fromkeys((BASELINE, *chosen))},
        "labelled": tuple(dict.fromkeys(counts)),
    }
    if not counts or not all(map(_LABELLED.fullmatch, counts)):
        raise UserError(
            f"--labelled: got {counts or None}, expected numbers or shares of labelled scans, such as 2,4,8"
        )
    if values.get(ROUNDS):
        raise UserError(
            f"rounds: got {shown(values[ROUNDS])} for all methods, expected it of one; say methods.NAME.rounds"
        )
    for name, described_as in given["methods"].items():
        if name == BASELINE and described_as.get(ROUNDS):
            got = shown(described_as[ROUNDS])
            raise UserError(
                f"methods.{BASELINE}.rounds: got {got}, expected none of the baseline; say it of another method, as in "
                f"students: {{name: {BASELINE}, rounds: {got}}}"
            )
        if not _NAME.fullmatch(name) or (name == BASELINE and described_as["name"] != BASELINE):
            raise UserError(
                f"methods: got {name!r} for {described_as}, expected a plain name; {BASELINE} is the baseline"
            )
    given["run"] = RunSettings.parse({**values, "method": {"name": BASELINE}, "recipe": None}, where="").model_dump(
        mode="json"
    )
    settings = BenchSettings.parse(given, where="bench")
    resolved = {}
    for name in settings.methods:  # a mistake must be found before hours of training
        try:
            one = run_settings(settings, Run(name, counts[0], 0), Path("plan.json"))
            resolved[name] = one.resolved()["method"] | ({ROUNDS: one.rounds} if one.rounds else {})
        except UserError as error:
            raise UserError(f"methods: {name}: {error}") from None
    return settings.model_copy(update={"methods": resolved})
