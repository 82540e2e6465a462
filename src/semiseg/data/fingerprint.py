"""What the scans that are not test scans are like: all that a plan is made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from semiseg.data.dataset import Case, Dataset
from semiseg.data.facts import CaseFacts, ImageFacts, LabelFacts, all_facts
from semiseg.data.images import ras_spacing, read_image, read_label, to_ras
from semiseg.data.label_values import class_value, class_values
from semiseg.data.plan import Normalisation
from semiseg.data.splits import Splits
from semiseg.draws import seed_of
from semiseg.errors import InputError
from semiseg.progress import track
from semiseg.types import Geometry

MOSTLY_ZERO = 0.25
"""Median share of zero voxels from which scans are cropped to the others (the threshold of nnU-Net)."""
CT_VOXELS = 100_000
"""Foreground voxels of each scan that a CT window is measured on, at most: percentiles need no more."""
CT_VOXELS_IN_ALL = 10_000_000
"""Of all scans together, so that memory does not grow with the cohort."""
UNDECLARED = "undeclared"
"""Name of a channel that the dataset does not name; normalised like MR."""


@dataclass(frozen=True)
class Fingerprint:
    """What a plan is made from: facts about scans that are not test scans. Triples are in RAS axis order."""

    channels: tuple[str, ...]
    classes: dict[str, int]
    shapes: tuple[tuple[int, int, int], ...]
    """Voxels of each scan."""
    boxes: tuple[tuple[int, int, int], ...]
    """Voxels of the box around what is not zero in each scan."""
    spacings_mm: tuple[tuple[float, float, float], ...]
    zero_shares: tuple[float, ...]
    """Share of voxels that are zero, of each scan."""
    normalisation: tuple[Normalisation, ...]
    """One per channel."""
    ignore: int | None = None

    @property
    def crop_nonzero(self) -> bool:
        """Whether scans are mostly zero outside. Never with CT, where zero is water."""
        return not any(map(_is_ct, self.channels)) and float(np.median(self.zero_shares)) > MOSTLY_ZERO

    def summary(self) -> dict[str, Any]:
        """For the reader of a plan."""
        facts: dict[str, Any] = {"scans": len(self.shapes)}
        for name, values in (
            ("shape", self.shapes),
            ("nonzero_box", self.boxes),
            ("spacing_mm", self.spacings_mm),
        ):
            for word, function in (("smallest", np.min), ("median", np.median), ("largest", np.max)):
                facts[f"{word}_{name}"] = np.round(function(values, axis=0), 4).tolist()
        return facts | {"median_zero_share": round(float(np.median(self.zero_shares)), 4)}


def measure(dataset: Dataset, splits: Splits, workers: int = 1, *, windows: bool = True) -> Fingerprint:
    """The fingerprint of a dataset's labelled, unlabelled and validation scans, test scans left out.

    windows: measure those of CT; not needed where the plan's normalisation is given.
    """
    cases = splits.not_test
    facts = all_facts(cases, workers)
    images = [_readable(case, facts[case.name]) for case in cases]
    channels = dataset.channels or (UNDECLARED,) * len(cases[0].images)
    for case, scans in zip(cases, images, strict=True):
        if len(scans) != len(channels):
            raise InputError(
                f"{case.images[0]}: got {len(scans)} channel(s), expected {len(channels)}; "
                "add or remove channel files, or leave the case out"
            )
    visible = [facts[case.name] for case in (*splits.labelled, *splits.val)]
    return Fingerprint(
        channels=channels,
        classes=dataset.classes or _classes_found(visible, dataset),
        shapes=tuple(_ras_sides(scans[0].shape, scans[0].geometry) for scans in images),
        boxes=tuple(_nonzero_box(scans) for scans in images),
        spacings_mm=tuple(ras_spacing(scans[0].geometry) for scans in images),
        zero_shares=tuple(min(scan.zero_share for scan in scans) for scans in images),
        normalisation=tuple(
            _window(splits.labelled, channel, dataset) if windows and _is_ct(name) else Normalisation()
            for channel, name in enumerate(channels)
        ),
        ignore=dataset.ignore,
    )


def _is_ct(channel: str) -> bool:
    return channel.upper() == "CT"


def _readable(case: Case, facts: CaseFacts) -> list[ImageFacts]:
    scans = []
    for path, image in zip(case.images, facts.images, strict=True):
        if not isinstance(image, ImageFacts):
            raise InputError(f"{path}: got {image.found}, expected {image.expected}; {image.action}")
        scans.append(image)
    return scans


def _ras_sides(sides: Sequence[int], geometry: Geometry) -> tuple[int, int, int]:
    """Sides of a box in file order as sides along the RAS axes."""
    x, y, z = to_ras(np.broadcast_to(np.uint8(0), tuple(sides)), geometry.affine).shape
    return (x, y, z)


def _nonzero_box(scans: Sequence[ImageFacts]) -> tuple[int, int, int]:
    """Sides of the box around what is not zero in any channel; the whole scan where all is zero."""
    boxes = [np.array(scan.box) for scan in scans if scan.box is not None]
    if not boxes:
        return _ras_sides(scans[0].shape, scans[0].geometry)
    sides = np.max([box[:, 1] for box in boxes], axis=0) - np.min([box[:, 0] for box in boxes], axis=0)
    return _ras_sides([int(side) for side in sides], scans[0].geometry)


def _classes_found(cases: Iterable[CaseFacts], dataset: Dataset) -> dict[str, int]:
    """The values in visible labels, named by their number; 0 is always there as the background."""
    labels = (facts.label for facts in cases if isinstance(facts.label, LabelFacts))
    found = {class_value(value, dataset) for label in labels for value in label.values}
    return {"background": 0} | {str(value): value for value in sorted(found - {0, dataset.ignore})}


def _window(cases: Sequence[Case], channel: int, dataset: Dataset) -> Normalisation:
    """Percentiles, mean and deviation of the foreground in the labelled scans (as nnU-Net does for CT)."""
    most = min(CT_VOXELS, CT_VOXELS_IN_ALL // max(1, len(cases)))
    shown = track(cases, "Measuring intensities")
    samples = [_foreground_intensities(case, channel, dataset, most) for case in shown]
    voxels = np.concatenate([np.zeros(0, np.float32), *samples]).astype(np.float64)
    if not voxels.size:
        names = ", ".join(case.name for case in cases)
        raise InputError(
            f"labels of {names}: got no foreground voxel, expected some to measure the CT window on; "
            "choose other labelled scans, or give `normalisation` in the plan"
        )
    low, high = np.percentile(voxels, (0.5, 99.5))
    return Normalisation(
        scheme="window",
        low=float(low),
        high=float(high),
        mean=float(voxels.mean()),
        deviation=float(voxels.std()) or 1.0,
    )


def _foreground_intensities(case: Case, channel: int, dataset: Dataset, most: int) -> Float[np.ndarray, " n"]:
    """Of at most `most` random voxels."""
    assert case.label is not None
    label = read_label(case.label)
    image = read_image(case.images[channel])
    if label.geometry.shape != image.geometry.shape:
        raise InputError(
            f"{case.label}: got shape {label.geometry.shape}, expected {image.geometry.shape} like "
            f"{case.images[channel]}; resample one onto the other, or leave the case out"
        )
    values = class_values(label.array, dataset)
    foreground = values > 0 if dataset.ignore is None else (values > 0) & (values != dataset.ignore)
    voxels = image.array[foreground]
    if len(voxels) > most:
        voxels = np.random.default_rng(seed_of("window", case.name)).choice(voxels, most, replace=False)
    return voxels
