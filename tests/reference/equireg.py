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
    cross_entropy,
    divergence,
    mean_over,
    normalised,
    one_hot,
    places,
    sharpened,
    softmax,
)


def moved(x, source):
    """T of logits or distributions (rows, channels, *spatial); zero from outside."""
    found = np.zeros(x.shape)
    for row, *where in places(source):
        index = int(source[(row, *where)])
        if index >= 0:
            for channel in range(x.shape[1]):
                found[(row, channel, *where)] = x[row, channel].reshape(-1)[index]
    return found


def moved_image(x, source):
    """T of images; from outside, the middle one of the picture's outermost values, each face with its own corners."""
    found = moved(x, source)
    for row in range(len(x)):
        for channel in range(x.shape[1]):
            picture = x[row, channel]
            faces = []
            for axis, side in enumerate(picture.shape):
                faces += sorted(
                    value for end in (0, side - 1) for value in np.take(picture, end, axis).ravel().tolist()
                )
            middle = sorted(faces)[(len(faces) - 1) // 2]
            found[row, channel][np.asarray(source[row]) < 0] = middle
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


def mean_per_image(valid, of):
    """The author's mean: of each image over its own voxels that count, then over the images; none at all is zero."""
    return sum(mean_over(rows_alone(valid, row), of) for row in range(len(valid))) / len(valid)


def rows_alone(valid, row):
    """The mask of one image, false in the others."""
    alone = np.zeros(valid.shape, dtype=bool)
    alone[row] = valid[row]
    return alone


def consistency_per_image(target, view_logits, valid, weight=1.0):
    """As `consistency` without a threshold, with the author's mean."""
    return weight * mean_per_image(valid, lambda place: divergence(at(target, place), at(view_logits, place)))


def annealed(logits, label, threshold):
    """Cross-entropy of the voxels that are not learned yet, with the author's mean."""
    left = without_learned(label, logits, threshold)
    target = one_hot(left, logits.shape[1])
    return mean_per_image(left != IGNORE, lambda place: cross_entropy(at(target, place), at(logits, place)))


def softly_annealed(logits, label, constant=None):
    """Every labelled voxel weighs one minus the probability of its class; plain mean.

    constant: the logits that the weights come from, where they are not to move with the others.
    """
    target = one_hot(label, logits.shape[1])
    constant = logits if constant is None else constant

    def loss(place):
        right = [math.exp(log_p) for log_p in normalised(at(constant, place))][int(label[place])]
        return (1 - right) * cross_entropy(at(target, place), at(logits, place))

    return mean_over(label != IGNORE, loss)


ALPHA, SIGMA, WINDOW = 720, 24, 63
"""The author's elastic deformation, in pixels of pictures of 224 x 224: imgaug 0.4.0 smooths noise that is drawn evenly
between -1 and 1 with a Gaussian of deviation SIGMA, cut to 2.6 SIGMA pixels, the next odd number, and normalised."""


def elastic_window():
    """The weights of the smoothing along one axis."""
    weights = [math.exp(-((k - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for k in range(WINDOW)]
    return [weight / sum(weights) for weight in weights]


def elastic_displacement():
    """Root mean square, per axis, in pixels: of noise with variance 1/3, smoothed along both axes."""
    return ALPHA * math.sqrt(1 / 3) * sum(weight**2 for weight in elastic_window())


def elastic_correlation(distance):
    """Of the displacements of two pixels so far apart along one axis."""
    window = elastic_window()
    shared = sum(a * b for a, b in zip(window, window[distance:], strict=False))
    return shared / sum(weight**2 for weight in window)


def elastic_field(size, generator):
    """One displacement per axis, in pixels, of every pixel: noise smoothed line by line."""
    window, around = elastic_window(), WINDOW // 2
    fields = []
    for _ in range(2):
        noise = generator.uniform(-1, 1, (size + 2 * around, size + 2 * around))
        rows = sum(weight * noise[k : k + size] for k, weight in enumerate(window))
        fields.append(ALPHA * sum(weight * rows[:, k : k + size] for k, weight in enumerate(window)))
    return np.stack(fields)


def share_of_mirrored(parts=8, fewest=3, chance=0.5):
    """How many of the samples are mirrored along one axis, where from `fewest` to all parts are chosen, evenly."""
    counts = range(fewest, parts + 1)
    return sum(count / parts for count in counts) / len(counts) * chance


def cut(shuffled, labelled_percent, unlabelled_percent):
    """`sup_cut` and `unsup_cut`: the first of the shuffled patients, rounded up, and the last, rounded down."""
    patients = len(shuffled)
    first = (labelled_percent * patients + 99) // 100
    last = unlabelled_percent * patients // 100
    return [*shuffled[:first]], [shuffled[k] for k in range(patients - last, patients)]
