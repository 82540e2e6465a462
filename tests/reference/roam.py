"""ROAM: Bdair et al., arXiv 2003.09439. Mixing row by row, losses voxel by voxel."""

from __future__ import annotations

import numpy as np
from reference.voxels import (
    IGNORE,
    at,
    cross_entropy,
    dice,
    mean_over,
    one_hot,
    places,
    sharpened,
    softmax,
    squared_error,
)


def guess(views, temperature=0.5):
    """The sharpened mean over the softmaxes of one or more views' logits (MixMatch, eq. 6 and 7; ROAM has one view)."""
    total = np.zeros(views[0].shape)
    for logits in views:
        total = total + softmax(logits)
    return sharpened(total / len(views), temperature)


def mixed(x, partner, share):
    """Row i becomes share x_i + (1 - share) x_partner(i). `share`: one number, or one a row."""
    rows = []
    for row in range(len(x)):
        own = share[row] if np.ndim(share) else share
        rows.append(own * x[row] + (1 - own) * x[int(partner[row])])
    return rows


def mixed_mask(mask, partner):
    """True where both rows are."""
    return np.stack([mask[row] & mask[int(partner[row])] for row in range(len(mask))])


def forward(before, after, images, partner, share, mix_skips=True):
    """Logits of a network that is split at the mixed layer, as a list of rows.

    `before(image)` gives the layer's features and a list of the skips that lead around it, `after(features, skips)`
    the row's logits; each is called for one row alone. For networks whose rows do not see each other: no batch norm.
    """
    features, skips = [], []
    for image in images:
        hidden, around = before(image)
        features.append(hidden)
        skips.append(around)
    rows = []
    for row, hidden in enumerate(mixed(features, partner, share)):
        around = skips[row]
        if mix_skips:
            around = [
                mixed([skips[r][level] for r in range(len(skips))], partner, share)[row] for level in range(len(around))
            ]
        rows.append(after(hidden, around))
    return rows


def targets(label, guesses, classes):
    """Distributions before mixing: labels, then the guesses of the unlabelled rows, already sharpened; or none."""
    labelled = one_hot(label, classes)
    return labelled if guesses is None else np.concatenate([labelled, guesses])


def terms(logits, label, guesses, partner, share, weight=1.0, inside=None, confidence=0.0, with_dice=True):
    """Labelled rows first: cross-entropy (and Dice) there, squared error on the others, against mixed targets.

    A voxel is scored where both rows are valid; one where either target is not confident counts as zero in the
    squared error. `guesses` and `inside` are None where there are no unlabelled rows.
    """
    labelled = len(label)
    target, valid = targets(label, guesses, logits.shape[1]), label != IGNORE
    if guesses is not None:
        other = np.ones((len(guesses), *label.shape[1:]), dtype=bool) if inside is None else inside
        valid = np.concatenate([valid, other])
    sure = np.zeros(valid.shape, dtype=bool)
    for place in places(sure):
        sure[place] = max(at(target, place)) >= confidence
    target = np.stack(mixed(target, partner, share))
    valid, sure = mixed_mask(valid, partner), mixed_mask(sure, partner)

    only_labelled, only_unlabelled = valid.copy(), valid.copy()
    only_labelled[labelled:] = False
    only_unlabelled[:labelled] = False
    found = {"supervised": mean_over(only_labelled, lambda place: cross_entropy(at(target, place), at(logits, place)))}
    if with_dice:
        found["dice"] = dice(target, logits, only_labelled)
    if guesses is not None:

        def error(place):
            return squared_error(at(target, place), at(logits, place)) if sure[place] else 0.0

        found["consistency"] = weight * mean_over(only_unlabelled, error)
    return found
