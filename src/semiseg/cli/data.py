"""Commands on a dataset: check, plan, prepare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semiseg.cli.app import app
from semiseg.cli.flags import (
    AsJson,
    Classes,
    Config,
    Corrected,
    Data,
    Dims,
    Draw,
    Fold,
    Labelled,
    Layout,
    MemoryGB,
    Overwrite,
    Quiet,
    Recipe,
    Set,
    Size,
    SplitSeed,
    Strict,
    Test,
    Transductive,
    Unlabelled,
    Validation,
    Workers,
)
from semiseg.cli.values import PlanFlags, ScanFlags, SettingsFlags, settings_of
from semiseg.errors import UserError
from semiseg.progress import set_quiet

if TYPE_CHECKING:
    from semiseg.data.check import CheckReport


@app.command()
def check(
    data: Data,
    layout: Layout = None,
    classes: Classes = None,
    unlabelled: Unlabelled = None,
    strict: Strict = None,
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List everything wrong with a dataset. Exit 0 if training can start, 3 if not."""
    from semiseg.data.check import check_dataset
    from semiseg.data.label_tables import apply_table
    from semiseg.data.layouts import open_dataset
    from semiseg.processes import default_workers

    set_quiet(quiet)
    dataset = open_dataset(data, layout, unlabelled)
    if classes:
        dataset = apply_table(dataset, classes)
    report = check_dataset(dataset, strict=bool(strict), workers=workers or default_workers())
    print(json.dumps(report.to_json(), indent=2) if as_json else "\n".join([*report.lines(), _verdict(data, report)]))
    raise typer.Exit(0 if report.can_train else 3)


@app.command()
def plan(
    data: Data,
    out: Annotated[Path, typer.Option(help="The plan file to write.")] = Path("plan.json"),
    layout: Layout = None,
    classes: Classes = None,
    labelled: Labelled = None,
    unlabelled: Unlabelled = None,
    corrected: Corrected = None,
    val: Validation = None,
    test: Test = None,
    fold: Fold = None,
    draw: Draw = None,
    split_seed: SplitSeed = None,
    transductive: Transductive = None,
    strict: Strict = None,
    dims: Dims = None,
    size: Size = None,
    memory_gb: MemoryGB = None,
    workers: Workers = None,
    recipe: Recipe = None,
    config: Config = None,
    set_: Set = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write plan.json: spacing, patch, 2-D or 3-D, network, normalisation. Edit it and give it to `train --plan`."""
    from semiseg.data.plan import Plan
    from semiseg.experiments.experiment import plan_dataset

    set_quiet(quiet)
    settings = settings_of(
        SettingsFlags(recipe=recipe, config=config, assignments=set_),
        ScanFlags(
            path=data, layout=layout, classes=classes, unlabelled=unlabelled, corrected=corrected, labelled=labelled,
            val=val, test=test, fold=fold, draw=draw, split_seed=split_seed, transductive=transductive, strict=strict,
        ),
        PlanFlags(file=None, dims=dims, size=size, memory_gb=memory_gb),
    )  # fmt: skip
    made = plan_dataset(settings, workers)
    if out.exists() and not overwrite and Plan.load(out) != made:
        raise UserError(
            f"{out}: got another plan, perhaps an edited one, expected none; "
            "pass --overwrite to replace it, or choose another --out"
        )
    made.save(out)
    print(f"{out}: {made.dims}-D ({made.reason}), patch {made.patch}, batch {made.batch} + {made.unlabelled_batch}")


@app.command()
def prepare(
    data: Data,
    plan: Annotated[Path | None, typer.Option(help="A plan file; made anew if not given.")] = None,
    layout: Layout = None,
    classes: Classes = None,
    labelled: Labelled = None,
    unlabelled: Unlabelled = None,
    corrected: Corrected = None,
    val: Validation = None,
    test: Test = None,
    fold: Fold = None,
    draw: Draw = None,
    split_seed: SplitSeed = None,
    transductive: Transductive = None,
    strict: Strict = None,
    dims: Dims = None,
    size: Size = None,
    memory_gb: MemoryGB = None,
    workers: Workers = None,
    recipe: Recipe = None,
    config: Config = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Bring scans to the network's space and keep them in the cache, so that training starts at once."""
    from semiseg.experiments.experiment import prepare_dataset

    set_quiet(quiet)
    settings = settings_of(
        SettingsFlags(recipe=recipe, config=config, assignments=set_),
        ScanFlags(
            path=data, layout=layout, classes=classes, unlabelled=unlabelled, corrected=corrected, labelled=labelled,
            val=val, test=test, fold=fold, draw=draw, split_seed=split_seed, transductive=transductive, strict=strict,
        ),
        PlanFlags(file=plan, dims=dims, size=size, memory_gb=memory_gb),
    )  # fmt: skip
    cases = prepare_dataset(settings, workers)
    print(f"{len(cases)} cases prepared; training on them starts at once")


def _verdict(data: str, report: CheckReport) -> str:
    labelled = sum(case.label is not None for case in report.usable)
    counts = f"{labelled} labelled, {len(report.usable) - labelled} unlabelled, {len(report.left_out)} left out"
    return f"{data}: cases: {counts}; training {'can' if report.can_train else 'cannot'} start"
