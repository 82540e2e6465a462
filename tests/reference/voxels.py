"""What the oracles of the methods share: probabilities and losses of one voxel, and sums over voxels, in plain loops.

Arrays are numpy: logits and distributions (rows, classes, *spatial), labels and masks (rows, *spatial). Pass
`tensor.detach().numpy()`. Everything is computed in 64 bits. Unless a name says `published`, a term is a sum over
classes and a mean over the voxels that are valid.
"""

from __future__ import annotations

import math

import numpy as np

IGNORE = -100
"""A voxel that is not annotated."""


def places(array):
    """(row, *spatial) of every voxel of labels or masks."""
    return list(np.ndindex(*array.shape))


def at(x, place):
    """The channels of (rows, channels, *spatial) at one voxel, as a list of numbers."""
    row, *where = place
    return [float(channel[tuple(where)]) for channel in x[row]]


def everywhere(x):
    """The mask, all true, that goes with (rows, channels, *spatial)."""
    return np.ones((len(x), *x.shape[2:]), dtype=bool)


def normalised(logits):
    """Log probabilities of one voxel's logits."""
    top = max(logits)
    total = top + math.log(sum(math.exp(z - top) for z in logits))
    return [z - total for z in logits]


def softmax(logits):
    """Probabilities, voxel by voxel."""
    found = np.zeros(logits.shape)
    for row, *where in places(logits[:, 0]):
        for channel, log_p in enumerate(normalised(at(logits, (row, *where)))):
            found[(row, channel, *where)] = math.exp(log_p)
    return found


def one_hot(label, classes):
    """Distributions; background where nothing is annotated."""
    found = np.zeros((len(label), classes, *label.shape[1:]))
    for row, *where in places(label):
        value = int(label[(row, *where)])
        found[(row, 0 if value == IGNORE else value, *where)] = 1
    return found


def sharpened(probability, temperature):
    """`p^(1/T) / sum p^(1/T)`, voxel by voxel."""
    found = np.zeros(probability.shape)
    for row, *where in places(probability[:, 0]):
        powers = [p ** (1 / temperature) for p in at(probability, (row, *where))]
        for channel, power in enumerate(powers):
            found[(row, channel, *where)] = power / sum(powers)
    return found


def guesses(logits):
    """The most probable class of every voxel, the first of equals, and its probability."""
    label = np.zeros((len(logits), *logits.shape[2:]), dtype=int)
    confidence = np.zeros(label.shape)
    for place in places(label):
        log_p = normalised(at(logits, place))
        label[place] = log_p.index(max(log_p))
        confidence[place] = math.exp(max(log_p))
    return label, confidence


def cross_entropy(target, logits):
    """-sum_c t log p of one voxel."""
    return -sum(t * log_p for t, log_p in zip(target, normalised(logits), strict=True) if t > 0)


def divergence(target, logits):
    """sum_c t log(t / p) of one voxel."""
    return cross_entropy(target, logits) + sum(t * math.log(t) for t in target if t > 0)


def squared_error(target, logits):
    """sum_c (p - t)^2 of one voxel."""
    return sum((math.exp(log_p) - t) ** 2 for t, log_p in zip(target, normalised(logits), strict=True))


def mean_over(valid, of):
    """Mean of `of(place)` over the places that are valid; zero if there are none."""
    total, count = 0.0, 0
    for place in places(valid):
        if valid[place]:
            total += of(place)
            count += 1
    return total / count if count else 0.0


def dice(target, logits, valid):
    """1 - 2 sum(p t) / (sum p^2 + sum t^2), pooled over rows, mean over the foreground classes that are present.

    Present: at least one half in some valid voxel of the target. Zero if no class is.
    """
    losses = []
    for channel in range(1, target.shape[1]):
        overlap = squares = largest = 0.0
        for place in places(valid):
            if valid[place]:
                t, p = at(target, place)[channel], math.exp(normalised(at(logits, place))[channel])
                overlap += p * t
                squares += p * p + t * t
                largest = max(largest, t)
        if largest >= 0.5:
            losses.append(1 - 2 * overlap / squares)
    return sum(losses) / len(losses) if losses else 0.0


def supervised(logits, label, with_dice=True):
    """Mean cross-entropy of the annotated voxels, plus Dice."""
    target, valid = one_hot(label, logits.shape[1]), label != IGNORE
    loss = mean_over(valid, lambda place: cross_entropy(at(target, place), at(logits, place)))
    return loss + dice(target, logits, valid) if with_dice else loss


def pasted(x, other, box):
    """`other` inside the box, `x` outside; for images, distributions, labels and masks. Box: (rows, *spatial)."""
    found = np.array(x)
    for row, *where in places(box):
        if box[(row, *where)]:
            found[(row, ..., *where)] = other[(row, ..., *where)]
    return found
