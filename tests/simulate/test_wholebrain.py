import h5py
import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import label as components

from semiseg.data.label_tables import CHALLENGE, QUICKNAT_28
from semiseg.errors import MissingExtra, UserError
from semiseg.simulate import wholebrain
from semiseg.simulate.anatomy import FLUID, SCALP, SKULL, load_anatomy, read_tissues
from semiseg.simulate.wholebrain import FOLDERS, PARCELS, simulate_head, simulate_wholebrain

SPACING_MM = 4.0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_wholebrain(tmp_path_factory.mktemp("wholebrain"), subjects=4, spacing_mm=SPACING_MM, workers=1)


@pytest.fixture(scope="module")
def heads():
    return [simulate_head(number, spacing_mm=3.0) for number in range(1, 6)]


def centre(label, name, affine):
    """Centre of mass in mm."""
    return nib.affines.apply_affine(affine, np.argwhere(label == QUICKNAT_28[name]).mean(axis=0))


def test_writes_malc_and_quicknat(cohort):
    files = sorted(path.relative_to(cohort).as_posix() for path in cohort.rglob("*") if path.is_file())
    assert files == [
        *(f"malc/images/100{n}_3.nii.gz" for n in range(4)),
        *(f"malc/labels/100{n}_3_glm.nii.gz" for n in range(4)),
        *("quicknat/test/Data_1001.h5", "quicknat/test/Label_1001.h5"),
        *("quicknat/train/Data_1000.h5", "quicknat/train/Label_1000.h5"),
        "quicknat/unlabel/Data_1002.h5",
        *("quicknat/val/Data_1003.h5", "quicknat/val/Label_1003.h5"),
        "simulated.json",
    ]
    image = nib.load(cohort / "malc/images/1000_3.nii.gz")
    assert image.shape == (64, 64, 64)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header.get_zooms() == (SPACING_MM,) * 3


def test_thirty_subjects_are_split_as_published():
    counts = [3 * FOLDERS.count(folder) for folder in ("train", "unlabel", "val", "test")]
    assert counts == [3, 9, 3, 15]


def test_both_layouts_hold_the_same_head(cohort):
    head = simulate_head(1, spacing_mm=SPACING_MM)
    numbers = np.asarray(nib.load(cohort / "malc/labels/1000_3_glm.nii.gz").dataobj)
    assert np.array_equal(np.asarray(nib.load(cohort / "malc/images/1000_3.nii.gz").dataobj), head.image)
    for name, index in QUICKNAT_28.items():
        assert np.array_equal(np.isin(numbers, CHALLENGE[name]), head.label == index), name
    assert {number + side for number in PARCELS for side in (0, 1)} < set(np.unique(numbers))
    with h5py.File(cohort / "quicknat/train/Label_1000.h5") as file:
        label = file["label"][:]
    with h5py.File(cohort / "quicknat/train/Data_1000.h5") as file:
        data = file["data"][:]
    assert data.dtype == np.float32
    assert data.min() == 0
    assert data.max() == 1
    # slices to anterior, rows to inferior, columns to the patient's left
    for x, y, z in ((20, 30, 35), (40, 25, 20), (31, 40, 30)):
        assert label[y, 63 - z, 63 - x] == head.label[x, y, z]
        assert data[y, 63 - z, 63 - x] == pytest.approx(head.image[x, y, z] / head.image.max())


def test_a_larger_cohort_contains_the_smaller_one_byte_for_byte(cohort, tmp_path):
    larger = simulate_wholebrain(tmp_path, subjects=5, spacing_mm=SPACING_MM, workers=1)
    for path in cohort.rglob("*"):
        if path.suffix in (".gz", ".h5"):
            assert (larger / path.relative_to(cohort)).read_bytes() == path.read_bytes()


def test_every_structure_is_in_every_subject_with_about_its_volume(heads):
    """Ranges around the volumes of adults, wide enough for a scaling by 8 % along each axis."""
    millilitres = {
        "cortical WM": (150, 450), "cortical GM": (220, 650), "lateral ventricle": (4, 18), "cerebellar WM": (6, 25),
        "cerebellar GM": (40, 120), "thalamus": (2.5, 9), "caudate": (2.5, 8), "putamen": (3, 9), "pallidum": (0.6, 3),
        "hippocampus": (2.5, 8), "amygdala": (0.7, 3), "ventral DC": (1, 6), "3rd ventricle": (0.7, 3),
        "4th ventricle": (1, 5), "brain stem": (16, 50),
    }  # fmt: skip
    for head in heads:
        volumes = np.bincount(head.label.ravel(), minlength=28) * 27 / 1000
        for name, index in QUICKNAT_28.items():
            if name != "background":
                low, high = millilitres[name.removeprefix("left ").removeprefix("right ")]
                assert low < volumes[index] < high, (name, volumes[index])
        for axis in range(3):
            assert not np.take(head.label, [0, -1], axis=axis).any()


