"""From what the scans are to a plan: spacing, 2-D or 3-D, patch, depth, batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from semiseg.data.dataset import Dataset
from semiseg.data.fingerprint import UNDECLARED, Fingerprint, measure
from semiseg.data.plan import Plan, for_every_channel, merged
from semiseg.data.splits import Splits
from semiseg.errors import UserError
from semiseg.networks.network_plan import NetworkPlan

Dims = Literal["auto", "2", "3"]

ANISOTROPY = 3.0
"""Slices farther apart than this many in-plane voxels are segmented one by one (the threshold of nnU-Net)."""
FEW_SLICES = 8
"""With fewer, there is nothing for convolutions across slices to see."""
SMALLEST_SIDE = 8
"""Voxels a side that the coarsest resolution keeps."""
LEVELS = 6
FIRST_WIDTH = 32
LAST_WIDTH = {2: 512, 3: 320}
BATCH = {2: (4, 16), 3: (2, 4)}
"""Labelled patches a step: at least, at most."""
BATCH_VOXELS = {2: 2**18, 3: 2**19}
"""A batch grows up to this many labelled voxels: four slices of 256x256, two volumes of 64x64x64."""
MONAI_MULTIPLE = 32
"""MONAI's networks do not say what sides they need: most halve at most five times."""
_NO_CLASSES: Mapping[str, int] = {"background": 0}
DIRECTIONS = ("left to right", "posterior to anterior", "inferior to superior")


