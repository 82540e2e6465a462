"""Segmenting scans: windows over the network's space, then back to each file's own grid."""

from __future__ import annotations

import colorsys
import csv
import hashlib
import io
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from semiseg.data.dataset import Case
from semiseg.data.images import Scan, is_picture, write_like
from semiseg.data.plan import Plan
from semiseg.data.prepare import read_channels
from semiseg.data.space import (
    AS_WINDOWED,
    NetworkSpace,
    file_volumes,
    most_probable,
    to_network_space,
    windowed_already,
)
from semiseg.errors import InputError, OutOfMemory, SomeCasesFailed, UserError
from semiseg.files import write_json, write_text
from semiseg.manifest import MANIFEST, write_manifest
from semiseg.methods.method import forward_frozen
from semiseg.progress import say, track
from semiseg.shards import refuse_other_predictions, shards_folder
from semiseg.transforms.warp import Warp

VIEWS = ((7.0, 1.0), (-7.0, 1.0), (0.0, 1.1), (0.0, 0.9))
"""Test-time augmentation, beside the scan as it is: in-plane rotation in degrees, and scale."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in evaluation mode that returns 32-bit logits, and the plan that it was trained with."""

    network: nn.Module
    plan: Plan
    name: str
    """Where it comes from, for messages."""


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


def predict_probabilities(
    network: nn.Module,
    image: Float[np.ndarray, "c i j k"],
    plan: Plan,
    device: torch.device | str = "cpu",
    *,
    tta: bool = False,
) -> Float[Tensor, "classes i j k"]:
    """Class probabilities of a prepared scan, on the CPU; they add up to 1 at every voxel.

    Slices (2-D) or the volume (3-D) that fit into the plan's patch are padded to it with zeros, as in
    training, and run at once; larger ones by overlapping windows with Gaussian weights. The network's mode is
    restored.

    tta: average over the scan as it is and VIEWS of it: rotated by +-7 degrees in the first two axes of the
    network (the slice; the axial plane in 3-D), enlarged and reduced by 10 %, all interpolated linearly,
    predictions warped back. No mirroring: training has none by default, and left is not right. Five times the
    work.
    """
    volume = torch.from_numpy(np.array(image, np.float32))
    items = volume.transpose(0, 1) if plan.dims == 2 else volume[None]
    total = _probabilities(network, items, plan, device)
    if tta:
        seen = torch.ones(1, 1, *items.shape[2:])
        for there, back in _views(items.shape[2:], plan.patch_spacing_mm):
            valid = there.inside[:, None].float()
            view = _probabilities(network, _warped(there, items), plan, device)
            total += _warped(back, view.mul_(valid))
            seen = seen + back(valid)
        total /= seen
    return total.transpose(0, 1) if plan.dims == 2 else total[0]


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
    label_files = [_label_file(out, case) for case in cases]
    written = [label_files] + [[_probability_file(out, case) for case in cases]] * probabilities
    there = [not overwrite and all(file.exists() for file in files) for files in zip(*written, strict=True)]
    skipped = tuple(case.name for case, is_there in zip(cases, there, strict=True) if is_there)
    wanted = [case for case, is_there in zip(cases, there, strict=True) if not is_there]
    made_by = {"weights": [weights_hash(model) for model in models], "tta": tta, "keep_largest": keep_largest}
    if overwrite:
        (out / MANIFEST).unlink(missing_ok=True)  # it would speak for files of other weights if this is interrupted
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
        [path for case in cases for path in case.images if path.is_file()],
        [*outputs, *(out / name for name in ("labels.json", "labels.txt", "labels.ctbl"))],
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


def weights_hash(model: LoadedModel) -> str:
    """128 bits that tell one set of weights from another, as 32 hexadecimal digits."""
    return hashlib.blake2b(save(model.network.state_dict()), digest_size=16).hexdigest()


def chosen_device(name: str) -> torch.device:
    """`auto`: a GPU if there is one, else the processor. Raises UserError for a device that is not there."""
    if name == "auto":
        gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(gpu)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--device: got {name!r} ({reason}), expected auto, cpu, cuda[:N] or mps; try --device auto"
        ) from None
    return device


