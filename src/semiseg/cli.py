"""The command line: flags are parsed here, the work is one call into the library. Imports inside the commands keep
`--help` fast."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semiseg.errors import UserError
from semiseg.progress import set_quiet

if TYPE_CHECKING:
    from semiseg.data.check import CheckReport
    from semiseg.shards import Shard

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes longer to import than everything else that --help needs
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Segmentation of medical scans from a few labels: check, train, predict, evaluate.",
)

Data = Annotated[str, typer.Argument(help="A dataset: nnU-Net folder, images/ + labels/, or a CSV table.")]
Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Layout = Annotated[str | None, typer.Option(help="Folder layout, if it is not recognised: see docs/data.md.")]
Classes = Annotated[
    str | None, typer.Option(help="Classes other than the dataset's own: roam28, or a file `name: [values]`.")
]
Labelled = Annotated[
    str | None, typer.Option(help="How many groups keep their labels: 4, 0.1, 10%, or a file of case names.")
]
Unlabelled = Annotated[str | None, typer.Option(help="Folder of more scans without labels.")]
Validation = Annotated[str | None, typer.Option(help="Validation groups: a count, a fraction or a file.")]
Test = Annotated[str | None, typer.Option(help="Test groups, never seen by training: a count, a fraction or a file.")]
Fold = Annotated[str | None, typer.Option(help="Fold K of N (1/5) is test, the next one validation.")]
Draw = Annotated[int | None, typer.Option(help="Which scans are labelled.")]
SplitSeed = Annotated[int | None, typer.Option(help="Which scans are test, then validation.")]
Corrected = Annotated[
    list[Path] | None, typer.Option(help="Folder of `semiseg review`: its corrected labels are used. Repeatable.")
]
Transductive = Annotated[bool | None, typer.Option("--transductive", help="Accept test scans among the unlabelled.")]
Strict = Annotated[bool | None, typer.Option("--strict", help="Stop at a broken case instead of leaving it out.")]
Dims = Annotated[str | None, typer.Option(help="2, 3 or auto.")]
MemoryGB = Annotated[float | None, typer.Option("--memory-gb", help="Budget for patch and batch size.")]
Workers = Annotated[
    int | None, typer.Option(min=1, envvar="SEMISEG_WORKERS", help="Processes that read and prepare scans.")
]
Device = Annotated[str, typer.Option(envvar="SEMISEG_DEVICE", help="auto, cpu, cuda, cuda:N or mps.")]
Recipe = Annotated[str | None, typer.Option(help="A published experiment's settings, such as malc-roam-semi.")]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as method.alpha=0.3. Repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable result on standard output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Do finished work again.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
LauncherName = Annotated[str, typer.Option("--launcher", help="local, slurm or dask.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="At the same time; default: GPUs, else cores.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a dask scheduler; default: one is started here.")]
Slurm = Annotated[list[str] | None, typer.Option(help="One setting, such as partition=gpu. Repeatable.")]
ShardFlag = Annotated[str | None, typer.Option("--shard", help="I/N: only every N-th scan, from the I-th on.")]
Shared = Annotated[
    str | None, typer.Option("--launcher", help="Share the scans out over --jobs: local, slurm or dask.")
]


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
    from semiseg.experiment import plan_dataset

    set_quiet(quiet)
    settings = _settings(config, set_, data, locals())
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
    memory_gb: MemoryGB = None,
    workers: Workers = None,
    recipe: Recipe = None,
    config: Config = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Bring scans to the network's space and keep them in the cache, so that training starts at once."""
    from semiseg.experiment import prepare_dataset

    set_quiet(quiet)
    cases = prepare_dataset(_settings(config, set_, data, locals()), workers)
    print(f"{len(cases)} cases prepared; training on them starts at once")