def plan_from(
    fingerprint: Fingerprint,
    *,
    dims: Dims = "auto",
    memory_gb: float = 8.0,
    unlabelled_ratio: float | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan for scans like these; docs/plan.md says how each value is chosen.

    memory_gb: budget of a training step, never read from the machine, so that a plan is the same everywhere.
    unlabelled_ratio: unlabelled patches a labelled one, 1 unless told; at least one is taken.
    overrides: values to use as they are, nested as in plan.json (`{"network": {"widths": [16, 32]}}`); what
    is chosen goes with them.

    Raises UserError for an unknown or impossible setting, and if not even the smallest patch fits the memory.
    """
    if dims not in ("auto", "2", "3"):
        raise UserError(f"dims: got {dims!r}, expected auto, 2 or 3; choose one of them")
    given = for_every_channel(overrides or {}, len(fingerprint.channels))
    if unlabelled_ratio is not None and "unlabelled_batch" in given:
        raise UserError(
            f"unlabelled_ratio: got {unlabelled_ratio:g} and plan.unlabelled_batch {given['unlabelled_batch']}, "
            "expected one of them; leave one out"
        )
    ratio = 1.0 if unlabelled_ratio is None else unlabelled_ratio
    asked = requested(given, fingerprint.channels, fingerprint.classes)
    memory_gb = asked.get("memory_gb", memory_gb)
    crop = asked.get("crop_nonzero", fingerprint.crop_nonzero)
    sizes, own = _kept(fingerprint, crop, asked), np.array(fingerprint.spacings_mm, float)
    space = _space(sizes, own, str(asked.get("dims", dims)), asked)
    patch, network, batch = _patch(space, fingerprint, memory_gb, ratio, asked)
    values = {
        "dims": space.dims,
        "reason": space.reason,
        "channels": fingerprint.channels,
        "classes": fingerprint.classes,
        "ignore": fingerprint.ignore,
        "slice_axis": space.slice_axis,
        "spacing_mm": space.spacing_mm,
        "crop_nonzero": crop,
        "normalisation": [rule.model_dump() for rule in fingerprint.normalisation],
        "patch": patch,
        "batch": batch,
        "unlabelled_batch": _unlabelled(batch, ratio),
        "network": network.model_dump(),
        "memory_gb": memory_gb,
        "fingerprint": fingerprint.summary(),
    }
    plan = Plan.checked(merged(values, given), "plan")
    require_budget(plan, "plan")
    return plan


def require_budget(plan: Plan, where: str) -> None:
    """Raise UserError, naming the key as `where.key`, if a step of training would need more than the plan's memory."""
    needed = plan_memory_gb(plan)
    if needed > plan.memory_gb:
        raise UserError(
            f"{where}.memory_gb: got {plan.memory_gb:g} for patch {plan.patch}, batch {plan.batch} and "
            f"unlabelled_batch {plan.unlabelled_batch}, expected at least {needed:.3g}; raise it (--memory-gb, or "
            f"memory_gb in a plan file), or lower batch, patch or network.widths"
        )


def plan_memory_gb(plan: Plan) -> float:
    """Of a step of training; see `training_memory_gb`."""
    patches = plan.batch + plan.unlabelled_batch
    return training_memory_gb(plan.patch, patches, plan.network, len(plan.channels), len(plan.classes))


def training_memory_gb(patch: Sequence[int], patches: int, network: NetworkPlan, channels: int, classes: int) -> float:
    """Memory of a training step in 32-bit: what the backward pass needs, and the parameters.

    Networks other than the default are measured (`semiseg.networks.memory`). In the default U-Net a convolution
    keeps its output and its normalised output. A resolution has two convolutions on the way down; on the way up
    it has the up-sampled features, those joined by the skip, and two convolutions more.
    Full resolution also holds the image and, for each class, logits, two probabilities and a target.
    Parameters count five times: with gradient, two moments and a moving average.
    """
    voxels = float(math.prod(patch))
    if network.name != "unet":
        from semiseg.networks.memory import measured

        kept_by_voxel, weights = measured(network, channels, classes, len(patch))
        return 4 * (patches * voxels * (kept_by_voxel + 4 * classes) + 5 * weights) / 1e9
    kept = voxels * (channels + 4 * classes)
    parameters = 0.0
    inputs = channels
    for level, width in enumerate(network.widths):
        voxels /= math.prod(network.strides[level - 1]) if level else 1
        way_up = level < len(network.widths) - 1
        kept += voxels * width * (4 + 7 * way_up)
        parameters += 3 ** len(patch) * width * (inputs + width + 3 * width * way_up)
        inputs = width
    return 4 * (patches * kept + 5 * parameters) / 1e9


@dataclass(frozen=True)
class _Space:
    """What the network looks at: a typical scan, brought to the target spacing."""

    dims: int
    slice_axis: int | None
    reason: str
    spacing_mm: tuple[float | None, float | None, float | None]
    """Target, per RAS axis."""
    size: Float[np.ndarray, " dims"]
    """Voxels of the median scan along the network's axes."""
    mm: Float[np.ndarray, " dims"]
    """Spacing along the network's axes."""


def _kept(fingerprint: Fingerprint, crop: bool, asked: Mapping[str, Any]) -> Any:
    """Voxels that cropping leaves of each scan, one row a scan."""
    sizes = np.array(fingerprint.boxes if crop else fingerprint.shapes, float)
    for axis, side in enumerate(asked.get("crop_box", ())):
        if side is not None:
            ends = np.minimum(np.array(fingerprint.shapes)[:, axis], side[1])
            sizes[:, axis] = np.maximum(ends - side[0], 1)
    return sizes


def _space(sizes: Any, own: Any, dims: str, asked: Mapping[str, Any]) -> _Space:
    """sizes, own: voxels and their spacing in mm, one row a scan."""
    typical = np.median(own, axis=0)
    through = int(np.argmax(typical))
    ratio = float(typical[through] / np.median(np.delete(typical, through)))
    slices = np.median(sizes, axis=0)
    thinnest = int(np.argmin(slices))
    slice_axis = asked.get("slice_axis")
    if ratio > ANISOTROPY:
        auto, axis = 2, through
        reason = f"slices are {ratio:.1f} times as far apart as voxels within them"
    elif slices[thinnest] < FEW_SLICES:
        auto, axis = 2, thinnest
        reason = f"there are only {slices[thinnest]:.0f} slices"
    else:
        auto, axis = 3, through if ratio > 1.2 else 2  # spacings that hardly differ say nothing; axial then
        reason = f"voxels are at most {ratio:.1f} times as long as wide, and there are {slices.min():.0f} slices"
    chosen = auto if dims == "auto" else int(dims)
    if chosen != auto:
        reason = f"{chosen}-D was asked for (auto would take {auto}-D: {reason})"
    if chosen == 3:
        slice_axis = None
    elif slice_axis is None:
        slice_axis = axis
    if slice_axis is not None:
        reason += f"; slices are taken across the axis {DIRECTIONS[slice_axis]}"
    _require_spacing(asked.get("spacing_mm", ()), sizes * own)
    resized = [axis for axis, voxels in enumerate(asked.get("resize", ())) if voxels is not None]
    voxels = np.array([asked["resize"][axis] for axis in resized])
    own = own.copy()
    own[:, resized] *= sizes[:, resized] / voxels
    typical = np.median(own, axis=0)
    spacing = asked.get("spacing_mm", _target_spacing(own, slice_axis, through if ratio > ANISOTROPY else None))
    target = np.array([typical[axis] if mm is None else mm for axis, mm in enumerate(spacing)])
    extent = np.median(sizes * own / target, axis=0)
    extent[resized] = voxels
    axes = [axis for axis in range(3) if axis != slice_axis]
    return _Space(chosen, slice_axis, reason, spacing, np.ceil(extent - 0.01)[axes], target[axes])


def _require_spacing(spacing_mm: Sequence[float | None], extents_mm: Any) -> None:
    """extents_mm: one row a scan. Raises UserError for a spacing of which a typical scan has not even one voxel."""
    for axis, mm in enumerate(spacing_mm):
        most = float(np.median(extents_mm[:, axis]))
        if mm is not None and mm > most:
            raise UserError(
                f"plan.spacing_mm.{axis}: got {mm:g}, expected at most {most:.4g}, which is how far scans reach "
                f"{DIRECTIONS[axis]}; correct it"
            )


def _target_spacing(own: Any, slice_axis: int | None, coarse_axis: int | None) -> tuple[float | None, ...]:
    """The median, which changes fewest scans, but for two axes.

    Across slices in 2-D each scan keeps its own: nothing is gained by inventing slices. Across coarse slices
    in 3-D the 10th percentile, not finer than within them: the median would throw away the detail of the
    better scans (the rule of nnU-Net).
    """
    target: list[float | None] = [_rounded(float(mm)) for mm in np.median(own, axis=0)]
    if coarse_axis is not None:
        within = max(float(mm) for axis, mm in enumerate(np.median(own, axis=0)) if axis != coarse_axis)
        target[coarse_axis] = _rounded(max(float(np.percentile(own[:, coarse_axis], 10)), within))
    if slice_axis is not None:
        target[slice_axis] = None
    return tuple(target)


def _rounded(mm: float) -> float:
    """To four decimals, which would be 0 for scans of a microscope."""
    return round(mm, 4) if mm >= 1e-3 else mm


def _patch(
    space: _Space, fingerprint: Fingerprint, memory_gb: float, ratio: float, asked: Mapping[str, Any]
) -> tuple[tuple[int, ...], NetworkPlan, int]:
    """The largest patch of which the smallest batch fits, its network, and the batch that fits then."""
    network_for = _network_chooser(space, asked.get("network", {}))
    least, most = (asked["batch"],) * 2 if "batch" in asked else BATCH[space.dims]

    def memory(patch: Sequence[int], network: NetworkPlan, batch: int) -> float:
        patches = batch + asked.get("unlabelled_batch", _unlabelled(batch, ratio))
        return training_memory_gb(patch, patches, network, len(fingerprint.channels), len(fingerprint.classes))

    if "patch" in asked:
        patch = asked["patch"]
        if len(patch) != space.dims:
            raise UserError(f"plan.patch: got {patch}, expected {space.dims} sizes; give one for each axis")
        network = network_for(patch)
    else:
        for patch, network in _patches(space, network_for):
            if memory(patch, network, least) <= memory_gb:
                break
        else:
            needed = memory(patch, network, least)
            raise UserError(
                f"memory_gb: got {memory_gb:g}, expected at least {needed:.2g} for the smallest patch; "
                "raise it, or lower batch or network.widths"
            )
    batch = most
    while batch > least and (
        memory(patch, network, batch) > memory_gb or batch * math.prod(patch) > BATCH_VOXELS[space.dims]
    ):
        batch -= 1
    return patch, network, batch


def _unlabelled(batch: int, ratio: float) -> int:
    return max(1, round(batch * ratio))


def _patches(space: _Space, network_for: Callable[[Any], NetworkPlan]) -> Iterator[tuple[tuple[int, ...], NetworkPlan]]:
    """From the whole median scan down: the longest sides in mm are cut first, so patches become cubes."""
    limit_mm = float((space.size * space.mm).max())
    while True:
        size = np.minimum(space.size, np.ceil(limit_mm / space.mm))
        network = network_for(size)
        stride = np.array(MONAI_MULTIPLE if network.from_monai else network.stride(space.dims))
        yield tuple(int(side) for side in np.ceil(size / stride) * stride), network
        if (size <= SMALLEST_SIDE).all():
            return
        limit_mm *= 0.95


def _network_chooser(space: _Space, asked: Mapping[str, Any]) -> Callable[[Any], NetworkPlan]:
    """size of the patch -> network; `asked` holds what is already decided about it."""
    if asked.get("name", "unet") != "unet":  # a published network keeps its depth, and patches follow it
        published = NetworkPlan.halving(asked, space.dims)
        published.check(space.dims, "plan.network")
        return lambda _size: published
    # a depth that was asked for is built even where the coarsest resolution becomes tiny
    levels, smallest = (len(asked["widths"]), 2) if "widths" in asked else (LEVELS, SMALLEST_SIDE)

    def network_for(size: Any) -> NetworkPlan:
        strides = asked.get("strides", _strides(size, space.mm, levels, smallest))
        widths = [min(FIRST_WIDTH * 2**level, LAST_WIDTH[space.dims]) for level in range(len(strides) + 1)]
        network = NetworkPlan.model_validate({"widths": widths, "strides": strides, **asked})
        network.check(space.dims, "plan.network")
        return network

    return network_for


def _strides(size: Any, mm: Any, levels: int, smallest: int) -> list[list[int]]:
    """Halve every axis that stays long enough, one of coarse voxels only once the others have caught up."""
    size, mm = np.array(size, float), np.array(mm, float)
    strides: list[list[int]] = []
    while len(strides) < levels - 1:
        possible = size >= 2 * smallest
        if not possible.any():
            break
        step = np.where(possible & (mm < 2 * mm[possible].min()), 2, 1)
        strides.append([int(side) for side in step])
        size, mm = size / step, mm * step
    return strides


def requested(
    given: Mapping[str, Any], channels: Sequence[str] = (UNDECLARED,), classes: Mapping[str, int] = _NO_CLASSES
) -> dict[str, Any]:
    """The values that were asked for, of the types of a plan; a mistake is a UserError that names the key.

    Without channels and classes, which only the scans tell, all that can be seen before they are read.
    """
    blank = {
        "dims": 3,
        "channels": channels,
        "classes": dict(classes),
        "spacing_mm": (None, None, None),
        "normalisation": [],
        "patch": (),
        "batch": 1,
        "unlabelled_batch": 0,
    }
    plan = Plan.parse(merged(blank, given), "plan")
    asked = {key: getattr(plan, key) for key in given}
    if "network" in given:
        asked["network"] = {key: getattr(plan.network, key) for key in given["network"]}
    return asked


def make_plan(
    dataset: Dataset,
    splits: Splits,
    *,
    dims: Dims = "auto",
    memory_gb: float = 8.0,
    unlabelled_ratio: float | None = None,
    overrides: Mapping[str, Any] | None = None,
    workers: int = 1,
) -> Plan:
    """Measure the scans that are not test scans and plan for them; see `plan_from` for the arguments.

    Labels are read of labelled and validation cases only. Raises InputError for unreadable files, cases with
    different numbers of channels, labels without foreground, and what `plan_from` raises.
    """
    declared = ("channel_suffix", "relabel", "other_is_background", "regions")
    overrides = {**{key: getattr(dataset, key) for key in declared}, **(overrides or {})}
    measured = measure(dataset, splits, workers, windows="normalisation" not in overrides)
    return plan_from(measured, dims=dims, memory_gb=memory_gb, unlabelled_ratio=unlabelled_ratio, overrides=overrides)
