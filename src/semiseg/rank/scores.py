"""Scores of one scan that need no label. What they mean is written in docs/rank.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semiseg.data.plan import Plan
from semiseg.data.structures import Structure, structures_of
from semiseg.models.model import LoadedModel
from semiseg.models.windows import predict_probabilities
from semiseg.transforms.warp import Warp

MEASURED = ("equivariance_dice", "border_entropy", "volume_ml", "disagreement")
SCORES = (*MEASURED, "volume_z", "estimated_dice")
"""The last two need what is known of scans with labels."""
AVERAGED = ("equivariance_dice", "border_entropy", "disagreement")
"""Those of which a mean over structures means something."""

Row = dict[str, Any]
"""class, value, kind (class, region or mean) and MEASURED, later SCORES, of one structure; None where a score is not
defined."""


def score_image(
    models: Sequence[LoadedModel],
    image: Float[np.ndarray, "c i j k"],
    warp: Warp,
    spacing_mm: Sequence[float],
    device: torch.device | str = "cpu",
    compared: Sequence[LoadedModel] = (),
) -> list[Row]:
    """A row for the mean over classes (and one for that over regions), then one for each of `structures`.

    models: averaged on their probabilities; they must share one preparation. image: prepared for them. warp: the
    strong transformation T: a batch of one warp for each slice in 2-D, of a single one in 3-D; on the CPU.
    spacing_mm: of the image's axes. compared: whose disagreement is scored; the models unless told. One case's
    probabilities live at a time.
    """
    plan = models[0].plan
    listed = structures_of(plan)
    probability, guesses = _averaged(models, image, device)
    guess = _most_probable(probability)
    if compared:
        guesses = [
            guess
            if list(models) == [other]
            else _most_probable(predict_probabilities(other.network, image, plan, device))
            for other in compared
        ]
    target = warped_guess(warp, probability, plan.dims)
    entropies = [
        border_entropy(probability[list(each.members(plan))].sum(0), _mask(guess, each, plan), plan.dims)
        for each in listed
    ]
    del probability
    volume = torch.from_numpy(np.array(image, np.float32))
    moved = _as_volume(warp.image(_as_items(volume, plan.dims)), plan.dims)
    prediction = _most_probable(_averaged(models, moved.numpy(), device)[0])
    inside = _as_volume(warp.inside[:, None], plan.dims)[0]
    voxel_ml = math.prod(spacing_mm) / 1000
    rows = [
        {
            "class": each.name,
            "value": each.value,
            "kind": each.kind,
            "equivariance_dice": dice(_mask(prediction, each, plan) & inside, _mask(target, each, plan) & inside),
            "border_entropy": entropy,
            "volume_ml": int(_mask(guess, each, plan).sum()) * voxel_ml,
            "disagreement": disagreement([_mask(one, each, plan) for one in guesses]),
        }
        for each, entropy in zip(listed, entropies, strict=True)
    ]
    means = [_mean("mean", [row for row in rows if row["kind"] == "class"])]
    if plan.regions:
        means.append(_mean("regions_mean", [row for row in rows if row["kind"] == "region"]))
    return means + rows


def dice(first: Bool[Tensor, "*shape"], second: Bool[Tensor, "*shape"]) -> float | None:
    """2 |A and B| / (|A| + |B|); None where both are empty, which says nothing about a segmentation."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else None


def warped_guess(warp: Warp, probability: Float[Tensor, "classes i j k"], dims: int) -> Int[Tensor, "i j k"]:
    """argmax T(f(x)): the most probable class after the warp, the first of equals; one class is warped at a time."""
    items = _as_items(probability, dims)
    largest = warp(items[:, :1])
    guess = torch.zeros(largest.shape, dtype=torch.int16)
    for index in range(1, items.shape[1]):
        candidate = warp(items[:, index : index + 1])
        guess[candidate > largest] = index
        torch.maximum(largest, candidate, out=largest)
    return _as_volume(guess, dims)[0]


def border_entropy(probability: Float[Tensor, "i j k"], mask: Bool[Tensor, "i j k"], dims: int) -> float | None:
    """Mean over the border of `mask` of the entropy, in bits (0 to 1), of whether a voxel belongs to the structure.

    probability: of the structure. The border: voxels of the mask that share a face with one outside it, in the
    slice where dims is 2; the picture's edge is no border. None where there is none.
    """
    border = torch.zeros_like(mask)
    for axis in range(3 - dims, 3):
        change = mask.diff(dim=axis)
        border.narrow(axis, 0, change.shape[axis]).logical_or_(change)
        border.narrow(axis, 1, change.shape[axis]).logical_or_(change)
    p = probability[border & mask].clamp(0, 1)  # a sum of probabilities may exceed 1 by rounding
    if not p.numel():
        return None
    return float((torch.special.entr(p) + torch.special.entr(1 - p)).mean()) / math.log(2)


def disagreement(masks: Sequence[Bool[Tensor, "*shape"]]) -> float | None:
    """1 - the mean Dice over all pairs of models, without pairs that are both empty; None if there is no other."""
    pairs = [dice(first, second) for first, second in combinations(masks, 2)]
    defined = [value for value in pairs if value is not None]
    return 1 - fmean(defined) if defined else None


def _averaged(
    models: Sequence[LoadedModel], image: Float[np.ndarray, "c i j k"], device: torch.device | str
) -> tuple[Float[Tensor, "classes i j k"], list[Int[Tensor, "i j k"]]]:
    """The models' mean probability, and what each would say alone where there are several."""
    total: Tensor | None = None
    guesses = []
    for model in models:
        probability = predict_probabilities(model.network, image, model.plan, device)
        if len(models) > 1:
            guesses.append(_most_probable(probability))
        total = probability if total is None else total.add_(probability)
    assert total is not None
    return total.div_(len(models)), guesses


def _most_probable(probability: Float[Tensor, "classes i j k"]) -> Int[Tensor, "i j k"]:
    return probability.argmax(0).to(torch.int16)


def _mask(guess: Int[Tensor, "i j k"], structure: Structure, plan: Plan) -> Bool[Tensor, "i j k"]:
    return torch.isin(guess, torch.tensor(structure.members(plan), dtype=guess.dtype))


def _as_items(volume: Tensor, dims: int) -> Tensor:
    """(c, i, j, k) as a batch for the network: of slices in 2-D, of one volume in 3-D."""
    return volume.transpose(0, 1) if dims == 2 else volume[None]


def _as_volume(items: Tensor, dims: int) -> Tensor:
    """The way back from `_as_items`."""
    return items.transpose(0, 1) if dims == 2 else items[0]


def _mean(name: str, rows: Sequence[Row]) -> Row:
    """Over the structures that have the score."""
    means: Row = dict.fromkeys(MEASURED)
    for score in AVERAGED:
        values = [row[score] for row in rows if row[score] is not None]
        means[score] = fmean(values) if values else None
    return {"class": name, "value": "", "kind": "mean", **means}