@app.command()
def train(
    data: Data,
    out: Out,
    method: Annotated[str | None, typer.Option(help="supervised, roam or equireg.")] = None,
    labelled: Labelled = None,
    unlabelled: Unlabelled = None,
    corrected: Corrected = None,
    val: Validation = None,
    test: Test = None,
    fold: Fold = None,
    seed: Annotated[int | None, typer.Option(help="Initialisation, order and augmentation.")] = None,
    draw: Draw = None,
    split_seed: SplitSeed = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    dims: Dims = None,
    plan: Annotated[Path | None, typer.Option(help="A plan file to use instead of making one.")] = None,
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

    from semiseg.experiment import train_run
    from semiseg.recipes import load_recipe
    from semiseg.score import score_run

    set_quiet(quiet)
    settings = _settings(config, set_, data, locals())
    if dry_run:
        about = load_recipe(settings.recipe).text() if settings.recipe else ""
        print(about + yaml.safe_dump(settings.resolved(), sort_keys=False), end="")
        return
    train_run(settings, out, resume=resume, device=device, workers=workers)
    if settings.score:
        print(_score_table(score_run(settings, out, device=device, workers=workers).summary))


@app.command()
def predict(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(help="Runs or models, then the scans: a folder, or files.", metavar="RUN_OR_MODEL... INPUT..."),
    ],
    out: Out,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write CASE_prob.nii.gz too.")] = False,
    tta: Annotated[bool, typer.Option("--tta", help="Average over slightly moved copies of each scan.")] = False,
    keep_largest: Annotated[
        bool, typer.Option("--keep-largest", help="Keep the largest connected part of each class.")
    ] = False,
    checkpoint: Annotated[str | None, typer.Option(help="best or last, of runs; default: the exported model.")] = None,
    cases: Annotated[
        Path | None, typer.Option(help="Only these: a file of case names, or a run's splits.json.")
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Draw pictures into OUT/overlays.")] = False,
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
    from semiseg.segment import segment

    set_quiet(quiet)
    part, overwrite = _shared_out(locals(), "overlay", "truth", "beside")
    models, scans = _models_and_scans(paths)
    made = segment(
        models, scans, out, only=cases, checkpoint=_one_of(checkpoint, "--checkpoint", ("best", "last")),
        probabilities=probabilities, tta=tta, keep_largest=keep_largest, overwrite=overwrite, device=device,
        overlay=overlay, truth=truth, beside=beside, shard=part,
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
    from semiseg.evaluate import evaluate_folder

    set_quiet(quiet)
    part, overwrite = _shared_out(locals())
    result = evaluate_folder(
        predictions, labels, out, classes=classes, tolerance_mm=tolerance_mm, workers=workers or 1,
        overwrite=overwrite, shard=part,
    )  # fmt: skip
    print(json.dumps(result.summary, indent=2) if as_json else _score_table(result.summary))
    raise typer.Exit(result.exit_code)


@app.command()
def bench(
    data: Data,
    out: Out,
    methods: Annotated[
        str | None, typer.Option(help="Such as supervised,roam,equireg, or names from --config.")
    ] = None,
    labelled: Annotated[str | None, typer.Option(help="Numbers of labelled groups, such as 2,4,8.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Replicates: pairs of a draw and a seed.")] = None,
    upper_runs: Annotated[int | None, typer.Option("--upper-runs", min=0, help="Of the all-labels bound.")] = None,
    unlabelled: Unlabelled = None,
    val: Validation = None,
    test: Test = None,
    split_seed: SplitSeed = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of each run.")] = None,
    dims: Dims = None,
    plan: Annotated[Path | None, typer.Option(help="A plan file to use instead of making one.")] = None,
    layout: Layout = None,
    classes: Classes = None,
    recipe: Recipe = None,
    config: Config = None,
    set_: Set = None,
    launcher: LauncherName = "local",
    jobs: Jobs = None,
    scheduler: Scheduler = None,
    slurm: Slurm = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say how long it will take, and stop.")] = False,
    device: Device = "auto",
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare methods over numbers of labels and replicates: tables, intervals, verdicts. Call again to go on."""
    from semiseg.bench.compare import run_bench
    from semiseg.bench.estimate import estimate as estimated
    from semiseg.bench.launchers import launcher_named
    from semiseg.bench.runs import bench_settings
    from semiseg.bench.summary import table

    set_quiet(quiet)
    flags = {key: value for key, value in locals().items() if key not in ("labelled", "methods", "runs")}
    values = _values(config, set_, data, flags)
    kept = values.pop("slurm", {})  # of a file that serves elsewhere too
    on_slurm = {**kept, **_assigned(slurm)} if launcher == "slurm" else _assigned(slurm)
    settings = bench_settings(
        values, methods=_listed(methods), labelled=_listed(labelled), runs=runs, upper_runs=upper_runs
    )
    where = launcher_named(launcher, jobs, out / "slurm", device=device, scheduler=scheduler, slurm=on_slurm)
    if estimate:
        print(estimated(settings, out, where, device=device, workers=workers).text(where.at_once))
        return
    made = run_bench(settings, out, where, device=device, workers=workers)
    print(json.dumps(made.to_json(), indent=2) if as_json else table(made.lines))
    for name, why in made.failed.items():
        print(f"{name}: failed: {why}", file=sys.stderr)
    raise typer.Exit(made.exit_code)


@app.command()
def rank(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Runs or models, then the scans: a folder, or files.", metavar="RUN_OR_MODEL... INPUT..."),
    ],
    out: Out,
    cases: Annotated[
        Path | None, typer.Option(help="Only these: a file of case names, or a run's splits.json.")
    ] = None,
    transforms: Annotated[
        Path | None, typer.Option(help="transforms.json of another ranking, to use the same transformations.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which transformations are drawn.")] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score segmentations without labels: ranking.csv, worst first. Exit 4 if a scan could not be scored."""
    from semiseg.rank.runs import rank_scans

    set_quiet(quiet)
    models, scans = _models_and_scans(paths)
    ranking = rank_scans(
        models, scans, out, only=cases, transforms=transforms, seed=seed, overwrite=overwrite, device=device
    )
    print(json.dumps(ranking.summary, indent=2) if as_json else ranking.text())
    raise typer.Exit(ranking.exit_code)


@app.command()
def review(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Runs or models, then the scans: a folder, or files.", metavar="RUN_OR_MODEL... INPUT..."),
    ],
    out: Out,
    count: Annotated[int, typer.Option(help="How many scans to write, the worst first.")] = 10,
    ranking: Annotated[Path | None, typer.Option(help="Folder of `semiseg rank` by the same models.")] = None,
    cases: Annotated[
        Path | None, typer.Option(help="Only these: a file of case names, or a run's splits.json.")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the segmentations most likely to be wrong, to be corrected in 3D Slicer or ITK-SNAP."""
    from semiseg.review import review_scans

    set_quiet(quiet)
    models, scans = _models_and_scans(paths)
    made = review_scans(
        models, scans, out, count=count, ranking=ranking, only=cases, overwrite=overwrite, device=device
    )
    shown = {"done": made.done, "kept": made.kept, "left_out": made.left_out, "failed": dict(made.failed)}
    print(json.dumps(shown, indent=2) if as_json else made.text())
    raise typer.Exit(made.exit_code)


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Runs, benches, and the --out of rank or evaluate beside them.", metavar="DIR..."),
    ],
    out: Annotated[Path | None, typer.Option(help="The file to write; default: report.html in the first DIR.")] = None,
    quiet: Quiet = False,
) -> None:
    """Write one HTML file: scores, verdicts, curves, pictures and a 3-D viewer, with nothing loaded from a network."""
    from semiseg.report.page import report_folders

    set_quiet(quiet)
    print(report_folders(folders, out))


@app.command()
def simulate(
    world: Annotated[str, typer.Argument(help="wholebrain, covid or brats.")],
    out: Out,
    subjects: Annotated[int | None, typer.Option(help="How many; covid: how many labelled slices.")] = None,
    seed: Annotated[int, typer.Option(help="Of the simulated subjects.")] = 0,
    spacing_mm: Annotated[
        float | None, typer.Option("--spacing-mm", help="Side of a voxel (wholebrain, brats).")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Rows and columns of a slice (covid).")] = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Write a simulated cohort in the files and folders that the real data come in."""
    from semiseg.simulate.worlds import simulate_world

    set_quiet(quiet)
    simulate_world(world, out, subjects=subjects, seed=seed, spacing_mm=spacing_mm, size=size, workers=workers)
    print(f"{out}: simulated, not scans of people; scores on them do not carry over to real scans")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    out: Out,
    checkpoint: Annotated[str | None, typer.Option(help="best or last; default: that of the run's model.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store 16-bit floats: half the size.")] = False,
    licence: Annotated[str, typer.Option(help="For the model card.")] = "",
    description: Annotated[str, typer.Option(help="What it is for, for the model card.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Write a model to give away: weights, description and model card, no names of scans and no paths."""
    from semiseg.bundle import export_bundle

    made = export_bundle(
        run, out, checkpoint=_one_of(checkpoint, "--checkpoint", ("best", "last")), half=half,
        licence=licence, description=description, overwrite=overwrite,
    )  # fmt: skip
    size = sum(file.stat().st_size for file in made.iterdir()) / 1e6
    print(f"{made}: {size:.1f} MB; read its README.md before you give it away")


@app.command()
def layers(
    network: Annotated[str, typer.Argument(help="unet, roam-unet, fcdensenet, monai:CLASS, or a run or model.")],
    dims: Dims = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as network.widths=[16,32]. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the layers of a network that ROAM can mix at, in the order in which they run."""
    from semiseg.experiment import read_settings
    from semiseg.networks.listing import list_layers, table

    settings = read_settings(None, _assigned(set_))
    for key in settings.keys() - {"network"}:
        raise UserError(f"--set {key}: got a setting of something else, expected network.KEY=VALUE; leave it out")
    axes = _one_of(dims, "--dims", ("2", "3"))
    found = list_layers(network, int(axes) if axes else None, settings.get("network"))
    print(json.dumps([vars(layer) for layer in found], indent=2) if as_json else table(found))


@app.command()
def demo(
    out: Out = Path("demo"),
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Of the simulated subjects and the training.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Simulate a cohort, train every method on a few labels, compare them, write report.html."""
    from semiseg.demo import run_demo

    set_quiet(quiet)
    run_demo(out, device=device, seed=seed)


def _shared_out(given: dict[str, Any], *left_out: str) -> tuple[Shard | None, bool]:
    """Run the shards of a command, if it has a launcher; what it is still to do: its shard, and whether to overwrite.

    given: the command's own variables. left_out: flags that are not for shards.
    """
    name, jobs, out, overwrite = given["launcher"], given["jobs"], given["out"], given["overwrite"]
    if given["shard"] is not None:
        from semiseg.shards import Shard

        if name or jobs:
            raise UserError("--shard: got it with --launcher or --jobs, which make shards; leave one out")
        return Shard.parse(given["shard"]), overwrite
    if not (name or jobs):
        for flag in ("scheduler", "slurm"):
            if given[flag]:
                raise UserError(f"--{flag}: got {given[flag]!r} without --launcher, expected one; name it")
        return None, overwrite
    from semiseg.bench.launchers import launcher_named
    from semiseg.shards import run_shards, shards_folder

    where = launcher_named(
        name or "local", None if given["scheduler"] else jobs, shards_folder(out) / "slurm",
        device=given.get("device", "cpu"), scheduler=given["scheduler"], slurm=_assigned(given["slurm"]),
    )  # fmt: skip
    count = jobs or where.at_once
    if count is None:
        raise UserError(f"--jobs: got none with --launcher {name}, expected how many share the scans; say --jobs 8")
    ours = ("launcher", "jobs", "scheduler", "slurm", "quiet", "as_json", *left_out)
    run_shards(_words(given["context"], ours), out, where, count, overwrite=overwrite)
    return None, False


def _words(context: typer.Context, left_out: tuple[str, ...]) -> list[str]:
    """The command line that is being carried out, without some of its flags."""
    words = [str(context.info_name)]
    for parameter in context.command.params:
        value = context.params[str(parameter.name)]
        if parameter.name in left_out or value is None or value is False:
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            flag = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
            words += flag if one is True else [*flag, str(one)]
    return words


def _models_and_scans(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """From the first scan file on, all are scans; without one, the last path is."""
    from semiseg.data.images import scan_ending

    files = (index for index, path in enumerate(paths) if scan_ending(path))
    first = next(files, len(paths) - 1)
    if first == 0:
        raise UserError(
            f"RUN_OR_MODEL... INPUT...: got only {paths[0]}, expected a run or model, then the scans; name both"
        )
    return paths[:first], paths[first:]


def _one_of(value: str | None, flag: str, choices: tuple[str, ...]) -> Any:
    if value is not None and value not in choices:
        raise UserError(f"{flag}: got {value!r}, expected one of: {', '.join(choices)}")
    return value


def _verdict(data: str, report: CheckReport) -> str:
    labelled = sum(case.label is not None for case in report.usable)
    counts = f"{labelled} labelled, {len(report.usable) - labelled} unlabelled, {len(report.left_out)} left out"
    return f"{data}: cases: {counts}; training {'can' if report.can_train else 'cannot'} start"


def _score_table(summary: dict[str, Any]) -> str:
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


_DATA_FLAGS = (
    "layout",
    "classes",
    "unlabelled",
    "labelled",
    "val",
    "test",
    "fold",
    "draw",
    "split_seed",
    "transductive",
    "strict",
)


def _settings(config: Path | None, assignments: list[str] | None, data: str, flags: dict[str, Any]) -> Any:
    """Flags over --set over --config over a recipe over defaults."""
    from semiseg.experiment import RunSettings

    return RunSettings.parse(_values(config, assignments, data, flags), where="")


def _values(config: Path | None, assignments: list[str] | None, data: str, flags: dict[str, Any]) -> dict[str, Any]:
    from semiseg.experiment import read_settings

    given = _assigned(assignments)
    given["data.path"] = str(Path(data))  # without the slash that a shell's completion adds
    targets = {name: f"data.{name}" for name in _DATA_FLAGS}
    targets |= {"method": "method.name", "steps": "training.steps", "precision": "training.precision"}
    targets |= {name: name for name in ("recipe", "seed", "dims", "memory_gb", "init", "score")}
    targets["plan"] = "plan_file"
    if flags.get("corrected"):
        given["data.corrected"] = [str(folder) for folder in flags["corrected"]]
    for flag, key in targets.items():
        if flags.get(flag) is not None:
            given[key] = str(flags[flag]) if isinstance(flags[flag], Path) else flags[flag]
    return read_settings(config, given)


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _assigned(assignments: list[str] | None) -> dict[str, Any]:
    """`dotted.key: value` of every --set."""
    import yaml

    given: dict[str, Any] = {}
    for text in assignments or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set: got {text!r}, expected key=value, such as method.alpha=0.3")
        try:
            given[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {key}: got {value!r}, expected a YAML value, such as 3, true or [1, 2]") from None
    return given


def main() -> None:
    """Entry point: one clear message for a user's mistake, and the exit code that its kind has."""
    try:
        app()  # exits with 2 for a mistake in the flags, with 130 when interrupted
    except UserError as error:
        # the findings of a check say `error:` themselves
        print(f"error: {str(error).removeprefix('error: ')}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno is None:  # files of the user are looked for before
            raise
        print(
            f"error: {error.filename or 'output'}: got {error.strerror!r}, expected a place to write to; "
            "choose another --out or make room",
            file=sys.stderr,
        )
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
            raise
        print(f"error: out of memory; lower --memory-gb, plan.batch or --workers ({error})", file=sys.stderr)
        sys.exit(6)


if __name__ == "__main__":
    main()
