"""Segmenting scans: windows over the network's space, then back to each file's own grid."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from semiseg.colours import value_colours
from semiseg.data.dataset import Case
from semiseg.data.images import Scan, write_like
from semiseg.data.intensities import AS_WINDOWED, windowed_already
from semiseg.data.layouts.listing import scan_files
from semiseg.data.plan import Plan
from semiseg.data.prepare import read_channels
from semiseg.data.space import NetworkSpace, file_volumes, most_probable, to_network_space
from semiseg.devices import chosen_device
from semiseg.errors import InputError, OutOfMemory, SomeCasesFailed, UserError
from semiseg.files import read_json
from semiseg.jobs.shards import shards_folder
from semiseg.manifest import MANIFEST, begin_anew, claim, write_manifest
from semiseg.models.model import LoadedModel, weights_hash
from semiseg.models.windows import predict_probabilities
from semiseg.prediction.label_files import CLASS_TABLES, label_file, probability_file, write_failures, write_tables
from semiseg.progress import say, track
from semiseg.transforms.components import largest_pieces


@dataclass(frozen=True)
class Predictions:
    """Names of cases by what became of them; `failed` holds the message of each."""

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: Mapping[str, str]

    @property
    def exit_code(self) -> int:
        return SomeCasesFailed.exit_code if self.failed else 0

    def text(self) -> str:
        """One line for the user."""
        failures = f", {len(self.failed)} failed (see failed.csv)" if self.failed else ""
        return f"{len(self.done)} predicted, {len(self.skipped)} already there{failures}"


def predict_cases(
    models: Sequence[LoadedModel],
    cases: Sequence[Case],
    out: Path,
    *,
    probabilities: bool = False,
    tta: bool = False,
    keep_largest: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    describe_in: Path | None = None,
) -> Predictions:
    """Segment cases and write `CASE.nii.gz` with the input's grid and header and the dataset's label values.

    Of a picture (PNG, JPEG) it is `CASE.png` of the same size, whose palette indices are the label values.

    models: several are averaged on their probabilities; spacing and patch may differ, classes and number of
    channels may not. probabilities: also write `CASE_prob.nii.gz`, 4-D, 8 bits scaled by 1/255, classes in
    the order of labels.json. tta: see `predict_probabilities`. keep_largest: of each class but the first,
    keep the largest piece that is connected through voxel faces. overwrite: without it, cases that are
    already there are skipped, and refused if they were made by other weights or settings.

    Beside the predictions lie labels.json (name to value), labels.txt (ITK-SNAP), labels.ctbl (3D Slicer) and
    manifest.json. A case that fails is reported, listed in failed.csv and does not stop the others. describe_in: of a
    shard, where these two go.

    Raises UserError for models that do not go together, an unknown device, or predictions of other models in
    `out`; OutOfMemory if memory runs out; OSError where `out` cannot be written to.
    """
    start = time.monotonic()
    plan = common_plan(models)
    target = chosen_device(device)
    for model in models:
        model.network.to(target)
    label_files = [label_file(out, case) for case in cases]
    claim_for_predictions(out, cases, label_files, probabilities)
    written = [label_files] + [[probability_file(out, case) for case in cases]] * probabilities
    there = [not overwrite and all(file.exists() for file in files) for files in zip(*written, strict=True)]
    skipped = tuple(case.name for case, is_there in zip(cases, there, strict=True) if is_there)
    wanted = [case for case, is_there in zip(cases, there, strict=True) if not is_there]
    made_by = {"weights": [weights_hash(model) for model in models], "tta": tta, "keep_largest": keep_largest}
    if overwrite:
        begin_anew(out, "predict")
    elif skipped or describe_in:
        refuse_other_predictions(out, made_by)
    done: list[str] = []
    failed: dict[str, str] = {}
    for case in track(wanted, "Predicting"):
        try:
            _predict_case(models, case, out, target, probabilities, tta, keep_largest)
            done.append(case.name)
        except InputError as error:  # whatever is wrong with its files; a full disk concerns all cases
            failed[case.name] = str(error)
            say(f"{case.name}: failed: {error}")
        except (torch.OutOfMemoryError, MemoryError):
            raise OutOfMemory(
                f"{case.images[0]}: got out of memory on {target}, expected enough for {len(plan.classes)} "
                "classes; use --device cpu or fewer models, or lower batch and patch in the plan"
            ) from None
    write_tables(out, plan.classes)
    write_failures(describe_in or out, failed)
    outputs = [file for files in written for file in files if file.exists()]
    write_manifest(
        describe_in or out,
        "predict",
        [path for case in cases for path in case.images],
        [*outputs, *(out / name for name in CLASS_TABLES)],
        time.monotonic() - start,
        requested=[case.name for case in cases],
        models=[model.name for model in models],
        probabilities=probabilities,
        labels=plan.model_dump(mode="json", include={"relabel", "other_is_background", "regions"}),
        **made_by,
    )
    if describe_in is None:
        shutil.rmtree(shards_folder(out), ignore_errors=True)  # described by this manifest now
    return Predictions(tuple(done), skipped, failed)


def claim_for_predictions(out: Path, cases: Sequence[Case], label_files: Sequence[Path], probabilities: bool) -> None:
    """Raise UserError where predictions would mix with scans or labels that are no predictions, or with each other."""
    there = [path.name for path in scan_files(out).values()] if out.is_dir() else []
    read = [path for case in cases for path in (*case.images, *([case.label] if case.label else []))]
    claim(out, "predict", [*there, *CLASS_TABLES, "failed.csv"], inputs=read)
    if probabilities:
        maps = {path.name for path in label_files}
        if clash := next((one.name for case in cases if (one := probability_file(out, case)).name in maps), None):
            raise InputError(
                f"{clash}: got a case whose label map has the name of another one's probabilities, expected names that "
                "differ; rename the scan, or predict the two apart"
            )


def common_plan(models: Sequence[LoadedModel]) -> Plan:
    """The first model's plan. Raises UserError if another model has other classes or another number of channels."""
    first, *others = models
    for other in others:
        for what in ("classes", "channels"):
            expected, got = (getattr(model.plan, what) for model in (first, other))
            same = list(expected.items()) == list(got.items()) if what == "classes" else len(expected) == len(got)
            if not same:
                raise UserError(
                    f"{other.name}: got {what} {got}, expected {expected} as in {first.name}; "
                    "average models of one dataset only"
                )
    return first.plan


