"""FixMatch: Sohn et al., NeurIPS 2020, arXiv 2001.07685, for every voxel, as UniMatch's own baseline does it."""

from __future__ import annotations

from reference.voxels import (
    at,
    cross_entropy,
    everywhere,
    guesses,
    mean_over,
    one_hot,
    pasted,
)


def consistency_with(label, confidence, strong_logits, threshold, inside=None):
    """Cross-entropy against given labels where their confidence reaches the threshold; others count as zero."""
    inside = everywhere(strong_logits) if inside is None else inside
    target = one_hot(label, strong_logits.shape[1])

    def loss(place):
        sure = confidence[place] >= threshold
        return cross_entropy(at(target, place), at(strong_logits, place)) if sure else 0.0

    return mean_over(inside, loss)


def consistency_with_cutmix(weak_logits, other_logits, strong_logits, box, threshold=0.95, inside=None):
    """Labels and confidences of another image's weak view inside the box, as the strong view has its pixels there."""
    mine, theirs = guesses(weak_logits), guesses(other_logits)
    label, confidence = (pasted(a, b, box) for a, b in zip(mine, theirs, strict=True))
    return consistency_with(label, confidence, strong_logits, threshold, inside)
