import itertools

import numpy as np
import pytest
from support.plans import AFFINES, affine_of, blocks, make_plan

from semiseg.data.bias import correct_bias
from semiseg.data.intensities import LARGEST, equalise, normalise, windowed_already
from semiseg.data.plan import Normalisation
from semiseg.data.space import (
    back_to_file_space,
    file_volumes,
    label_to_network_space,
    most_probable,
    peak_memory_bytes,
    to_network_space,
)
from semiseg.errors import InputError
from semiseg.types import Geometry


@pytest.mark.parametrize("spacing", [(None, 21.0, None), (1e6, None, None)])
def test_a_spacing_of_which_nothing_would_be_left_is_refused(spacing):
    def sides(*shape):
        scan = np.zeros((1, *shape), np.float32)
        return to_network_space(scan, Geometry(shape, np.eye(4)), make_plan(spacing_mm=spacing))[1].shape

    with pytest.raises(InputError, match=r"got 10 voxels of 1 mm along axis \d, expected at least half of the plan's"):
        sides(10, 10, 10)
    thin = [1 if mm else 10 for mm in spacing]
    assert sides(*thin) == tuple(thin)  # one slice is one slice


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("slice_axis", [None, 0, 1, 2])
@pytest.mark.parametrize(
    "kept", [{}, {"crop_nonzero": True}, {"crop_box": (None, (2, 99), (1, 17))}, {"resize": (40, None, 44)}]
)
def test_there_and_back(name, slice_axis, kept):
    label = blocks()
    geometry = Geometry(label.shape, AFFINES[name])
    image = (label > 0).astype(np.float32)[None]
    spacing = [0.5 if axis != slice_axis else None for axis in range(3)]
    changes = {"slice_axis": slice_axis, "dims": 2, "patch": (8, 8)} if slice_axis is not None else {}
    plan = make_plan(spacing_mm=spacing, **kept, **changes)
    prepared, space = to_network_space(image, geometry, plan)
    classes = label_to_network_space(label, space)
    assert prepared.shape == (1, *classes.shape) == (1, *space.shape)
    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(back_to_file_space(one_hot(classes), space), label)


def one_hot(classes, count=3):
    return np.stack([(classes == index).astype(np.float32) for index in range(count)])


def test_axes_are_anatomical():
    """The voxel farthest right, front and up is last along every prepared axis, however stored."""
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        affine = affine_of(order=order, signs=signs)
        corners = np.array(list(itertools.product(*[(0, size - 1) for size in (4, 5, 6)])))
        best = corners[np.argmax(corners @ affine[:3, :3].T @ np.ones(3))]
        image = np.zeros((1, 4, 5, 6), np.float32)
        image[(0, *best)] = 1
        prepared, _ = to_network_space(image, Geometry((4, 5, 6), affine), make_plan())
        assert np.unravel_index(prepared.argmax(), prepared.shape)[1:] == tuple(np.array(prepared.shape[1:]) - 1)


def test_slice_axis_comes_first_and_keeps_its_spacing():
    image = np.random.default_rng(0).random((1, 10, 12, 4), np.float32)
    geometry = Geometry((10, 12, 4), np.diag([1.0, 1.0, 5.0, 1.0]))
    plan = make_plan(dims=2, slice_axis=2, patch=(8, 8), spacing_mm=(2.0, 2.0, None))
    prepared, space = to_network_space(image, geometry, plan)
    assert prepared.shape == (1, 4, 5, 6)
    assert space.spacing_mm == (5.0, 2.0, 2.0)


def test_spacing_is_what_rounding_to_voxels_makes_of_it():
    image = np.ones((1, 10, 10, 10), np.float32)
    _, space = to_network_space(image, Geometry((10, 10, 10), np.eye(4)), make_plan(spacing_mm=(3.0, 1.0, 1.0)))
    assert space.shape == (3, 10, 10)
    assert space.spacing_mm == pytest.approx((10 / 3, 1, 1))


