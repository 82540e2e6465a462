"""Commands that train, use and score one model: train, predict, evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from semiseg.cli.app import app
from semiseg.cli.flags import (
    AsJson,
    Cases,
    Classes,
    Config,
    Corrected,
    Data,
    Device,
    Dims,
    Draw,
    Fold,
    Jobs,
    Labelled,
    Layout,
    MemoryGB,
    ModelsAndScans,
    Out,
    Overwrite,
    PlanFile,
    Quiet,
    Recipe,
    Scheduler,
    Set,
    ShardFlag,
    Shared,
    Size,
    Slurm,
    SplitSeed,
    Steps,
    Strict,
    Test,
    Transductive,
    Unlabelled,
    Validation,
    Workers,
)
from semiseg.cli.paths import models_and_scans
from semiseg.cli.sharing import SharingFlags, shared_out
from semiseg.cli.values import PlanFlags, ScanFlags, SettingsFlags, TrainingFlags, one_of, settings_of
from semiseg.progress import set_quiet


@app.command()
def train(
    data: Data,
    out: Out,
    method: Annotated[
        str | None,
        typer.Option(
            help="supervised, roam, equireg, mean_teacher, uamt, cps, fixmatch, unimatch, bcp, "
            "or FILE:CLASS of your own."
        ),
    ] = None,
    labelled: Labelled = None,
    unlabelled: Unlabelled = None,
    corrected: Corrected = None,
    val: Validation = None,
    test: Test = None,
    fold: Fold = None,
    seed: Annotated[int | None, typer.Option(help="Initialisation, order and augmentation.")] = None,
    draw: Draw = None,
    split_seed: SplitSeed = None,
    steps: Steps = None,
    rounds: Annotated[
        int | None, typer.Option(help="Students after a teacher, on its guesses; shares --steps.")
    ] = None,
    dims: Dims = None,
    size: Size = None,
    plan: PlanFile = None,
    precision: Annotated[str | None, typer.Option(help="auto, 32, bf16 or 16.")] = None,
    init: Annotated[str | None, typer.Option(help="A run or model to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    transductive: Transductive = None,
    strict: Strict = None,
    layout: Layout = None,
    classes: Classes = None,
    memory_gb: MemoryGB = None,
    device: Device = "auto",
    workers: Workers = None,
    recipe: Recipe = None,
    config: Config = None,
    set_: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and stop.")] = False,
    score: Annotated[bool | None, typer.Option("--score", help="Then segment and score the test scans.")] = None,
    quiet: Quiet = False,
) -> None:
    """Check, plan, prepare and train in one go. The model ends in OUT/model."""
    import yaml

    from semiseg.experiments.experiment import train_run
    from semiseg.experiments.recipes import load_recipe
    from semiseg.experiments.score import score_run
    from semiseg.rounds.rounds import train_rounds

    set_quiet(quiet)
    settings = settings_of(
        SettingsFlags(recipe=recipe, config=config, assignments=set_),
        ScanFlags(
            path=data, layout=layout, classes=classes, unlabelled=unlabelled, corrected=corrected, labelled=labelled,
            val=val, test=test, fold=fold, draw=draw, split_seed=split_seed, transductive=transductive, strict=strict,
        ),
        PlanFlags(file=plan, dims=dims, size=size, memory_gb=memory_gb),
        TrainingFlags(
            method=method, steps=steps, precision=precision, seed=seed, init=init, score=score, rounds=rounds,
        ),
    )  # fmt: skip
    if dry_run:
        about = load_recipe(settings.recipe).text() if settings.recipe else ""
        print(about + yaml.safe_dump(settings.resolved(), sort_keys=False), end="")
        return
    trained = train_rounds if settings.rounds else train_run
    trained(settings, out, resume=resume, device=device, workers=workers)
    if settings.score:
        print(score_table(score_run(settings, out, device=device, workers=workers).summary))


@app.command()
def predict(
    context: typer.Context,
    paths: ModelsAndScans,
    out: Out,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write CASE_prob.nii.gz too.")] = False,
    tta: Annotated[bool, typer.Option("--tta", help="Average over slightly moved copies of each scan.")] = False,
    keep_largest: Annotated[
        bool, typer.Option("--keep-largest", help="Keep the largest connected part of each class.")
    ] = False,
    checkpoint: Annotated[str | None, typer.Option(help="best or last, of runs; default: the exported model.")] = None,
    cases: Cases = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Draw pictures into OUT/overlays.")] = False,
    overlay_fill: Annotated[bool, typer.Option("--overlay-fill", help="The same, tinted inside the outlines.")] = False,
    overlay_channel: Annotated[str, typer.Option(help="The same, over this channel; default: the first.")] = "",
    overlay_window: Annotated[str, typer.Option(help="The same, CT seen as lung, soft tissue, bone, ...")] = "",
    truth: Annotated[Path | None, typer.Option(help="True labels to draw beside: a folder, or a dataset.")] = None,
    beside: Annotated[Path | None, typer.Option(help="Another run or model to draw beside.")] = None,
    shard: ShardFlag = None,
    launcher: Shared = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Segment scans. Every result has the geometry of its scan and the dataset's own label values."""
    from semiseg.prediction.look import Look
    from semiseg.prediction.segment import segment

    set_quiet(quiet)
    sharing = SharingFlags(shard=shard, launcher=launcher, jobs=jobs, scheduler=scheduler, slurm=slurm)
    pictures = ("overlay", "overlay_fill", "overlay_channel", "overlay_window", "truth", "beside")
    part, overwrite = shared_out(sharing, context, out, overwrite=overwrite, device=device, at_the_end=pictures)
    look = Look(overlay_fill, overlay_channel, overlay_window)
    models, scans = models_and_scans(paths)
    made = segment(
        models, scans, out, only=cases, checkpoint=one_of(checkpoint, "--checkpoint", ("best", "last")),
        probabilities=probabilities, tta=tta, keep_largest=keep_largest, overwrite=overwrite, device=device,
        overlay=look if overlay or look != Look() else None, truth=truth, beside=beside, shard=part,
    )  # fmt: skip
    if as_json:
        print(json.dumps({"done": made.done, "skipped": made.skipped, "failed": dict(made.failed)}, indent=2))
    else:
        print(f"{out}: {made.text()}")
    raise typer.Exit(made.exit_code)


