"""The threshold for guesses against trying all of them."""

from fractions import Fraction

import numpy as np
import pytest
from reference.threshold import smallest

from semiseg.rounds.threshold import LEVELS, smallest_threshold, tally


def voxels(seed, count=60, classes=3):
    """Of a scan: probabilities in 32 bits that are right about as often as they say, some voxels not annotated."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([0.4] * classes, count).astype(np.float32)
    truth = [int(rng.choice(classes, p=p.astype(float) / p.astype(float).sum())) for p in probabilities]
    return [(p, None if rng.random() < 0.1 else t) for p, t in zip(probabilities, truth, strict=True)]


def counted(scan):
    known = [(p, t) for p, t in scan if t is not None]
    confidence = np.array([p.max() for p, _ in known], np.float32)
    return tally(confidence, np.array([p.argmax() == t for p, t in known]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("precision", [0.5, 0.8, 0.95, 1.0])
def test_the_smallest_that_is_precise_enough(seed, precision):
    scans = [voxels(3 * seed + k) for k in range(3)]
    found = smallest_threshold(sum(map(counted, scans)), precision)
    thousandth, share = smallest(scans, Fraction(str(precision)))
    assert found.value == thousandth / 1000
    assert found.precision == float(share)


def test_where_none_is_precise_enough_the_most_precise_is_taken():
    confidence = np.array([0.4, 0.6, 0.8, 0.9], np.float32)
    found = smallest_threshold(tally(confidence, np.array([False, True, True, False])), 0.95)
    assert (found.value, found.precision, found.kept) == (0.401, 2 / 3, 0.75)


def test_a_probability_at_a_threshold_reaches_it_in_32_bits():
    """0.9 in 32 bits is less than 0.9."""
    counts = tally(np.array([0.9, 0.95, 1.0, 1.0 + 1e-6], np.float32), np.array([True] * 4))
    assert counts[0, 900] == counts[0, 950] == 1
    assert counts[0, 1000] == 2  # a sum of probabilities may exceed 1 by rounding
    assert np.array_equal(LEVELS, [np.float32(k) / np.float32(1000) for k in range(1001)])
