"""The hash of a scan: equal for every way to store it, and for nothing else."""

from itertools import permutations, product

import numpy as np
import pytest

from semiseg.data.duplicates import MOST_SEGMENTS, bounding_box, content_hash, segment_hash

RNG = np.random.default_rng(0)


def storages(array):
    """The 48 ways to order and direct three axes, each with a border of zeros or without."""
    for order, ways in product(permutations(range(3)), product([1, -1], repeat=3)):
        turned = array.transpose(order)[tuple(slice(None, None, way) for way in ways)]
        yield np.pad(turned, ((0, 1), (2, 0), (0, 3))) if ways[0] > 0 else turned


def content(array):
    return content_hash(array, bounding_box(array != 0))


def segments(array):
    return segment_hash(array, bounding_box(array != 0))


def scan(shape):
    array = np.zeros(shape, np.float32)
    array[1:-1, 1:-1] = RNG.normal(size=(shape[0] - 2, shape[1] - 2, shape[2]))
    return array


def corner():
    """Point-symmetric: nothing tells one end of an axis from the other."""
    array = np.zeros((4, 4, 4), np.float32)
    array[0, 0, 0] = array[1, 2, 3] = 1
    return array + array[::-1, ::-1, ::-1]


SCANS = {
    "a box": scan((5, 6, 7)),
    "a cube": scan((6, 6, 6)),
    "a slice": scan((6, 6, 1)),
    "a block": np.pad(np.ones((3, 3, 3), np.float32), 1),
    "point-symmetric": corner(),
    "alike along two axes": np.add.outer(np.add.outer([1, 5, 2], [1, 5, 2]), [7, 0.5]).astype(np.float32),
}


@pytest.mark.parametrize("name", SCANS)
def test_the_same_for_every_order_and_direction_of_axes_and_zeros_around(name):
    array = SCANS[name]
    assert len({content(one) for one in storages(array)}) == 1
    assert len({segments(one.astype(np.int32)) for one in storages(array > np.median(array))}) == 1


def test_another_for_everything_else():
    array = SCANS["a cube"]
    swapped, raised = array.copy(), array.copy()
    swapped[2, 2, 2], swapped[3, 3, 3] = array[3, 3, 3], array[2, 2, 2]
    raised[2, 2, 2] += 0.001
    others = [array, swapped, raised, 2 * array, array[:-2], array[1:-1, 1:-1].reshape(2, 8, 6), np.float32([[[1]]])]
    assert len({content(one) for one in others}) == len(others)
    # each row holds the same values, in another order: sums across the axes alone would not see it
    first, second = np.zeros((2, 4, 4, 1), np.float32)
    first[[0, 0, 1, 1], [0, 1, 0, 1], 0], second[[0, 0, 1, 1], [0, 1, 0, 1], 0] = [1, 2, 2, 1], [2, 1, 1, 2]
    assert content(first) == content(second)  # mirrored
    first[2:, 2:], second[2:, 2:] = first[:2, :2], second[:2, :2]
    first[2, 2, 0] = second[2, 2, 0] = 5
    assert content(first) != content(second)


def test_whatever_the_type_and_the_zero():
    array = RNG.integers(0, 9, (4, 5, 6))
    floating = array.astype(np.float32)
    floating[array == 0] = -0.0
    assert len({content(one) for one in (array.astype(np.int32), array.astype(np.float32), floating)}) == 1
    assert content(np.zeros((2, 3, 4), np.float32)) == content(np.zeros((3, 3, 3), np.float32))  # nothing is in either


def test_maps_that_divide_alike_whatever_their_values():
    array = np.zeros((8, 9, 10), np.int32)
    array[2:6, 3:7, 2:9], array[3:5, 4:6, 4:8] = 1, 2
    found = segments(array)
    assert len(found) == 32
    assert {segments(one) for one in (100 * array, 5 + 60 * array, np.array([9, 0, 4])[array])} == {found}
    assert segments((100 * array).astype(np.float32)) == found
    assert segments(np.array([0, 1, 1])[array]) != found


@pytest.mark.parametrize(
    "array",
    [
        np.arange(4 * 5 * 6).reshape(4, 5, 6),
        np.where(np.arange(60).reshape(3, 4, 5) > 30, 1.5, 0),
        np.full((3, 4, 5), -1),
        np.full((3, 4, 5), 7),
        np.zeros((3, 4, 5)),
        np.where(np.arange(60).reshape(3, 4, 5) > 30, np.nan, 1),
        np.where(np.arange(60).reshape(3, 4, 5) > 30, 2.0**16, 1),
        np.repeat(np.arange(MOST_SEGMENTS + 1), 490).reshape(MOST_SEGMENTS + 1, 49, 10),
    ],
)
def test_grey_values_are_no_map(array):
    assert segments(array.astype(np.float32)) == ""
