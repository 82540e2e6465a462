"""Commands beside the main path: report, simulate, export, layers, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from semiseg.cli.app import app
from semiseg.cli.flags import AsJson, Device, Dims, Out, Overwrite, Quiet, Workers
from semiseg.cli.values import one_of, values_set
from semiseg.errors import UserError
from semiseg.progress import set_quiet


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
    subjects: Annotated[
        int | None, typer.Option(max=100_000, help="How many; covid: how many labelled slices.")
    ] = None,
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
    from semiseg.models.bundle import export_bundle

    made = export_bundle(
        run, out, checkpoint=one_of(checkpoint, "--checkpoint", ("best", "last")), half=half,
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
    from semiseg.experiments.run_settings import read_settings
    from semiseg.models.layers import list_layers, table

    settings = read_settings(None, values_set(set_))
    for key in settings.keys() - {"network"}:
        raise UserError(f"--set {key}: got a setting of something else, expected network.KEY=VALUE; leave it out")
    axes = one_of(dims, "--dims", ("2", "3"))
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