def _predict_case(
    models: Sequence[LoadedModel],
    case: Case,
    out: Path,
    device: torch.device,
    probabilities: bool,
    tta: bool,
    keep_largest: bool,
) -> None:
    classes = models[0].plan.classes
    scan, volumes = case_volumes(models, case, device, tta=tta)
    eight_bits = np.zeros((*scan.geometry.shape, len(classes)), np.uint8) if probabilities else None
    if eight_bits is not None:
        volumes = _copied_to(eight_bits, volumes)
    index = most_probable(volumes)
    if eight_bits is not None:
        write_like(probability_file(out, case), eight_bits, scan, scale=1 / 255)
    if keep_largest:
        index = largest_pieces(index)
    # last, because it is by this file that a case counts as done
    values = np.array(list(classes.values()))
    write_like(label_file(out, case), values[index], scan, colours=value_colours(classes))


def case_volumes(
    models: Sequence[LoadedModel], case: Case, device: torch.device | str, *, tta: bool = False
) -> tuple[Scan, Iterator[Float[np.ndarray, "x y z"]]]:
    """The first file of a case, and on its grid the models' mean probability of one class after another."""
    channels, scan = read_channels(case, models[0].plan)
    ranges = [(float(channel.min()), float(channel.max())) for channel in channels]
    if any(windowed_already(ranges, model.plan) for model in models):
        say(f"{case.name}: {AS_WINDOWED}")
    parts: list[tuple[Any, NetworkSpace, float]] = []
    for group in same_preparation(models):
        image, space = to_network_space(channels, scan.geometry, group[0].plan)
        total = predict_probabilities(group[0].network, image, group[0].plan, device, tta=tta)
        for model in group[1:]:
            total += predict_probabilities(model.network, image, model.plan, device, tta=tta)
        parts.append((total.div_(len(group)).numpy(), space, len(group) / len(models)))
    return scan, file_volumes(parts)


def same_preparation(models: Sequence[LoadedModel]) -> list[list[LoadedModel]]:
    """Models that see the same prepared image, together: replicates differ in their weights alone."""
    groups: dict[str, list[LoadedModel]] = {}
    for model in models:
        groups.setdefault(json.dumps([model.plan.dims, model.plan.preprocessing]), []).append(model)
    return list(groups.values())


def _copied_to(
    target: UInt8[np.ndarray, "x y z classes"], volumes: Iterator[Float[np.ndarray, "x y z"]]
) -> Iterator[Float[np.ndarray, "x y z"]]:
    for index, volume in enumerate(volumes):
        target[..., index] = np.rint(255 * volume.clip(0, 1))
        yield volume


def refuse_other_predictions(out: Path, made_by: Mapping[str, Any]) -> None:
    """Predictions of two models in one folder would be scored as those of one: UserError names what differs."""
    # none where it was interrupted before its end
    for manifest in (out / MANIFEST, *sorted(shards_folder(out).glob(f"*/{MANIFEST}"))):
        try:
            before = (
                read_json(manifest, "the manifest of earlier predictions", "choose another --out")
                if manifest.exists()
                else {}
            )
            changed = [key for key, value in made_by.items() if before.get(key, value) != value]
        except (ValueError, AttributeError) as error:
            wanted = "expected the manifest of earlier predictions; choose another --out"
            raise UserError(f"{manifest}: got {error!r}, {wanted}") from None
        if changed:
            raise UserError(
                f"{out}: got predictions made with other {', '.join(changed)}, expected the same for all; "
                "pass --overwrite to replace them, or choose another --out"
            )
