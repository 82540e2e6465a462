"""UniMatch: Yang et al., CVPR 2023, arXiv 2208.09910; the medical terms as in more-scenarios/medical/unimatch.py."""

from __future__ import annotations

import numpy as np
from reference.fixmatch import consistency_with, consistency_with_cutmix
from reference.voxels import guesses, supervised

STRONG, FEATURES = 0.25, 0.5
"""Weights of each strong view and of the perturbed features; with two strong views they add up to one."""


def perturbed(features, kept, probability=0.5):
    """Channel dropout: whole channels of a row are zero, the others divided by 1 - probability.

    `kept`: (rows, channels) of true and false, a fresh draw at every skip level and at the bottleneck.
    """
    found = np.array(features, dtype=float)
    for row in range(found.shape[0]):
        for channel in range(found.shape[1]):
            found[row, channel] = found[row, channel] / (1 - probability) if kept[row, channel] else 0.0
    return found


def unlabelled(strong, features, threshold=0.95):
    """Cross-entropies of both strong views and of the weak view with perturbed features, unweighted.

    Doubtful voxels count as zero in the mean. `strong`: two of (logits of the weak view, of the weak view of the image
    pasted in, of the strong view, box, inside). `features`: (logits of the weak view, with perturbed features, inside).
    """
    losses = [
        consistency_with_cutmix(weak, other, logits, box, threshold, inside)
        for weak, other, logits, box, inside in strong
    ]
    weak, logits, inside = features
    return [*losses, consistency_with(*guesses(weak), logits, threshold, inside)]


def terms(labelled_logits, label, strong, features, threshold=0.95, weight=1.0):
    """Sums of the paper; the three views are one term."""
    first, second, third = unlabelled(strong, features, threshold)
    return {
        "supervised": supervised(labelled_logits, label),
        "consistency": weight * (STRONG * (first + second) + FEATURES * third),
    }
