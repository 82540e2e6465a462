import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from semiseg.simulate import chest
from semiseg.simulate.chest import LABELS, Canvas, simulate_covid, simulate_slice

SIZE = 64


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_covid(tmp_path_factory.mktemp("covid"), subjects=4, size=SIZE, workers=1)


@pytest.fixture(scope="module")
def slices():
    return [simulate_slice("training", number, size=128) for number in range(1, 41)]


def read(path):
    return np.asarray(nib.load(path).dataobj)


def test_writes_the_files_of_medseg_and_covid_ct(cohort):
    files = sorted(path.relative_to(cohort).as_posix() for path in cohort.rglob("*") if path.is_file())
    assert files == [
        *(f"CT_COVID/covid_00{n}.{'jpg' if n == 3 else 'png'}" for n in (1, 2, 3, 4)),
        *(f"CT_NonCOVID/other_00{n}.{'jpg' if n == 3 else 'png'}" for n in (1, 2, 3, 4)),
        "simulated.json",
        *("tr_im.nii.gz", "tr_lungmasks_updated.nii.gz", "tr_mask.nii.gz", "val_im.nii.gz"),
    ]
    for name, count, kind in (("tr_im", 4, "f4"), ("tr_mask", 4, "u1"), ("tr_lungmasks_updated", 4, "u1")):
        image = nib.load(cohort / f"{name}.nii.gz")
        assert image.shape == (SIZE, SIZE, count)
        assert image.get_data_dtype() == np.dtype(kind)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert read(cohort / "val_im.nii.gz").shape == (SIZE, SIZE, 1)


def test_a_stack_holds_the_slices_with_columns_first(cohort):
    for number in (1, 4):
        drawn = simulate_slice("training", number, size=SIZE)
        assert np.array_equal(read(cohort / "tr_im.nii.gz")[:, :, number - 1], drawn.image.T)
        assert np.array_equal(read(cohort / "tr_mask.nii.gz")[:, :, number - 1], drawn.label.T)
        assert np.array_equal(read(cohort / "tr_lungmasks_updated.nii.gz")[:, :, number - 1], drawn.lung.T)
    validation = read(cohort / "val_im.nii.gz")[:, :, 0]
    assert np.array_equal(validation, simulate_slice("validation", 1, size=SIZE).image.T)
    assert not np.array_equal(validation, simulate_slice("training", 1, size=SIZE).image.T)


def test_a_larger_cohort_contains_the_smaller_one_also_from_two_processes(cohort, tmp_path):
    larger = simulate_covid(tmp_path, subjects=5, size=SIZE, workers=2)
    for path in [path for folder in ("CT_COVID", "CT_NonCOVID") for path in (cohort / folder).iterdir()]:
        assert (larger / path.relative_to(cohort)).read_bytes() == path.read_bytes()
    for name in ("tr_im", "tr_mask", "tr_lungmasks_updated"):
        assert np.array_equal(read(larger / f"{name}.nii.gz")[:, :, :4], read(cohort / f"{name}.nii.gz"))


def test_pictures_have_8_bits_and_sizes_of_their_own(cohort):
    sizes, kinds = set(), set()
    for path in cohort.glob("CT_*/*"):
        with Image.open(path) as picture:
            assert picture.mode == "L"
            sizes.add(picture.size)
            kinds.add(picture.format)
            grey = np.asarray(picture)
        assert grey.min() < 90  # air; the widest window ends far below it
        assert grey.max() > 240  # bone
    assert len(sizes) > 4
    assert kinds == {"PNG", "JPEG"}


def test_every_lesion_lies_in_a_lung_and_has_its_density(slices):
    values = {name: [] for name in LABELS}
    for drawn in slices:
        assert not (drawn.label[drawn.lung == 0] > 0).any()
        for name, value in LABELS.items():
            values[name].append(drawn.image[drawn.label == value])
    assert sum(part.size > 0 for part in values["ground glass"]) == len(slices)
    assert 10 < sum(part.size > 0 for part in values["consolidation"]) < 35
    assert 3 < sum(part.size > 0 for part in values["pleural effusion"]) < 25
    middle = {name: np.median(np.concatenate(parts)) for name, parts in values.items()}
    assert -700 < middle["ground glass"] < -250
    assert -100 < middle["consolidation"] < 50
    assert -10 < middle["pleural effusion"] < 40
    healthy = np.concatenate([part.image[(part.lung > 0) & (part.label == 0)] for part in slices])
    assert -900 < np.median(healthy) < -760


def test_effusion_lies_at_the_back(slices):
    for drawn in slices:
        if (drawn.label == 3).any():
            assert np.argwhere(drawn.label == 3)[:, 0].mean() > np.argwhere(drawn.lung > 0)[:, 0].mean()


def test_the_right_lung_is_in_the_left_half_of_the_picture(slices):
    for drawn in slices:
        for value, half in ((1, slice(64, None)), (2, slice(0, 64))):
            assert (drawn.lung == value).mean() > 0.02
            assert not (drawn.lung[:, half] == value).any()


def test_the_scanner_sees_a_circle(slices):
    for drawn in slices:
        assert (drawn.image[[0, 0, -1, -1], [0, -1, 0, -1]] == chest.OUTSIDE_HU).all()
        assert drawn.image.min() >= chest.OUTSIDE_HU


def test_other_patients_have_no_lesion():
    for number in range(1, 6):
        assert not simulate_slice("other", number, size=SIZE).label.any()


def test_slices_and_seeds_differ():
    one = simulate_slice("training", 1, size=SIZE)
    for other in (simulate_slice("training", 2, size=SIZE), simulate_slice("training", 1, size=SIZE, seed=1)):
        assert ((one.lung > 0) != (other.lung > 0)).sum() > 0.05 * (one.lung > 0).sum()


def test_what_is_painted_last_has_the_pixel_and_shares_stay_one():
    canvas = Canvas(SIZE)
    canvas.paint(np.full((SIZE, SIZE), 0.75), 100.0, 1)
    canvas.paint(np.full((SIZE, SIZE), 0.2), -900.0, 2)
    assert np.allclose(canvas.shares[:, 0, 0], [0.2, 0.6, 0.2, 0, 0])  # 0.25 x 0.8, 0.75 x 0.8, 0.2
    assert np.allclose(canvas.hounsfield[0, 0], 0.2 * -1000 + 0.6 * 100 + 0.2 * -900)


def test_an_ellipse_has_its_area():
    canvas = Canvas(256)
    assert canvas.ellipse(10, -20, 60, 40).sum() * canvas.pixel_mm**2 == pytest.approx(np.pi * 60 * 40, rel=0.01)