def test_crop_keeps_the_box_of_any_channel():
    image = np.zeros((2, 10, 10, 10), np.float32)
    image[0, 2:5, 3:4, 3:4] = 1
    image[1, 3:8, 3:6, 3:4] = 1
    plan = make_plan(channels=["a", "b"], normalisation=[{}, {}], crop_nonzero=True)
    prepared, space = to_network_space(image, Geometry((10, 10, 10), np.eye(4)), plan)
    assert space.box == ((2, 8), (3, 6), (3, 4))
    assert prepared.shape == (2, 6, 3, 1)


def test_scan_of_zeros_is_not_cropped():
    image = np.zeros((1, 4, 4, 4), np.float32)
    prepared, _ = to_network_space(image, Geometry((4, 4, 4), np.eye(4)), make_plan(crop_nonzero=True))
    assert prepared.shape == image.shape
    assert (prepared == 0).all()


def test_zscore_ignores_outliers_and_scale():
    channel = np.random.default_rng(0).normal(1e5, 2e4, (20, 20, 20)).astype(np.float32)
    channel[0, 0, 0] = 1e9
    normal = normalise(channel, Normalisation())
    assert abs(normal.mean()) < 1e-3
    assert abs(normal.std() - 1) < 1e-3
    assert normal.max() < 4
    np.testing.assert_allclose(normalise(channel / 1e5, Normalisation()), normal, atol=1e-3)


def test_zscore_over_the_mask():
    channel = np.zeros((10, 10, 10), np.float32)
    channel[:5] = np.random.default_rng(0).normal(50, 5, (5, 10, 10))
    normal = normalise(channel, Normalisation(), channel != 0)
    assert abs(normal[:5].mean()) < 1e-3
    assert abs(normal[:5].std() - 1) < 1e-3


def test_window_is_the_same_for_all_scans_and_never_overflows_16_bits():
    rule = Normalisation(scheme="window", low=-100, high=300, mean=100, deviation=50)
    channel = np.array([-2000, 0, 100, 3000], np.float32).reshape(4, 1, 1)
    assert normalise(channel, rule).ravel().tolist() == [-4, -2, 0, 4]
    extreme = Normalisation(scheme="window", low=-1e30, high=1e30, mean=0, deviation=1e-3)
    assert np.abs(normalise(channel, extreme)).max() == LARGEST


def test_parts_in_different_spaces_are_averaged():
    geometry = Geometry((8, 8, 8), np.eye(4))
    image = np.zeros((1, 8, 8, 8), np.float32)
    image[0, 2:6, 2:6, 2:6] = 1
    _, whole = to_network_space(image, geometry, make_plan())
    _, cropped = to_network_space(image, geometry, make_plan(crop_nonzero=True, spacing_mm=(0.5, 0.5, 0.5)))
    first = np.broadcast_to(np.array([0.2, 0.8, 0.0], np.float32)[:, None, None, None], (3, *whole.shape))
    second = np.broadcast_to(np.array([0.0, 0.4, 0.6], np.float32)[:, None, None, None], (3, *cropped.shape))
    volumes = list(file_volumes([(first, whole, 0.75), (second, cropped, 0.25)]))
    corner, centre = ([float(volume[at, at, at]) for volume in volumes] for at in (0, 3))
    assert corner == pytest.approx([0.4, 0.6, 0.0])  # outside the crop, where its background is certain
    assert centre == pytest.approx([0.15, 0.7, 0.15])
    assert most_probable(iter(volumes))[3, 3, 3] == 1


def test_most_probable_takes_the_first_of_equals():
    volumes = [np.full((1, 1, 2), value, np.float32) for value in (0.2, 0.4, 0.4)]
    volumes[2][0, 0, 1] = 0.5
    assert most_probable(iter(volumes)).ravel().tolist() == [1, 2]


def test_peak_memory_grows_with_the_networks_grid_only():
    geometry = Geometry((100, 100, 100), np.eye(4))
    _, space = to_network_space(np.ones((1, 100, 100, 100), np.float32), geometry, make_plan(spacing_mm=(5, 5, 5)))
    assert peak_memory_bytes(space, 100) - peak_memory_bytes(space, 2) == 98 * 4 * 20**3


