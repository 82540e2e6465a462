import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from semiseg.errors import InputError, MissingExtra, UserError
from semiseg.simulate import brain
from semiseg.simulate.brain import CLASSES, load_template, simulate_brain, simulate_brains

SPACING_MM = 4.0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_brains(tmp_path_factory.mktemp("cohort"), subjects=2, test=1, spacing_mm=SPACING_MM)


def test_writes_the_nnunet_raw_layout(cohort):
    files = sorted(path.relative_to(cohort).as_posix() for path in cohort.rglob("*") if path.is_file())
    assert files == [
        "dataset.json",
        "imagesTr/brain_001_0000.nii.gz",
        "imagesTr/brain_002_0000.nii.gz",
        "imagesTs/test_001_0000.nii.gz",
        "labelsTr/brain_001.nii.gz",
        "labelsTr/brain_002.nii.gz",
        "labelsTs/test_001.nii.gz",
    ]
    declared = json.loads((cohort / "dataset.json").read_text())
    assert declared["channel_names"] == {"0": "MRI"}
    assert declared["labels"] == CLASSES
    assert declared["numTraining"] == 2
    assert declared["file_ending"] == ".nii.gz"
    assert "Simulated" in declared["description"]


def test_image_and_label_share_a_ras_grid_of_the_asked_spacing(cohort):
    image = nib.load(cohort / "imagesTr/brain_001_0000.nii.gz")
    label = nib.load(cohort / "labelsTr/brain_001.nii.gz")
    assert image.shape == label.shape
    assert np.array_equal(image.affine, label.affine)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header.get_zooms() == (SPACING_MM,) * 3
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.get_data_dtype() == np.int16
    assert label.get_data_dtype() == np.uint8


def test_a_larger_cohort_contains_the_smaller_one_byte_for_byte(cohort, tmp_path):
    larger = simulate_brains(tmp_path, subjects=3, test=1, spacing_mm=SPACING_MM)
    for path in cohort.rglob("*.nii.gz"):
        assert (larger / path.relative_to(cohort)).read_bytes() == path.read_bytes()


def test_subjects_and_seeds_differ():
    one = simulate_brain(0, 1, spacing_mm=SPACING_MM)
    others = [
        simulate_brain(0, 2, spacing_mm=SPACING_MM),
        simulate_brain(1, 1, spacing_mm=SPACING_MM),
        simulate_brain(0, 1, spacing_mm=SPACING_MM, seed=1),
    ]
    for other in others:
        different = (one.label != other.label) & ((one.label > 0) | (other.label > 0))
        assert different.sum() > 0.1 * (one.label > 0).sum()  # another shape, not only other noise


@pytest.mark.parametrize("number", range(1, 7))
def test_every_subject_is_a_brain_that_fits_with_t1_contrast(number):
    scan = simulate_brain(0, number, spacing_mm=SPACING_MM)
    millilitres = np.bincount(scan.label.ravel(), minlength=4) * SPACING_MM**3 / 1000
    _, grey, white, fluid = millilitres
    # The template holds 1080, 630 and about 60 mL; a subject may be 8 % larger or smaller along each axis.
    assert 750 < grey < 1500
    assert 420 < white < 900
    assert 25 < fluid < 110
    means = [scan.image[scan.label == value].mean() for value in (0, 3, 1, 2)]
    assert means == sorted(means)
    assert means[3] > 1.15 * means[2]
    for axis in range(3):
        assert not np.take(scan.label, [0, -1], axis=axis).any()


def test_no_deformation_folds():
    template = load_template(SPACING_MM)
    extent = template.high_mm - template.low_mm
    points = np.stack(np.meshgrid(*(np.arange(0, length, 4.0) for length in extent), indexing="ij"))
    for seed in range(10):
        source = brain.deform(points, extent, np.random.default_rng(seed))
        gradient = np.stack([np.stack(np.gradient(part, 4.0)) for part in source])
        determinant = np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)))
        assert determinant.min() > 0
        assert np.abs(source - points).max() > 5  # and it moves


def test_without_deformation_the_label_is_the_template(monkeypatch):
    monkeypatch.setattr(brain, "displacement", lambda _, shape: np.zeros((3, *shape)))
    monkeypatch.setattr(brain, "_affine", lambda _: (np.eye(3), np.zeros(3)))
    scan = simulate_brain(0, 1, spacing_mm=SPACING_MM)
    for own, other, name in ((1, 2, "gm"), (2, 1, "wm")):
        template = brain.read_map(name)
        assert _mean_share(template, scan, own) > 0.7
        assert _mean_share(template, scan, other) < 0.3


def _mean_share(template, scan, value):
    """Mean of a tissue map over the voxels of a class, through world coordinates."""
    world = nib.affines.apply_affine(scan.affine, np.argwhere(scan.label == value))
    at = np.rint(nib.affines.apply_affine(np.linalg.inv(template.affine), world)).astype(int)
    return np.asarray(template.dataobj)[tuple(at[(at >= 0).all(axis=1)].T)].mean() / 255


def test_a_finished_cohort_is_kept(cohort, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("simulated again")

    monkeypatch.setattr(brain, "simulate_brain", fail)
    assert simulate_brains(cohort, subjects=2, test=1, spacing_mm=SPACING_MM) == cohort


def test_another_dataset_is_refused(cohort):
    with pytest.raises(InputError, match=r"dataset\.json: got another dataset.*choose another folder"):
        simulate_brains(cohort, subjects=2, test=1, spacing_mm=SPACING_MM, seed=1)


@pytest.mark.parametrize("wrong", [{"subjects": 0}, {"test": -1}, {"spacing_mm": 0.0}, {"seed": -1}])
def test_impossible_numbers_are_named(tmp_path, wrong):
    with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
        simulate_brains(tmp_path, **{"subjects": 1, "test": 1, **wrong})


def test_without_nilearn_the_message_holds_the_pip_line(monkeypatch):
    monkeypatch.setattr(brain.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'semiseg\[demo\]'"):
        brain.read_map("t1")


def test_nilearn_is_read_by_path_not_imported():
    """In a process of its own: other libraries import it where it is installed."""
    source = "import sys; from semiseg.simulate import brain; brain.read_map('t1'); assert 'nilearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", source], check=True)
