import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import SimpleITK as sitk

from semiseg.data import bias
from semiseg.data.bias import correct_bias, head_mask
from semiseg.data.duplicates import bounding_box
from semiseg.data.images import read_image
from semiseg.files import cache_folder


def phantom(shape=(30, 32, 28), air=0.0):
    """A noisy head of two tissues, 100 around and 160 inside; index 0 outside, 1 and 2 for the tissues."""
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    tissue = (radius < 0.9).astype(int) + (radius < 0.55)
    noise = np.random.default_rng(0).normal(0, 2, shape)
    image = np.array([0.0, 100.0, 160.0])[tissue] + np.where(tissue > 0, noise, air * abs(noise))
    return image.astype(np.float32), tissue


def smooth_field(shape):
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    return np.exp(0.35 * x - 0.2 * y * z + 0.2 * np.cos(2 * z)).astype(np.float32)


def variation(image, tissue, value):
    voxels = image[tissue == value]
    return float(voxels.std() / voxels.mean())


@pytest.mark.parametrize("air", [0.0, 1.0])
def test_a_smooth_field_is_mostly_removed(air):
    """In a skull-stripped scan, and in one with noise around the head."""
    image, tissue = phantom(air=air)
    distorted = image * smooth_field(image.shape)
    mask = head_mask(distorted)
    corrected = correct_bias(distorted, mask)
    for value in (1, 2):
        assert variation(corrected, tissue, value) < variation(distorted, tissue, value) / 2
    assert corrected.dtype == np.float32
    assert mask.mean() == pytest.approx((tissue > 0).mean(), rel=0.05)
    np.testing.assert_array_equal(corrected[~mask], distorted[~mask])
    np.testing.assert_array_equal(corrected, correct_bias(distorted, mask))


def test_the_field_is_applied_where_it_was_found():
    """Sides that are no multiple of the shrink factor: the field must not be stretched over the scan."""
    _, tissue = phantom((99, 47, 41))
    ramp = np.exp(np.linspace(-0.5, 0.5, 99, dtype=np.float32))[:, None, None]
    corrected = correct_bias(np.where(tissue > 0, np.float32(100), 0) * ramp, tissue > 0)[tissue > 0]
    assert corrected.std() / corrected.mean() < 0.02


def test_the_brighter_part_of_a_scan_without_zeros_is_the_head_with_its_holes():
    image = np.full((12, 12, 12), 10, np.float32)
    image[2:10, 2:10, 2:10] = 100
    image[5, 5, 5] = 10
    assert np.argwhere(head_mask(image)).min() == 2
    assert head_mask(image).sum() == 8**3
    image[image == 10] = 0
    np.testing.assert_array_equal(head_mask(image), image != 0)


@pytest.mark.parametrize("shape", [(3, 4, 5), (7, 6, 9), (1, 24, 20), (24, 1, 1), (1, 1, 1), (2, 30, 2)])
def test_scans_of_any_size(shape):
    image = np.random.default_rng(0).uniform(50, 150, shape).astype(np.float32)
    corrected = correct_bias(image, image > 0)
    assert corrected.shape == shape
    assert np.isfinite(corrected).all()
    assert (corrected > 0).all()


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_without_contrast_nothing_is_corrected(value):
    image = np.full((16, 16, 16), value, np.float32)
    np.testing.assert_array_equal(correct_bias(image, head_mask(image)), image)


def test_negative_voxels_are_left_alone():
    image, tissue = phantom()
    distorted = image * smooth_field(image.shape)
    distorted[14:16] = -5
    corrected = correct_bias(distorted, tissue > 0)
    assert np.isfinite(corrected).all()
    assert (corrected[14:16] == -5).all()


def test_a_small_scan_is_corrected_as_by_the_plain_filter_at_full_resolution():
    """n4.json has what the filter itself made of the same scan: on every fourth voxel it would be off by up to .19."""
    kept = json.loads((Path(__file__).parent / "n4.json").read_text())
    image, tissue = phantom((34, 34, 22))
    distorted = image * smooth_field(image.shape)
    field = np.log(distorted[tissue > 0] / correct_bias(distorted, tissue > 0)[tissue > 0])
    found = np.zeros(image.shape)
    found[tissue > 0] = field
    expected = [value for *_, value in kept["voxels"]]
    np.testing.assert_allclose([found[x, y, z] for x, y, z, _ in kept["voxels"]], expected, atol=5e-4)
    assert len(expected) == 200
    assert np.ptp(expected) > 0.6


@pytest.mark.parametrize(
    ("shape", "seen"),
    [((95, 12, 9), (95, 12, 9)), ((96, 12, 9), (24, 4, 4)), ((9, 7, 100), (4, 7, 25)), ((3, 95, 1), (3, 95))],
)
def test_only_scans_of_96_voxels_and_more_are_shrunk(monkeypatch, shape, seen):
    found = Mock(return_value=np.zeros((bias.SAMPLES,) * len(seen), np.float32))
    monkeypatch.setattr(bias, "_find_field", found)
    image = np.random.default_rng(0).uniform(50, 150, shape).astype(np.float32)
    np.testing.assert_array_equal(correct_bias(image, image > 0), image)
    (args, _) = found.call_args
    assert args[0].shape == seen


@pytest.mark.parametrize("shape", [(44, 48, 40), (23, 40, 9)])
def test_the_field_is_the_one_that_n4_evaluates(shape):
    image, tissue = phantom(shape)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.Execute(
        sitk.GetImageFromArray(image * smooth_field(shape)), sitk.GetImageFromArray((tissue > 0).astype(np.uint8))
    )
    samples, expected = (
        sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(sitk.Image(sides, sitk.sitkFloat32)))
        for sides in ([bias.SAMPLES] * 3, [shape[2] * 3, shape[1], shape[0]])
    )
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(bias._on_grid(samples, expected.shape), expected, atol=5e-4)


def test_a_field_is_found_once(monkeypatch):
    image, tissue = phantom()
    first = correct_bias(image, tissue > 0)
    found = Mock(side_effect=bias._find_field)
    monkeypatch.setattr(bias, "_find_field", found)
    np.testing.assert_array_equal(correct_bias(image, tissue > 0), first)
    assert not found.called
    correct_bias(image, tissue > 1)  # the same voxels in another mask
    correct_bias(image + 1, tissue > 0)
    assert found.call_count == 2


def test_a_cache_that_cannot_be_read_or_written_is_done_without(monkeypatch, tmp_path):
    image, tissue = phantom()
    first = correct_bias(image, tissue > 0)
    (kept,) = (cache_folder() / "bias").iterdir()
    kept.write_bytes(b"")
    np.testing.assert_array_equal(correct_bias(image, tissue > 0), first)
    assert kept.stat().st_size > 0
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "file"))
    np.testing.assert_array_equal(correct_bias(image, tissue > 0), first)


@pytest.mark.realdata
@pytest.mark.slow
def test_a_field_on_a_real_brain_is_mostly_removed(real_data):
    image = read_image(next((real_data / "tumour").rglob("*_flair.nii.gz"))).array
    image = image[tuple(slice(*side) for side in bounding_box(image != 0))]
    field, brain = smooth_field(image.shape), image > 0
    ratio = np.log(correct_bias(image * field, brain)[brain] / correct_bias(image, brain)[brain])
    assert ratio.std() < 0.2 * np.log(field[brain]).std()