def test_structures_lie_where_they_should(heads):
    for head in heads:
        at = {name: centre(head.label, name, head.affine) for name in QUICKNAT_28}
        for name in at:
            if name.startswith("left "):
                right = at[name.replace("left", "right")]
                assert right[0] - at[name][0] > 8, name
                assert np.abs(right[1:] - at[name][1:]).max() < 20, name  # at about the same height
        for side, out in (("left", -1), ("right", 1)):
            part = {name.removeprefix(f"{side} "): place for name, place in at.items()}
            assert part["thalamus"][0] * out < part["pallidum"][0] * out < part["putamen"][0] * out
            assert part["caudate"][1] > part["putamen"][1] > part["thalamus"][1]
            assert part["amygdala"][1] > part["hippocampus"][1]
            assert part["lateral ventricle"][2] > part["thalamus"][2] > part["ventral DC"][2] > part["amygdala"][2]
            assert part["cerebellar GM"][1] < part["brain stem"][1] < part["ventral DC"][1]
        assert at["3rd ventricle"][2] > at["4th ventricle"][2]
        assert at["4th ventricle"][1] < at["brain stem"][1]


def test_structures_are_of_one_piece(heads):
    for head in heads:
        for name in ("thalamus", "putamen", "pallidum", "hippocampus", "amygdala", "ventral DC", "caudate"):
            inside = head.label == QUICKNAT_28[f"left {name}"]
            sizes = np.bincount(components(inside)[0].ravel())[1:]
            assert sizes.max() > 0.9 * inside.sum(), name


def test_t1_contrast(heads):
    for head in heads:
        mean = {name: np.median(head.image[head.label == index]) for name, index in QUICKNAT_28.items()}
        for side in ("left", "right"):
            white, grey = mean[f"{side} cortical WM"], mean[f"{side} cortical GM"]
            assert mean[f"{side} lateral ventricle"] < grey < white
            assert grey < mean[f"{side} pallidum"]


def test_subjects_and_seeds_differ():
    one = simulate_head(1, spacing_mm=SPACING_MM)
    for other in (simulate_head(2, spacing_mm=SPACING_MM), simulate_head(1, spacing_mm=SPACING_MM, seed=1)):
        assert ((one.label > 0) != (other.label > 0)).sum() > 0.05 * (one.label > 0).sum()


def test_the_template_is_mirrored_with_the_sides_exchanged():
    anatomy = load_anatomy()
    names = {index: name for name, index in QUICKNAT_28.items()}
    values = anatomy.values[: len(anatomy.values) // 2]  # without the plane between the halves
    mirrored = anatomy.values[::-1][: len(values)]
    for index in np.unique(values):
        other = {"left": "right", "right": "left"}
        side, _, part = names.get(int(index), "").partition(" ")
        partner = QUICKNAT_28[f"{other[side]} {part}"] if side in other else index
        assert np.array_equal(values == index, mirrored == partner)
        assert side != "right"


def test_a_head_is_brain_fluid_skull_and_scalp_from_inside_out():
    anatomy = load_anatomy()
    line = anatomy.values[:, round(-anatomy.origin_mm[1] - 20), round(-anatomy.origin_mm[2] + 20)]
    outer = [int(value) for value in dict.fromkeys(line[::-1])][:5]
    assert outer == [0, SCALP, SKULL, FLUID, QUICKNAT_28["right cortical GM"]]


def test_shapes_have_their_volumes():
    tissues = read_tissues()
    assert tissues.ellipsoid((30, 0, 0), (10, 20, 15), 30).sum() == pytest.approx(4 / 3 * np.pi * 3000, rel=0.02)
    # a tube of radius 8 and length 53.4 with half a ball at each end
    tube = tissues.tube(((20, -20, -10, 8), (45, 20, 15, 8)))
    assert tube.sum() == pytest.approx(np.pi * 64 * 53.4 + 4 / 3 * np.pi * 512, rel=0.02)


def test_the_label_is_what_most_samples_hit():
    samples = np.array([3, 5, 5, 3, 5, 0, 0, 7], np.uint8).reshape(8, 1, 1, 1)
    assert wholebrain._majority(samples).item() == 5
    assert wholebrain._majority(samples[::-1]).item() == 5
    assert wholebrain._majority(np.array([4, 2] * 4, np.uint8).reshape(8, 1, 1, 1)).item() == 4


def test_an_impossible_spacing_is_named(tmp_path):
    with pytest.raises(UserError, match="--spacing-mm: got 9, expected 1 to 4"):
        simulate_wholebrain(tmp_path, spacing_mm=9)


def test_without_h5py_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"pip install 'semiseg\[hdf5\]'"):
        simulate_wholebrain(tmp_path / "new", subjects=1)
    assert not (tmp_path / "new").exists()