def test_a_crop_box_goes_before_the_box_of_what_is_not_zero():
    image = np.zeros((2, 20, 20, 20), np.float32)
    image[0, 9, 1, 4] = image[1, 12, 18, 6] = 1
    plan = make_plan(channels=["a", "b"], normalisation=[{}, {}], crop_nonzero=True, crop_box=((8, 12), (2, 232), None))
    _, space = to_network_space(image, Geometry((20, 20, 20), np.eye(4)), plan)
    assert space.box == ((8, 12), (2, 20), (4, 7))


def test_a_crop_box_is_anatomical():
    image = np.random.default_rng(0).random((1, 10, 12, 8), np.float32)
    plan = make_plan(crop_box=((0, 3), None, None), normalisation=[{"scheme": "window"}])
    prepared, space = to_network_space(image, Geometry((10, 12, 8), affine_of(signs=(-1, -1, 1))), plan)
    np.testing.assert_array_equal(prepared, image[:, :6:-1, ::-1])
    back = back_to_file_space(one_hot(np.ones(space.shape, int)), space)
    assert back.shape == (10, 12, 8)
    assert (back[7:] == 1).all()
    assert (back[:7] == 0).all()


def test_a_crop_box_beyond_the_scan_is_an_error():
    plan = make_plan(crop_box=(None, (8, 232), None))
    message = (
        r"plan.crop_box.1: got \(8, 232\) for a scan of 8 voxels .*expected more than 8 voxels; .*leave the scan out"
    )
    with pytest.raises(InputError, match=message):
        to_network_space(np.ones((1, 20, 8, 20), np.float32), Geometry((20, 8, 20), np.eye(4)), plan)


@pytest.mark.parametrize("side", [12, 16, 40])
def test_slices_of_any_size_are_resized(side):
    """Images linearly, smoothed where they lose voxels; labels by class; `spacing_mm` has no say."""
    plan = make_plan(
        dims=2, slice_axis=2, patch=(16, 16), spacing_mm=(0.3, None, None), resize=(16, 16, None),
        network={"strides": [(2, 2)], "widths": [4, 8]}, normalisation=[{"scheme": "window", "low": -9, "high": 9}],
    )  # fmt: skip
    ramp = np.linspace(0.5 / side, 1 - 0.5 / side, side, dtype=np.float32)
    image = np.ascontiguousarray(np.broadcast_to(ramp[:, None, None], (side, side, 3)))[None]
    prepared, space = to_network_space(image, Geometry((side, side, 3), np.diag([0.7, 0.7, 5.0, 1.0])), plan)
    assert prepared.shape == (1, 3, 16, 16)
    assert space.spacing_mm == pytest.approx((5, 0.7 * side / 16, 0.7 * side / 16))
    np.testing.assert_allclose(prepared[0, 1, 3:-3, 0], (np.arange(16) + 0.5)[3:-3] / 16, atol=2e-3)
    label = np.zeros((side, side, 3), np.int16)
    label[: side // 2, :, 1] = 2
    classes = label_to_network_space(label, space)
    assert (classes[1, :8] == 2).all()
    assert (classes == 2).sum() == 8 * 16
    np.testing.assert_array_equal(back_to_file_space(one_hot(classes), space), label)


LOW, WIDTH = -504.4 - 1102.15, 2204.3
COVID = {
    "scheme": "window", "low": LOW, "high": LOW + WIDTH, "mean": LOW, "deviation": WIDTH, "eight_bit": True,
}  # fmt: skip
"""The published setting: window level -504.4, width 2204.3, then min-max scaling."""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-3000, -1606.55, -1024, -504.4, 0, 597.75, 3071], [0, 0, 582.55 / 2204.3, 0.5, 1606.55 / 2204.3, 1, 1]),
        ([0, 51, 127.5, 255], [0, 0.2, 0.5, 1]),
        ([0, 0.2, 0.5, 1], [0, 0.2, 0.5, 1]),
        ([0, 0, 1, 2], [0, 0, 1 / 255, 2 / 255]),
        ([0, 255, 256], [1606.55 / 2204.3, 1861.55 / 2204.3, 1862.55 / 2204.3]),
    ],
    ids=["Hounsfield", "0 to 255", "0 to 1", "dark", "over"],
)
def test_the_published_window_number_by_number(values, expected):
    scan = np.array(values, np.float32).reshape(1, -1, 1, 1)
    plan = make_plan(normalisation=[COVID])
    prepared, _ = to_network_space(scan, Geometry((len(values), 1, 1), np.eye(4)), plan)
    assert prepared.dtype == np.float32
    np.testing.assert_allclose(prepared.ravel(), expected, atol=1e-6)
    ranges = [(float(min(values)), float(max(values)))]
    assert windowed_already(ranges, plan) == (min(values) >= 0 and max(values) <= 255)
    assert not windowed_already(ranges, make_plan())


