"""EquiReg: KL(T(f(u)) || f(T(u))), voxel by voxel, for any T that is given as a map of indices.

`source`: (rows, *spatial), the flat index of the voxel of the same row that a voxel's value comes from, or -1 where
it comes from outside the picture. A mirror, a rotation by 90 degrees and a shift by whole voxels are such maps.
"""

from __future__ import annotations

import math

import numpy as np
from reference.voxels import (
    IGNORE,
    at,
    divergence,
    mean_over,
    normalised,
    one_hot,
    places,
    sharpened,
    softmax,
)


def moved(x, source):
    """T of images, logits or distributions (rows, channels, *spatial); zero from outside."""
    found = np.zeros(x.shape)
    for row, *where in places(source):
        index = int(source[(row, *where)])
        if index >= 0:
            for channel in range(x.shape[1]):
                found[(row, channel, *where)] = x[row, channel].reshape(-1)[index]
    return found


def moved_mask(mask, source):
    """T of a mask; false from outside."""
    found = np.zeros(mask.shape, dtype=bool)
    for row, *where in places(source):
        index = int(source[(row, *where)])
        found[(row, *where)] = index >= 0 and bool(mask[row].reshape(-1)[index])
    return found


def target_of(frozen_logits, inside, source, temperature=1.0):
    """T(f(u)), sharpened, and the mask of voxels that are scored."""
    target = moved(softmax(frozen_logits), source)
    valid = moved_mask(inside, source)
    for row, *where in places(source):
        if source[(row, *where)] < 0:  # any distribution: it is not scored
            target[(row, slice(None), *where)] = 1 / target.shape[1]
    return (target if temperature == 1 else sharpened(target, temperature)), valid


def consistency(target, view_logits, valid, confidence=0.0, weight=1.0):
    """sum_c t log(t / p), mean over valid voxels; those whose largest target is below the confidence count as zero.

    `view_logits`: f(T(u)). For CutMix, pass target and mask through `voxels.pasted` first.
    """

    def loss(place):
        t = at(target, place)
        return divergence(t, at(view_logits, place)) if max(t) >= confidence else 0.0

    return weight * mean_over(valid, loss)


def without_learned(label, logits, threshold):
    """The label, IGNORE where the probability of the right class exceeds the threshold (signal annealing)."""
    found = np.array(label)
    classes = one_hot(label, logits.shape[1])
    for place in places(found):
        right = sum(
            t * math.exp(log_p) for t, log_p in zip(at(classes, place), normalised(at(logits, place)), strict=True)
        )
        if right > threshold:
            found[place] = IGNORE
    return found
