import nibabel as nib
import numpy as np
import pytest

from semiseg.errors import UserError
from semiseg.simulate.tumour import (
    CONTRAST,
    LABELS,
    draw_tumour,
    is_low_grade,
    shape_at,
    simulate_brats,
    simulate_patient,
)

SPACING_MM = 4.0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_brats(tmp_path_factory.mktemp("brats"), subjects=4, spacing_mm=SPACING_MM, workers=1)


@pytest.fixture(scope="module")
def patients():
    return [simulate_patient(number, spacing_mm=SPACING_MM) for number in range(1, 11)]


def test_writes_the_layout_of_brats_2019(cohort):
    files = sorted(path.relative_to(cohort).as_posix() for path in cohort.rglob("*") if path.is_file())
    names = [("HGG", "001"), ("HGG", "002"), ("HGG", "003"), ("LGG", "004")]
    assert files == [
        *(
            f"{grade}/BraTS19_SIM01_{number}_1/BraTS19_SIM01_{number}_1_{part}.nii.gz"
            for grade, number in names
            for part in ("flair", "seg", "t1", "t1ce", "t2")
        ),
        "simulated.json",
    ]
    for path in cohort.rglob("*.nii.gz"):
        image = nib.load(path)
        assert image.shape == (60, 60, 39)
        assert image.get_data_dtype() == (np.uint8 if "seg" in path.name else np.int16)
        # as the real files: diag(-1, -1, 1) and origin (0, 239, 0), here with voxels of 4 mm
        assert np.array_equal(image.affine, [[-4, 0, 0, 0], [0, -4, 0, 236], [0, 0, 4, 0], [0, 0, 0, 1]])


def test_the_grid_at_1_mm_is_that_of_the_real_files_and_its_field_stays():
    assert shape_at(1.0) == (240, 240, 155)
    assert shape_at(2.5) == (96, 96, 62)


def test_a_larger_cohort_contains_the_smaller_one(cohort, tmp_path):
    larger = simulate_brats(tmp_path, subjects=5, spacing_mm=SPACING_MM, workers=1)
    for path in cohort.rglob("*.nii.gz"):
        assert (larger / path.relative_to(cohort)).read_bytes() == path.read_bytes()


def test_every_patient_has_a_brain_in_air_and_a_tumour_in_the_brain(patients):
    for patient in patients:
        brain = patient.images["t1"] > 0
        assert 900 < brain.sum() * SPACING_MM**3 / 1000 < 1800  # millilitres
        for image in patient.images.values():
            assert np.array_equal(image > 0, brain)
        assert set(np.unique(patient.label)) <= set(LABELS.values())
        assert not (patient.label[~brain] > 0).any()
        whole = (patient.label > 0).sum() * SPACING_MM**3 / 1000
        assert 2 < whole < 400
        for axis in (0, 1):
            assert not np.take(brain, [0, -1], axis=axis).any()


def test_each_modality_shows_what_it_shows(patients):
    """Medians over the patients that have the part, relative to the rest of the brain."""

    def median(modality, value):
        ratios = []
        for patient in patients:
            image, inside = patient.images[modality], patient.label == value
            if inside.sum() > 20:
                ratios.append(np.median(image[inside]) / np.median(image[(image > 0) & (patient.label == 0)]))
        assert len(ratios) > 2
        return np.median(ratios)

    assert median("flair", 2) > 1.2
    assert median("t2", 2) > 1.2
    assert median("t1", 2) < 1
    assert median("t1", 1) < 0.8
    assert median("t1ce", 4) > 1.2
    assert median("t1", 4) < 1
    assert median("flair", 2) > median("flair", 1)
    assert CONTRAST["flair"][2] < CONTRAST["flair"][1] < CONTRAST["t2"][2]  # fluid: dark on FLAIR, bright on T2


def test_low_grade_seldom_enhances_and_high_grade_always_does():
    assert [is_low_grade(number) for number in range(1, 9)] == [False, False, False, True] * 2
    rng = np.random.default_rng(0)
    assert all(draw_tumour(rng, False).rim > 0 for _ in range(200))
    assert 0.5 < np.mean([draw_tumour(rng, True).rim == 0 for _ in range(200)]) < 0.8


def test_the_enhancing_rim_encloses_the_necrosis(patients):
    patient = max((part for part in patients if (part.label == 4).any()), key=lambda part: (part.label == 1).sum())
    necrosis = patient.label == 1
    assert necrosis.sum() > 50
    shell = np.zeros_like(necrosis)
    for axis in range(3):
        for step in (-1, 1):
            shell |= np.roll(necrosis, step, axis)
    around = patient.label[shell & ~necrosis]
    assert (around == 4).mean() > 0.7


def test_patients_and_seeds_differ():
    one = simulate_patient(1, spacing_mm=SPACING_MM)
    for other in (simulate_patient(2, spacing_mm=SPACING_MM), simulate_patient(1, spacing_mm=SPACING_MM, seed=1)):
        inside = [part.images["t2"] > 0 for part in (one, other)]
        assert (inside[0] != inside[1]).sum() > 0.05 * inside[0].sum()
        assert not np.array_equal(one.label, other.label)


def test_an_impossible_spacing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--spacing-mm: got 0\.5, expected 1 to 6"):
        simulate_brats(tmp_path, spacing_mm=0.5)
