"""Arguments and flags that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

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
Size = Annotated[str | None, typer.Option(help="Of network and batch: small, medium or large.")]
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
Jobs = Annotated[int | None, typer.Option(min=1, max=10_000, help="At the same time; default: GPUs, else cores.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a dask scheduler; default: one is started here.")]
Slurm = Annotated[list[str] | None, typer.Option(help="One setting, such as partition=gpu. Repeatable.")]
ShardFlag = Annotated[str | None, typer.Option("--shard", help="I/N: only every N-th scan, from the I-th on.")]
Shared = Annotated[
    str | None, typer.Option("--launcher", help="Share the scans out over --jobs: local, slurm or dask.")
]
Cases = Annotated[Path | None, typer.Option(help="Only these: a file of case names, or a run's splits.json.")]
ModelsAndScans = Annotated[
    list[Path],
    typer.Argument(help="Runs or models, then the scans: a folder, or files.", metavar="RUN_OR_MODEL... INPUT..."),
]
PlanFile = Annotated[Path | None, typer.Option(help="A plan file to use instead of making one.")]
Steps = Annotated[int | None, typer.Option(help="Training steps of a run.")]
