"""Mean Teacher: Tarvainen and Valpola, NeurIPS 2017, arXiv 1703.01780; for segmentation as in SSL4MIS."""

from __future__ import annotations

import math

from reference.voxels import at, everywhere, mean_over, softmax, squared_error, supervised


def noise(normal):
    """SSL4MIS's change of the teacher's input: a tenth of normal noise, cut at two deviations."""
    return [min(max(0.1 * z, -0.2), 0.2) for z in normal]


def consistency(student_logits, teacher_logits, inside=None):
    """Squared distance of the two softmaxes: sum over classes, mean over voxels."""
    inside = everywhere(student_logits) if inside is None else inside
    target = softmax(teacher_logits)
    return mean_over(inside, lambda place: squared_error(at(target, place), at(student_logits, place)))


def sigmoid_ramp(progress):
    """exp(-5 (1 - t)^2), t from 0 to 1: starts at .0067, not at zero (Laine and Aila, arXiv 1610.02242)."""
    t = min(max(progress, 0.0), 1.0)
    return math.exp(-5 * (1 - t) ** 2)


def terms(labelled_logits, label, student_logits, teacher_logits, weight=1.0, inside=None, with_dice=True):
    """Sum over classes, mean over voxels; the student saw the unlabelled images, the teacher other views of them."""
    return {
        "supervised": supervised(labelled_logits, label, with_dice),
        "consistency": weight * consistency(student_logits, teacher_logits, inside),
    }
