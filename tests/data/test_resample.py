import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.data import resample as module
from semiseg.data.resample import add_resampled, resample, resample_labels
from semiseg.types import IGNORE

shapes = st.tuples(*[st.integers(1, 9)] * 3)


@settings(max_examples=40, deadline=None)
@given(shapes, shapes, st.floats(-100, 100, width=32))
def test_constant_stays_constant(old, new, value):
    result = resample(np.full((2, *old), value, np.float32), new)
    assert result.shape == (2, *new)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5)


def test_same_shape_is_the_same_array():
    array = np.random.default_rng(0).random((1, 4, 5, 6), np.float32)
    assert resample(array, (4, 5, 6)) is array


@pytest.mark.parametrize("new", [40, 33, 14, 10])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ramp_is_exact_in_the_interior_and_edges_coincide(axis, new):
    old = 20
    shape = [6, 6, 6]
    shape[axis] = old
    positions = (np.arange(old) + 0.5) / old  # of voxel centres, as shares of the extent
    ramp = np.broadcast_to(np.moveaxis(positions[:, None, None], 0, axis), shape)[None].astype(np.float32)
    target = [7, 7, 7]
    target[axis] = new
    result = np.moveaxis(resample(ramp, target)[0], axis, 0)
    expected = (np.arange(new) + 0.5) / new
    interior = (expected > 0.25) & (expected < 0.75)
    assert interior.sum() >= 4
    np.testing.assert_allclose(result[interior], expected[interior][:, None, None] + 0 * result[interior], atol=1e-5)


def test_reducing_averages_instead_of_picking():
    checks = (np.arange(40) % 2).astype(np.float32)[None, :, None, None] * np.ones((1, 1, 3, 3), np.float32)
    reduced = resample(checks, (8, 3, 3))[0, 1:-1]  # every new centre is on an old one
    np.testing.assert_allclose(reduced, 0.5, atol=0.06)


def test_slabs_do_not_show(monkeypatch):
    volume = np.random.default_rng(0).random((11, 9, 8), np.float32)
    whole, pieces = np.ones((2, 17, 12, 7), np.float32)
    add_resampled(whole, volume)
    monkeypatch.setattr(module, "SLAB_VOXELS", 100)
    add_resampled(pieces, volume)
    np.testing.assert_allclose(whole, pieces, rtol=1e-6)
    assert whole.min() >= 1  # it adds


def test_labels_follow_the_largest_share():
    label = np.zeros((4, 1, 1), np.int16)
    label[2:] = 7
    assert resample_labels(label, (8, 1, 1)).ravel().tolist() == [0, 0, 0, 0, 7, 7, 7, 7]
    assert resample_labels(label, (2, 1, 1)).ravel().tolist() == [0, 7]
    assert resample_labels(label, (4, 1, 1)) is label
    assert resample_labels(label[1:3], (3, 1, 1)).ravel().tolist() == [0, 0, 7]  # a tie in the middle


def test_labels_are_only_those_that_were_there():
    label = np.random.default_rng(0).choice([0, 3, 9], (8, 9, 7)).astype(np.int16)
    result = resample_labels(label, (13, 6, 7))
    assert set(np.unique(result)) <= {0, 3, 9}
    assert result.dtype == np.int16


def test_ignore_is_carried_by_the_nearest_voxel():
    label = np.array([0, 0, IGNORE, 1], np.int16).reshape(4, 1, 1)
    assert resample_labels(label, (8, 1, 1)).ravel().tolist() == [0, 0, 0, 0, IGNORE, IGNORE, 1, 1]
