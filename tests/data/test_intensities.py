import numpy as np
import pytest

from semiseg.data.intensities import eight_bit_top, equalise


def test_ranks_by_hand():
    channel = np.array([0, 7, 3, 3, -2, 0, 100, 7], np.float32).reshape(2, 2, 2)
    assert equalise(channel).ravel().tolist() == pytest.approx([0, 5 / 6, 3 / 6, 3 / 6, 1 / 6, 0, 1, 5 / 6])
    assert (equalise(np.zeros((2, 2, 2), np.float32)) == 0).all()


def test_ranks_are_uniform_monotone_and_the_same_for_any_increasing_change():
    channel = np.random.default_rng(0).lognormal(3, 1, (20, 20, 20))
    channel[:8] = 0
    ranks = equalise(channel)
    inside = ranks[8:].ravel()
    assert (ranks[:8] == 0).all()
    assert inside.min() > 0
    assert inside.max() == 1
    np.testing.assert_allclose(np.histogram(inside, bins=10, range=(0, 1))[0], inside.size / 10, atol=1)
    assert (np.diff(inside[np.argsort(channel[8:].ravel())]) >= 0).all()
    changed = np.where(channel != 0, np.log(channel + (channel == 0)) - 30, 0)
    np.testing.assert_array_equal(equalise(changed), ranks)


@pytest.mark.parametrize(
    ("lowest", "highest", "top"),
    [
        (0.0, 255.0, 255),
        (0.0, 1.0, 1),
        (0.0, 0.0, 1),
        (1.0, 1.5, 255),
        (0.0, 256.0, None),
        (-1.0, 200.0, None),
        (-1024.0, 3071.0, None),
    ],
)
def test_what_counts_as_eight_bit(lowest, highest, top):
    assert eight_bit_top(lowest, highest) == top
