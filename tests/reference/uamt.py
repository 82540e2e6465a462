"""Uncertainty-aware mean teacher: Yu et al., MICCAI 2019, arXiv 1907.07034; code yulequan/UA-MT and SSL4MIS."""

from __future__ import annotations

import math

import numpy as np
from reference.mean_teacher import sigmoid_ramp
from reference.voxels import at, everywhere, mean_over, places, softmax, squared_error, supervised


def mean_probability(passes):
    """Mean softmax over the teacher's passes: logits (passes, rows, classes, *spatial)."""
    total = np.zeros(passes[0].shape)
    for logits in passes:
        total = total + softmax(logits)
    return total / len(passes)


def entropy(probability):
    """-sum_c p log(p + 1e-6) of every voxel, in nats; from 0 to log(classes)."""
    found = np.zeros((len(probability), *probability.shape[2:]))
    for place in places(found):
        found[place] = -sum(p * math.log(p + 1e-6) for p in at(probability, place))
    return found


def threshold(progress, classes=2):
    """(3/4 + 1/4 ramp) of the largest entropy, log(classes). Both code bases write log 2 for any number of classes."""
    return (0.75 + 0.25 * sigmoid_ramp(progress)) * math.log(classes)


def certain(passes, limit):
    """Voxels whose entropy is below the limit."""
    return entropy(mean_probability(passes)) < limit


def consistency(student_logits, teacher_logits, passes, limit, inside=None):
    """Squared distance, sum over classes, mean over the certain voxels alone.

    The target is the softmax of the teacher's own pass, not the mean over passes, which only says what is certain.
    """
    inside = everywhere(student_logits) if inside is None else inside
    target = softmax(teacher_logits)
    kept = certain(passes, limit) & inside
    return mean_over(kept, lambda place: squared_error(at(target, place), at(student_logits, place)))


def terms(labelled_logits, label, student_logits, teacher_logits, passes, limit, weight=1.0, inside=None):
    """Sum over classes, mean over the certain voxels."""
    return {
        "supervised": supervised(labelled_logits, label),
        "consistency": weight * consistency(student_logits, teacher_logits, passes, limit, inside),
    }
