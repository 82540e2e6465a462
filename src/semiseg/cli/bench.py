"""The command that compares methods: bench."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from semiseg.cli.app import app
from semiseg.cli.flags import (
    AsJson,
    Classes,
    Config,
    Data,
    Device,
    Dims,
    Jobs,
    LauncherName,
    Layout,
    Out,
    PlanFile,
    Quiet,
    Recipe,
    Scheduler,
    Set,
    Slurm,
    SplitSeed,
    Steps,
    Test,
    Unlabelled,
    Validation,
    Workers,
)
from semiseg.cli.values import PlanFlags, ScanFlags, SettingsFlags, TrainingFlags, assigned, compared, listed, values_of
from semiseg.errors import UserError
from semiseg.progress import set_quiet


@app.command()
def bench(
    data: Data,
    out: Out,
    methods: Annotated[
        str | None,
        typer.Option(help="Such as supervised,roam,equireg, names from --config, or of your own: NAME=FILE:CLASS."),
    ] = None,
    labelled: Annotated[str | None, typer.Option(help="Numbers of labelled groups, such as 2,4,8.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Replicates: pairs of a draw and a seed.")] = None,
    upper_runs: Annotated[int | None, typer.Option("--upper-runs", min=0, help="Of the all-labels bound.")] = None,
    against: Annotated[
        str | None, typer.Option(help="The method that all others are compared with; default: supervised.")
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Methods that verdicts are on, such as roam,equireg, corrected together; default: all."),
    ] = None,
    unlabelled: Unlabelled = None,
    val: Validation = None,
    test: Test = None,
    split_seed: SplitSeed = None,
    steps: Steps = None,
    dims: Dims = None,
    plan: PlanFile = None,
    layout: Layout = None,
    classes: Classes = None,
    recipe: Recipe = None,
    config: Config = None,
    set_: Set = None,
    launcher: LauncherName = "local",
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs and their settings, and stop.")] = False,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say how long it will take, and stop.")] = False,
    device: Device = "auto",
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare methods over numbers of labels and replicates: tables, intervals, verdicts. Call again to go on."""
    from semiseg.bench.compare import run_bench
    from semiseg.bench.estimate import estimate as estimated
    from semiseg.bench.grid import bench_settings, resolved
    from semiseg.bench.lines import table
    from semiseg.jobs.launchers import launcher_named
    from semiseg.settings import shown

    set_quiet(quiet)
    values = values_of(
        SettingsFlags(recipe=recipe, config=config, assignments=set_),
        ScanFlags(
            path=data, layout=layout, classes=classes, unlabelled=unlabelled, val=val, test=test,
            split_seed=split_seed,
            labelled=None, draw=None,  # of each run
            corrected=None, fold=None, transductive=None, strict=None,
        ),
        PlanFlags(file=plan, dims=dims, size=None, memory_gb=None),
        TrainingFlags(method=None, steps=steps, precision=None, seed=None, init=None, score=None, rounds=None),
    )  # fmt: skip
    names, values = compared(methods, values)
    kept = values.pop("slurm", None) or {}  # of a file that serves elsewhere too
    if not isinstance(kept, dict):
        raise UserError(f"slurm: got {shown(kept)}, expected `KEY: value` lines, such as `partition: gpu`")
    on_slurm = (kept if launcher == "slurm" else {}) | assigned(slurm, "--slurm")
    settings = bench_settings(
        values, methods=names, labelled=listed(labelled), runs=runs, upper_runs=upper_runs,
        against=against, family=listed(family),
    )  # fmt: skip
    if dry_run:
        print(resolved(settings, out), end="")
        return
    where = launcher_named(launcher, jobs, out / "slurm", device=device, scheduler=scheduler, slurm=on_slurm)
    if estimate:
        print(estimated(settings, out, where, device=device, workers=workers).text(where.at_once))
        return
    made = run_bench(settings, out, where, device=device, workers=workers)
    print(json.dumps(made.to_json(), indent=2) if as_json else table(made.lines))
    for note in () if as_json else made.notes:
        print(f"note: {note}")
    for name, why in made.failed.items():
        print(f"{name}: failed: {why}", file=sys.stderr)
    raise typer.Exit(made.exit_code)
