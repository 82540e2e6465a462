import numpy as np
import pytest
from reference.bcp import cleaned

from semiseg.transforms.components import largest_pieces


def test_largest_pieces():
    index = np.zeros((6, 6, 1), np.int16)
    index[0:2, 0:2] = 1
    index[4, 4] = 1
    index[2, 2] = 1  # touches the first piece by an edge only
    index[5, 0:2] = 2
    kept = largest_pieces(index)
    assert kept.sum() == 4 * 1 + 2 * 2
    assert (kept[0:2, 0:2] == 1).all()
    assert (kept[5, 0:2] == 2).all()
    assert largest_pieces(index, corners=True)[2, 2] == 1


@pytest.mark.parametrize("size", [(12, 11), (5, 6, 7)])
def test_with_corners_it_is_what_bcp_keeps(size):
    generator = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8):
        index = (generator.random(size) < share) * generator.integers(1, 4, size)
        kept = largest_pieces(index, corners=True)
        assert kept.dtype == index.dtype
        assert np.array_equal(kept, cleaned(index[None], 4)[0])


def test_of_equal_pieces_the_first_stays_and_nothing_stays_nothing():
    assert largest_pieces(np.array([[2, 2, 0, 2, 2]])).tolist() == [[2, 2, 0, 0, 0]]
    assert not largest_pieces(np.zeros((3, 3), int)).any()
