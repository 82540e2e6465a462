"""Losses: tensors to a scalar, or to one number a voxel. Class axis 1; sums over classes, means over voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from semiseg.types import IGNORE

Regions = Sequence[Sequence[int]]
"""The class indices that each region unites; empty where classes are compared one by one."""
Mean = Callable[[Tensor, Tensor], Tensor]
"""One number of the elements (b, *spatial) that a mask selects: `masked_mean` or `mean_over_images`."""


def supervised(
    logits: Float[Tensor, "b classes *spatial"],
    label: Int[Tensor, "b *spatial"],
    dice: bool = True,
    regions: Regions = (),
    weight: Float[Tensor, "b *spatial"] | None = None,
    mean: Mean | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy plus soft Dice (unless told) over the annotated voxels, of the classes or of `regions`.

    weight: of each voxel's cross-entropy, one unless told. mean: of the cross-entropy, `masked_mean` unless told.
    """
    valid = label != IGNORE
    target = one_hot(label, logits.shape[1])
    entropy = labelled_entropy(target, logits, regions)
    loss = (mean or masked_mean)(entropy if weight is None else weight * entropy, valid)
    return loss + soft_dice(target, logits, valid, regions) if dice else loss


def one_hot(label: Int[Tensor, "b *spatial"], classes: int) -> Float[Tensor, "b classes *spatial"]:
    """A distribution a voxel; all background where the label is IGNORE (mask those voxels)."""
    return F.one_hot(torch.where(label == IGNORE, 0, label).long(), classes).movedim(-1, 1).float()


def most_probable(scores: Float[Tensor, "b classes *spatial"]) -> Float[Tensor, "b classes *spatial"]:
    """The class with the largest probability or logit as a distribution, held constant: a hard pseudo-label."""
    return one_hot(scores.argmax(1), scores.shape[1])


def cross_entropy(
    target: Float[Tensor, "b classes *spatial"], logits: Float[Tensor, "b classes *spatial"]
) -> Float[Tensor, "b *spatial"]:
    """-sum_c t log p, for targets that may be soft."""
    return -(target * logits.float().log_softmax(1)).sum(1)


def labelled_entropy(
    target: Float[Tensor, "b classes *spatial"], logits: Float[Tensor, "b classes *spatial"], regions: Regions = ()
) -> Float[Tensor, "b *spatial"]:
    """`cross_entropy`; with `regions` their binary cross-entropies, mean over regions.

    A region's probability is the sum of its classes' probabilities, so predictions of nested regions always fit into
    each other. With one region of one class beside the background it is the cross-entropy of the two classes.
    """
    if not regions:
        return cross_entropy(target, logits)
    inside = _united(target, regions)
    log_inside, log_outside = _log_probabilities(logits, regions)
    return -(inside * log_inside + (1 - inside) * log_outside).mean(1)


def _united(target: Float[Tensor, "b classes *spatial"], regions: Regions) -> Float[Tensor, "b regions *spatial"]:
    return torch.stack([target[:, list(region)].sum(1) for region in regions], 1)


def _log_probabilities(
    logits: Float[Tensor, "b classes *spatial"], regions: Regions
) -> tuple[Float[Tensor, "b regions *spatial"], Float[Tensor, "b regions *spatial"]]:
    """Of each region and of all classes outside it. Sums stay logarithms: neither is ever log 0."""
    log_p = logits.float().log_softmax(1)
    outside = [[index for index in range(logits.shape[1]) if index not in region] for region in regions]
    within, without = (
        torch.stack([log_p[:, list(members)].logsumexp(1) for members in united], 1) for united in (regions, outside)
    )
    return within, without


def kl(
    target: Float[Tensor, "b classes *spatial"], logits: Float[Tensor, "b classes *spatial"]
) -> Float[Tensor, "b *spatial"]:
    """sum_c t log(t / p): zero where the prediction equals the target."""
    return torch.xlogy(target, target).sum(1) + cross_entropy(target, logits)


def squared_error(
    target: Float[Tensor, "b classes *spatial"], logits: Float[Tensor, "b classes *spatial"]
) -> Float[Tensor, "b *spatial"]:
    """sum_c (p - t)^2. The published mean over classes is this divided by the number of classes."""
    return (logits.float().softmax(1) - target).square().sum(1)


def soft_dice(
    target: Float[Tensor, "b classes *spatial"],
    logits: Float[Tensor, "b classes *spatial"],
    valid: Bool[Tensor, "b *spatial"],
    regions: Regions = (),
) -> Float[Tensor, ""]:
    """1 - Dice, mean over the foreground classes (or `regions`) that the target has, each pooled over the batch.

    2 sum(p t) / (sum p^2 + sum t^2) (Milletari et al. 2016): zero for a perfect prediction, of a soft target too.
    A target has a class if it is at least one half somewhere: mixing leaves a label that much of its voxel, while the
    tails of a guess are of every class everywhere, and Dice would weigh each of them like an organ. A class that the
    target has not has no Dice: cross-entropy alone tells the network not to predict it.
    """
    probability, target = (torch.where(valid[:, None], p, 0) for p in (logits.float().softmax(1), target))
    probability, target = (_united(p, regions) if regions else p[:, 1:] for p in (probability, target))
    over = (0, *range(2, target.ndim))
    overlap = 2 * (probability * target).sum(over)
    total = probability.square().sum(over) + target.square().sum(over)
    present = target.amax(over) >= 0.5
    # no foreground at all in the batch: a zero that still belongs to the graph
    return masked_mean(1 - overlap / total.clamp(min=1e-6), present)


def masked_mean(x: Float[Tensor, "*any"], mask: Bool[Tensor, "*any"]) -> Float[Tensor, ""]:
    """Mean over the selected elements; zero if there are none. Selects, so a NaN outside the mask does no harm."""
    return torch.where(mask, x, 0).sum() / mask.sum().clamp(min=1)


def mean_over_images(x: Float[Tensor, "b *spatial"], mask: Bool[Tensor, "b *spatial"]) -> Float[Tensor, ""]:
    """Mean over images of each one's `masked_mean`: all images weigh the same, one with nothing selected counts as
    zero."""
    axes = tuple(range(1, x.ndim))
    return (torch.where(mask, x, 0).sum(axes) / mask.sum(axes).clamp(min=1)).mean()
