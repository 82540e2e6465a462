"""Commands that look for wrong segmentations: rank, review."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from semiseg.cli.app import app
from semiseg.cli.flags import AsJson, Cases, Device, ModelsAndScans, Out, Overwrite, Quiet
from semiseg.cli.paths import models_and_scans
from semiseg.progress import set_quiet


@app.command()
def rank(
    paths: ModelsAndScans,
    out: Out,
    cases: Cases = None,
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
    from semiseg.rank.scans import rank_scans

    set_quiet(quiet)
    models, scans = models_and_scans(paths)
    ranking = rank_scans(
        models, scans, out, only=cases, transforms=transforms, seed=seed, overwrite=overwrite, device=device
    )
    print(json.dumps(ranking.summary, indent=2) if as_json else ranking.text())
    raise typer.Exit(ranking.exit_code)


@app.command()
def review(
    paths: ModelsAndScans,
    out: Out,
    count: Annotated[int, typer.Option(help="How many scans to write, the worst first.")] = 10,
    ranking: Annotated[Path | None, typer.Option(help="Folder of `semiseg rank` by the same models.")] = None,
    cases: Cases = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the segmentations most likely to be wrong, to be corrected in 3D Slicer or ITK-SNAP."""
    from semiseg.rank.review import review_scans

    set_quiet(quiet)
    models, scans = models_and_scans(paths)
    made = review_scans(
        models, scans, out, count=count, ranking=ranking, only=cases, overwrite=overwrite, device=device
    )
    shown = {"done": made.done, "kept": made.kept, "left_out": made.left_out, "failed": dict(made.failed)}
    print(json.dumps(shown, indent=2) if as_json else made.text())
    raise typer.Exit(made.exit_code)