def test_what_kind_of_scan_it_is_the_whole_of_it_tells():
    """The part that is kept of this CT has no value below 0, but it is a CT."""
    scan = np.full((1, 4, 4, 4), 100, np.float32)
    scan[0, 0] = -1000
    plan = make_plan(normalisation=[COVID], crop_box=((1, 4), None, None))
    prepared, _ = to_network_space(scan, Geometry((4, 4, 4), np.eye(4)), plan)
    np.testing.assert_allclose(prepared, 1706.55 / 2204.3, atol=1e-6)


def test_correction_is_of_what_is_kept_and_before_normalisation():
    rng = np.random.default_rng(0)
    image = np.zeros((1, 32, 32, 32), np.float32)
    image[0, 4:28, 4:28, 4:28] = rng.choice([80, 120, 200], (24, 24, 24)) * np.linspace(0.5, 1.5, 24)[:, None, None]
    plan = make_plan(normalisation=[{"scheme": "equalise"}], bias_correction=True, crop_nonzero=True)
    prepared, _ = to_network_space(image, Geometry((32, 32, 32), np.eye(4)), plan)
    kept = image[0, 4:28, 4:28, 4:28]
    expected = equalise(correct_bias(kept, kept > 0))
    np.testing.assert_array_equal(prepared[0], expected)
    assert abs(expected - equalise(kept)).max() > 0.1


@pytest.mark.parametrize("scheme", ["zscore", "window", "equalise"])
@pytest.mark.parametrize("spacing", [None, 0.6, 2.3])
def test_zero_is_outside_of_the_picture_and_nowhere_else(scheme, spacing):
    rng = np.random.default_rng(0)
    image = np.zeros((2, 20, 18, 16), np.float32)
    image[:, 4:15, 3:12, 5:13] = rng.integers(-3, 4, (2, 11, 9, 8))  # both channels are 0 here and there
    outside = ~(image != 0).any(axis=0)
    rules = [{"scheme": scheme, "low": -3, "high": 3, "mean": 1}] * 2
    plan = make_plan(
        channels=["a", "b"], normalisation=rules, mask_zeros=True, crop_box=((2, 20), None, None),
        spacing_mm=(spacing, spacing, None),
    )  # fmt: skip
    prepared, space = to_network_space(image, Geometry((20, 18, 16), np.eye(4)), plan)
    stored = (prepared.astype(np.float16) == 0).all(axis=0)
    nearest = [
        ((np.arange(voxels) + 0.5) * (end - first) / voxels).astype(int) + first
        for voxels, (first, end) in zip(space.shape, space.box, strict=True)
    ]
    np.testing.assert_array_equal(stored, outside[np.ix_(*nearest)])
    assert (prepared[:, stored] == 0).all()


def test_with_a_mask_the_z_score_is_of_the_picture():
    image = np.zeros((1, 20, 20, 20), np.float32)
    image[0, 5:15] = np.random.default_rng(0).normal(100, 10, (10, 20, 20))
    prepared, _ = to_network_space(image, Geometry((20, 20, 20), np.eye(4)), make_plan(mask_zeros=True))
    assert abs(prepared[0, 5:15].mean()) < 1e-3
    assert abs(prepared[0, 5:15].std() - 1) < 1e-3
    assert (prepared[0, :5] == 0).all()
