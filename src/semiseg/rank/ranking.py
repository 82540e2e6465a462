"""Scans ranked by how far their segmentations can be trusted, worst first, without a label."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from pydantic import Field

from semiseg.data.dataset import Case
from semiseg.data.prepare import read_channels
from semiseg.data.space import to_network_space
from semiseg.devices import chosen_device
from semiseg.draws import seed_of
from semiseg.errors import InputError, OutOfMemory, SomeCasesFailed, UserError
from semiseg.files import read_json, write_json
from semiseg.manifest import claim, file_hashes, sealed, unsealed, write_manifest
from semiseg.methods.strong import PUBLISHED_WARP
from semiseg.models.model import LoadedModel, weights_hash
from semiseg.models.volumes import Volume
from semiseg.prediction.cases import common_plan, same_preparation
from semiseg.prediction.label_files import write_failures
from semiseg.progress import say, track
from semiseg.rank.calibration import Calibration, estimated, structure_of
from semiseg.rank.scores import SCORES, Row, score_image
from semiseg.settings import Settings
from semiseg.tables import write_table
from semiseg.transforms.warp import Warp, WarpConfig

COLUMNS = ("case", "class", "value", "kind", *SCORES)
TRANSFORMS = "transforms.json"
IMPLAUSIBLE = 3.0
"""Deviations beyond which a volume is pointed out: of 1000 normal ones, 3 lie there."""
NOT_ASKED = {"calibrated": False, "note": "no estimate of the Dice: no validation scans were given"}


class Transforms(Settings):
    """What it takes to draw the same transformations again: each is a function of these, the case's name and the
    slice. They are equal for models that prepare scans alike."""

    format: Literal[1] = 1
    """Of the way in which `draw` uses the other values: raise it when that changes."""
    seed: int = 0
    warp: WarpConfig = PUBLISHED_WARP
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the packages that drew them; for reading, never used."""

    def draw(self, case: str, items: int, size: Sequence[int], spacing_mm: Sequence[float]) -> Warp:
        """A batch of one independent warp for each of `items` slices (or for one volume) of `size` voxels."""
        warps = [
            Warp.draw((1, 1, *size), self.warp, spacing_mm, torch.Generator().manual_seed(seed))
            for seed in (seed_of(self.seed, case, item) for item in range(items))
        ]
        return Warp(torch.cat([warp.grid for warp in warps]))

    def save(self, path: Path) -> None:
        versions = {package: version(package) for package in ("semiseg", "torch")}
        write_json(path, self.model_copy(update={"versions": versions}).model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> Transforms:
        """Raises InputError for a file that cannot be read, UserError for values that make no sense."""
        values = read_json(path, f"the {TRANSFORMS} of an earlier ranking", "check the path")
        if not isinstance(values, dict):
            raise InputError(f"{path}: got {values!r}, expected the {TRANSFORMS} of an earlier ranking")
        return cls.parse(values, where=str(path))


@dataclass(frozen=True)
class Ranking:
    """Rows of ranking.csv, worst case first, and names of cases by what became of them."""

    rows: Sequence[Row]
    summary: Mapping[str, Any]
    done: tuple[str, ...]
    skipped: tuple[str, ...]
    """Scored before, by the same models under the same transformations."""
    failed: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        return SomeCasesFailed.exit_code if self.failed else 0

    def text(self, most: int = 20) -> str:
        """The worst `most` cases as a table for people."""
        estimates = self.summary["estimate"]["calibrated"]
        by = "estimated_dice" if estimates else "equivariance_dice"
        lines = [f"{'case':<28} {'est.Dice':>8} {'eq. Dice':>8} {'entropy':>8} {'disagr.':>8}  lowest"]
        for case in self.summary["order"][:most]:
            rows = [row for row in self.rows if row["case"] == case]
            (mean,) = (row for row in rows if row["class"] == "mean" and row["kind"] == "mean")
            scored = [row for row in rows if row["kind"] != "mean" and row[by] is not None]
            lowest = min(scored, key=lambda row: row[by], default=None)
            told = f"{lowest['class']} {lowest[by]:.3f}" if lowest else "nothing found"
            shown = ("estimated_dice", "equivariance_dice", "border_entropy", "disagreement")
            cells = [_cell(mean[score]) for score in shown]
            lines.append(f"{case[:28]:<28} {' '.join(cells)}  {told}")
        more = len(self.summary["order"]) - most
        lines += [f"... and {more} better ones in ranking.csv"] if more > 0 else []
        lines += [f"{case}: {found}" for case, found in self._implausible(most)]
        lines.append(self.summary["estimate"]["note"])
        failures = f", {len(self.failed)} failed (see failed.csv)" if self.failed else ""
        return "\n".join([*lines, f"{len(self.done)} scored, {len(self.skipped)} already there{failures}"])

    def _implausible(self, most: int) -> Iterator[tuple[str, str]]:
        listed = self.summary["order"][:most]
        for row in self.rows:
            if row["case"] in listed and abs(row["volume_z"] or 0) > IMPLAUSIBLE:
                volume = f"{row['volume_ml']:.3g} ml, {row['volume_z']:+.1f} deviations from those with labels"
                yield row["case"], f"implausible volume of {row['class']}: {volume}"


def rank_cases(
    models: Sequence[LoadedModel],
    cases: Sequence[Case],
    out: Path,
    *,
    transforms: Transforms | None = None,
    overwrite: bool = False,
    device: str = "auto",
    compared: Sequence[LoadedModel] = (),
    volumes: Sequence[Volume] = (),
    calibration: Calibration | None = None,
    estimate: Mapping[str, Any] | None = None,
) -> Ranking:
    """Score cases without a label and write ranking.csv, worst first: see docs/rank.md for every column.

    models: several are averaged on their probabilities; they must prepare scans alike. transforms: default: the
    published strong view, with seed 0. overwrite: without it, cases that are already scored are not scored again, and
    refused if that was done with other weights or transformations; a scan whose files changed is scored anew.
    compared: networks whose disagreement is scored, such as teacher and student; the models unless told. volumes: those
    in scans with labels. calibration: for estimates of the Dice, by which cases are then sorted. estimate: what
    summary.json says about it, with `calibrated` and a `note`.

    Beside ranking.csv lie transforms.json, summary.json, manifest.json and the rows of each case in cases/. A case that
    fails is reported, listed in failed.csv and does not stop the others.

    Raises UserError for models that do not go together, an unknown device, or other results in `out`; OutOfMemory if
    memory runs out; OSError where `out` cannot be written to.
    """
    start = time.monotonic()
    transforms = transforms or Transforms()
    _require_one_preparation(models)
    target = chosen_device(device)
    for model in (*models, *compared):
        model.network.to(target)
    made_by = {
        "weights": [weights_hash(model) for model in models],
        "compared": [weights_hash(model) for model in compared],
        "transforms": transforms.model_dump(mode="json", exclude={"versions"}),
    }
    claim(
        out,
        "rank",
        ("ranking.csv", "summary.json", TRANSFORMS, "failed.csv"),
        inputs=[path for case in cases for path in case.images],
    )
    hashes = {case.name: file_hashes(case.images) for case in cases}
    scored = {} if overwrite else _earlier_scores(out, hashes, made_by)
    skipped = tuple(case.name for case in cases if case.name in scored)
    transforms.save(out / TRANSFORMS)
    failed: dict[str, str] = {}
    for case in track([case for case in cases if case.name not in scored], "Ranking"):
        try:
            scored[case.name] = _score_case(models, case, transforms, target, compared)
        except InputError as error:  # whatever is wrong with its files; a full disk concerns all cases
            failed[case.name] = str(error)
            say(f"{case.name}: failed: {error}")
            continue
        except (torch.OutOfMemoryError, MemoryError):
            raise OutOfMemory(
                f"{case.images[0]}: got out of memory on {target}, expected enough for "
                f"{len(models[0].plan.classes)} classes; use --device cpu or fewer models, or lower batch and patch "
                "in the plan"
            ) from None
        found = {"made_by": made_by, "inputs": hashes[case.name], "rows": scored[case.name]}
        write_json(_case_file(out, case.name), sealed(found))
    scored = {name: _with_knowledge(rows, volumes, calibration) for name, rows in scored.items()}
    order = sorted(scored, key=lambda name: _worst_first(name, scored[name], calibration is not None))
    rows = [{"case": name, **row} for name in order for row in scored[name]]
    summary = {
        "cases": len(order),
        "failed": failed,
        "order": order,
        "estimate": estimate or NOT_ASKED,
        "scores": _summary(rows),
    }
    write_table(out / "ranking.csv", COLUMNS, rows)
    write_json(out / "summary.json", summary)
    write_failures(out, failed)
    outputs = [out / name for name in ("ranking.csv", "summary.json", TRANSFORMS)]
    write_manifest(
        out,
        "rank",
        [path for case in cases for path in case.images],
        outputs + [_case_file(out, name) for name in order],
        time.monotonic() - start,
        requested=[case.name for case in cases],
        models=[model.name for model in models],
        **made_by,
    )
    done = tuple(case.name for case in cases if case.name in scored and case.name not in skipped)
    return Ranking(rows, summary, done, skipped, failed)


def _score_case(
    models: Sequence[LoadedModel],
    case: Case,
    transforms: Transforms,
    device: torch.device,
    compared: Sequence[LoadedModel],
) -> list[Row]:
    plan = models[0].plan
    channels, scan = read_channels(case, plan)
    image, space = to_network_space(channels, scan.geometry, plan)
    del channels
    slices = image.shape[1] if plan.dims == 2 else 1
    warp = transforms.draw(case.name, slices, image.shape[-plan.dims :], space.spacing_mm[-plan.dims :])
    return score_image(models, image, warp, space.spacing_mm, device, compared)


def _require_one_preparation(models: Sequence[LoadedModel]) -> None:
    common_plan(models)
    groups = same_preparation(models)
    if len(groups) > 1:
        raise UserError(
            f"{groups[1][0].name}: got a plan that prepares scans otherwise than that of {groups[0][0].name}, expected "
            "the same spacing, slices and normalisation; rank with each alone, or average models of one plan"
        )


def _earlier_scores(
    out: Path, hashes: Mapping[str, Mapping[str, str]], made_by: Mapping[str, Any]
) -> dict[str, list[Row]]:
    """Rows by case, of those scored before from the same files."""
    scored = {}
    for name, inputs in hashes.items():
        earlier = _kept(_case_file(out, name))
        changed = [key for key, value in made_by.items() if earlier and earlier["made_by"].get(key) != value]
        if changed:
            raise UserError(
                f"{out}: got scores made with other {', '.join(changed)}, expected the same for all; "
                "pass --overwrite to replace them, or choose another --out"
            )
        if earlier and list(earlier["inputs"].values()) == list(inputs.values()):  # wherever the scans lie by now
            scored[name] = earlier["rows"]
    return scored


def _kept(path: Path) -> dict[str, Any]:
    """What `rank_cases` wrote of a case; empty where there is no such file, or another than was written."""
    try:
        return unsealed(read_json(path, "a file of an earlier ranking", "remove it"))
    except (InputError, ValueError):
        return {}


def _case_file(out: Path, name: str) -> Path:
    return Path(out) / "cases" / f"{name}.json"


def _with_knowledge(rows: Sequence[Row], volumes: Sequence[Volume], calibration: Calibration | None) -> list[Row]:
    """With the scores that need scans with labels: None where there were none."""
    known = {(one.name, one.value, one.kind): one for one in volumes}
    z = [
        known[structure_of(row)].z_score(row["volume_ml"]) if row["volume_ml"] and structure_of(row) in known else None
        for row in rows
    ]
    dice = [None] * len(rows) if calibration is None else estimated(rows, calibration, volumes)
    return [
        {**row, "volume_z": of_row, "estimated_dice": value} for row, of_row, value in zip(rows, z, dice, strict=True)
    ]


def _worst_first(name: str, rows: Sequence[Row], by_estimate: bool) -> tuple[float, str]:
    """A scan in which no class was found has no score, and comes before all others."""
    score = rows[0]["estimated_dice" if by_estimate else "equivariance_dice"]
    return (-1.0 if score is None else score, name)


def _summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Per structure: over the cases that have it, number, mean and extremes of every score."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["class"], row["value"], row["kind"]), []).append(row)
    return [
        {"class": name, "value": value, "kind": kind, **{score: _statistics(score, group) for score in SCORES}}
        for (name, value, kind), group in groups.items()
    ]


def _statistics(score: str, rows: Sequence[Row]) -> dict[str, float | int] | None:
    values = [row[score] for row in rows if row[score] is not None]
    return {"n": len(values), "mean": fmean(values), "lowest": min(values), "highest": max(values)} if values else None


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.3f}':>8}"