@app.command()
def evaluate(
    context: typer.Context,
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted label maps.")],
    labels: Annotated[Path, typer.Argument(help="Folder of label maps, or a dataset.")],
    out: Out,
    classes: Annotated[
        str | None, typer.Option(help="How to read LABELS: roam28, or a file `name: [values]`, as in training.")
    ] = None,
    tolerance_mm: Annotated[float, typer.Option("--tolerance-mm", help="For the surface Dice.")] = 1.0,
    shard: ShardFlag = None,
    launcher: Shared = None,
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
    overwrite: Overwrite = False,
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score predictions against labels: metrics.csv and summary.json. Exit 4 if a prediction is missing."""
    from semiseg.evaluation.evaluate import evaluate_folder

    set_quiet(quiet)
    sharing = SharingFlags(shard=shard, launcher=launcher, jobs=jobs, scheduler=scheduler, slurm=slurm)
    part, overwrite = shared_out(sharing, context, out, overwrite=overwrite)
    result = evaluate_folder(
        predictions, labels, out, classes=classes, tolerance_mm=tolerance_mm, workers=workers or 1,
        overwrite=overwrite, shard=part,
    )  # fmt: skip
    print(json.dumps(result.summary, indent=2) if as_json else score_table(result.summary))
    raise typer.Exit(result.exit_code)


def score_table(summary: dict[str, Any]) -> str:
    """Means over the cases that have the class, for people; the files hold the rest."""
    lines = [f"{'class':<24} {'cases':>5} {'Dice':>7} {'HD95 mm':>8} {'ASSD mm':>8}"]
    rows = [*summary["classes"].items(), ("mean over classes", {**summary["mean"], "n": ""})]
    if summary["regions"]:
        rows += [*summary["regions"].items(), ("mean over regions", {**summary["regions_mean"], "n": ""})]
    for name, row in rows:
        cells = []
        for metric, width, digits in (("dice", 7, 3), ("hd95_mm", 8, 2), ("assd_mm", 8, 2)):
            value = row[metric]["mean"] if isinstance(row[metric], dict) else row[metric]
            cells.append(f"{'-' if value is None else f'{value:.{digits}f}':>{width}}")
        lines.append(f"{name[:24]:<24} {row.get('n', ''):>5} {' '.join(cells)}")
    return "\n".join(lines)
