"""Bidirectional copy-paste: Bai et al., CVPR 2023, arXiv 2305.00673; code DeepMed-Lab-ECNU/BCP.

With labelled images a, b and unlabelled images u, v: the outward image is u around a box and a in it, the inward image
is b around a box and v in it.
"""

from __future__ import annotations

import itertools

import numpy as np
from reference.voxels import IGNORE, at, cross_entropy, dice, mean_over, one_hot, places


def largest_component(mask):
    """The largest group of true voxels that touch across a face, edge or corner; the first of equals."""
    left = {tuple(int(i) for i in place) for place in np.argwhere(mask)}
    largest = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        group, waiting = [start], [start]
        while waiting:
            voxel = waiting.pop()
            for step in itertools.product((-1, 0, 1), repeat=mask.ndim):
                neighbour = tuple(i + s for i, s in zip(voxel, step, strict=True))
                if neighbour in left:
                    left.remove(neighbour)
                    group.append(neighbour)
                    waiting.append(neighbour)
        if len(group) > len(largest):
            largest = group
    found = np.zeros(mask.shape, dtype=bool)
    for voxel in largest:
        found[voxel] = True
    return found


def cleaned(label, classes):
    """The largest component of every foreground class of every row; what is cut off becomes background."""
    found = np.zeros(label.shape, dtype=int)
    for row in range(len(label)):
        for value in range(1, classes):
            found[row][largest_component(label[row] == value)] = value
    return found


def guess(teacher_logits):
    """Most probable class of the teacher, cleaned."""
    label = np.zeros((len(teacher_logits), *teacher_logits.shape[2:]), dtype=int)
    for place in places(label):
        logits = at(teacher_logits, place)
        label[place] = logits.index(max(logits))
    return cleaned(label, teacher_logits.shape[1])


def entropy_of(logits, label, kept):
    """Mean cross-entropy of the annotated voxels that are kept."""
    target = one_hot(label, logits.shape[1])
    return mean_over(kept & (label != IGNORE), lambda place: cross_entropy(at(target, place), at(logits, place)))


def one_way(logits, label_around, label_in_box, box, weight_around, weight_in_box):
    """Half of cross-entropy plus Dice of either part, each with its own mean, its own Dice and its own weight.

    `box`: (rows, *spatial), true inside. Dice is that of `voxels.dice`: foreground classes that the part has.
    """
    total = 0.0
    for part, label, weight in ((~box, label_around, weight_around), (box, label_in_box, weight_in_box)):
        overlap = dice(one_hot(label, logits.shape[1]), logits, part & (label != IGNORE))
        total += weight * (entropy_of(logits, label, part) + overlap) / 2
    return total


def terms(outward, inward, alpha=0.5):
    """Both directions: labels weigh one, guesses alpha.

    Each direction: logits, label around the box (of the guess, outward), label in it (of the guess, inward), box.
    """
    return {"outward": one_way(*outward, alpha, 1.0), "inward": one_way(*inward, 1.0, alpha)}