def _probabilities(
    network: nn.Module, items: Float[Tensor, "n c *spatial"], plan: Plan, device: torch.device | str
) -> Float[Tensor, "n classes *spatial"]:
    def forward(x: Tensor) -> Tensor:
        return forward_frozen(network, x).float().softmax(1)

    size = items.shape[2:]
    at_once = plan.batch + plan.unlabelled_batch  # what training had memory for, with gradients
    if all(side <= window for side, window in zip(size, plan.patch, strict=True)):
        missing = [window - side for side, window in zip(size, plan.patch, strict=True)]
        before = [(gap + 1) // 2 for gap in missing]  # the larger half first, as in training
        after = [gap - first for gap, first in zip(missing, before, strict=True)]
        pads = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
        inside: list[Any] = [slice(first, first + n) for first, n in zip(before, size, strict=True)]
        chunks = [
            forward(functional.pad(chunk, pads).to(device))[(..., *inside)].cpu() for chunk in items.split(at_once)
        ]
        return torch.cat(chunks)
    from monai.inferers import sliding_window_inference  # takes seconds to import

    windows = sliding_window_inference(
        items,
        roi_size=plan.patch,
        sw_batch_size=at_once,
        predictor=forward,
        overlap=plan.overlap,
        mode="gaussian",
        sw_device=device,
        device="cpu",
    )
    assert isinstance(windows, Tensor)
    return windows


def _views(size: Sequence[int], spacing_mm: Sequence[float]) -> Iterator[tuple[Warp, Warp]]:
    """Each of VIEWS as a warp and its inverse."""
    half_mm = torch.tensor([max(n - 1, 1) / 2 * mm for n, mm in zip(size, spacing_mm, strict=True)])
    axes = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in size]
    centres_mm = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) * half_mm
    for degrees, scale in VIEWS:
        angle = torch.deg2rad(torch.tensor(degrees))
        matrix = torch.eye(len(size))
        matrix[:2, :2] = torch.stack(
            [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
        )
        matrix /= scale
        there, back = ((centres_mm @ m.mT / half_mm)[None] for m in (matrix, torch.linalg.inv(matrix)))
        yield Warp(there), Warp(back)


def _warped(warp: Warp, items: Float[Tensor, "n c *spatial"]) -> Float[Tensor, "n c *spatial"]:
    return torch.cat([warp(item[None]) for item in items])


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
        write_like(_probability_file(out, case), eight_bits, scan, scale=1 / 255)
    if keep_largest:
        index = largest_pieces(index)
    # last, because it is by this file that a case counts as done
    write_like(_label_file(out, case), np.array(list(classes.values()))[index], scan)


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


def largest_pieces(index: Int[np.ndarray, "x y z"]) -> Int[np.ndarray, "x y z"]:
    """Of every class but 0, the largest piece connected through voxel faces; the rest becomes 0."""
    from scipy.ndimage import label

    result = np.zeros_like(index)
    for value in np.unique(index[index > 0]):
        pieces, count = label(index == value)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        result[pieces == 1 + int(np.argmax(sizes[1:]))] = value
    return result


def _label_file(out: Path, case: Case) -> Path:
    return Path(out) / f"{case.name}{'.png' if is_picture(case.images[0]) else '.nii.gz'}"


def _probability_file(out: Path, case: Case) -> Path:
    return Path(out) / f"{case.name}_prob.nii.gz"


def write_tables(out: Path, classes: Mapping[str, int]) -> None:
    """Names, values and colours of the classes: labels.json, labels.txt (ITK-SNAP) and labels.ctbl (3D Slicer)."""
    write_json(out / "labels.json", dict(classes))
    rows = [(value, name, _colour(order)) for order, (name, value) in enumerate(classes.items())]
    snap = [
        f'{value} {red} {green} {blue} {int(order > 0)} {int(order > 0)} {int(order > 0)} "{name}"'
        for order, (value, name, (red, green, blue)) in enumerate(rows)
    ]
    write_text(out / "labels.txt", "# ITK-SnAP Label Description File\n" + "\n".join(snap) + "\n")
    slicer = [
        f"{value} {name.replace(' ', '_')} {red} {green} {blue} {255 * (order > 0)}"
        for order, (value, name, (red, green, blue)) in enumerate(rows)
    ]
    write_text(out / "labels.ctbl", "# Color table file\n" + "\n".join(slicer) + "\n")


def _colour(order: int) -> tuple[int, int, int]:
    """Hues a golden ratio apart, so that neighbouring classes differ; black for the background."""
    if order == 0:
        return (0, 0, 0)
    red, green, blue = colorsys.hsv_to_rgb(order * 0.618034 % 1, 0.75, 0.95)
    return (round(255 * red), round(255 * green), round(255 * blue))


def write_failures(out: Path, failed: Mapping[str, str]) -> None:
    """Write failed.csv (case, error), or remove that of an earlier time where nothing failed."""
    path = out / "failed.csv"
    if not failed:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "error"])
    writer.writerows(failed.items())
    write_text(path, text.getvalue())
