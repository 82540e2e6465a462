import numpy as np
import pytest
from support.plans import affine_of
from support.scans import write_nifti

from semiseg.data import fingerprint
from semiseg.data.dataset import Case, Dataset
from semiseg.data.fingerprint import measure
from semiseg.data.planning import make_plan
from semiseg.data.splits import Splits
from semiseg.errors import InputError

SHAPE = (12, 10, 9)


def case_of(folder, name, image, label=None, affine=None):
    affine = np.eye(4) if affine is None else affine
    channels = image if image.ndim == 4 else image[None]
    paths = [write_nifti(folder / f"{name}_{k}.nii.gz", channel, affine) for k, channel in enumerate(channels)]
    written = None if label is None else write_nifti(folder / f"{name}_label.nii.gz", label, affine)
    return Case(name, tuple(paths), written)


def noise(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def labelled(folder, name="a", values=(0, 1, 2), **changes):
    label = np.resize(np.array(values, np.uint8), SHAPE)
    return case_of(folder, name, noise(), label, **changes)


def dataset_of(tmp_path, **changes):
    return Dataset(tmp_path, "plain", (), **changes)


def splits_of(train, unlabelled=(), val=(), test=()):
    return Splits(tuple(train), tuple(unlabelled), tuple(val), tuple(test))


def test_facts_are_in_ras_order(tmp_path):
    affine = affine_of(order=(2, 0, 1), signs=(1, -1, -1), spacing=(3.0, 1.0, 2.0))
    image = noise()
    image[:3] = 0
    image[:, 7:] = 0
    case = case_of(tmp_path, "a", image, np.ones(SHAPE, np.uint8), affine)
    found = measure(dataset_of(tmp_path), splits_of([case]))
    # file axis 0 runs up, 1 to the left, 2 to the back
    assert found.shapes == ((10, 9, 12),)
    assert found.boxes == ((7, 9, 9),)
    assert found.spacings_mm == ((1.0, 2.0, 3.0),)
    assert found.zero_shares[0] == pytest.approx(1 - 9 * 7 * 9 / (12 * 10 * 9))
    assert found.crop_nonzero


def test_box_is_of_any_channel_and_zero_share_of_all(tmp_path):
    image = np.zeros((2, *SHAPE), np.float32)
    image[0, 2:4, 1:3, 1:3] = 1
    image[1, 3:8, 1:2, 0:2] = 1
    found = measure(dataset_of(tmp_path, channels=("a", "b")), splits_of([case_of(tmp_path, "a", image)]))
    assert found.boxes == ((6, 2, 3),)
    assert found.zero_shares[0] == pytest.approx(1 - 10 / 1080)
    empty = measure(dataset_of(tmp_path), splits_of([case_of(tmp_path, "b", np.zeros(SHAPE, np.float32))]))
    assert empty.boxes == (SHAPE,)


def test_test_scans_and_hidden_labels_are_never_opened(tmp_path):
    train, val = labelled(tmp_path, "train"), labelled(tmp_path, "val", values=(0, 5))
    other = case_of(tmp_path, "other", noise(shape=(30, 10, 9)))
    (tmp_path / "other_label.nii.gz").write_bytes(b"hidden")
    test = Case("test", (tmp_path / "absent.nii.gz",), tmp_path / "absent_label.nii.gz")
    found = measure(dataset_of(tmp_path), splits_of([train], [other], [val], [test]))
    assert found.shapes == (SHAPE, (30, 10, 9), SHAPE)
    assert found.classes == {"background": 0, "1": 1, "2": 2, "5": 5}


def test_declared_classes_and_ignore(tmp_path):
    case = labelled(tmp_path, values=(0, 1, 9))
    declared = {"background": 0, "heart": 1}
    assert measure(dataset_of(tmp_path, classes=declared), splits_of([case])).classes == declared
    found = measure(dataset_of(tmp_path, ignore=9), splits_of([case]))
    assert found.classes == {"background": 0, "1": 1}
    assert found.ignore == 9


def test_ct_window_is_of_the_labelled_foreground(tmp_path):
    image = np.linspace(-1000, 1000, 1080).reshape(SHAPE).astype(np.float32)
    label = (np.abs(image) < 500).astype(np.uint8)
    label[0, 0, 0] = 9
    validation = case_of(tmp_path, "val", 1e6 + image, label)
    dataset = dataset_of(tmp_path, channels=("CT",), ignore=9)
    (rule,) = measure(dataset, splits_of([case_of(tmp_path, "a", image, label)], val=[validation])).normalisation
    assert rule.scheme == "window"
    assert (rule.low, rule.high) == pytest.approx((-495, 495), abs=3)
    assert rule.mean == pytest.approx(0, abs=1)
    assert rule.deviation == pytest.approx(1000 / np.sqrt(12), rel=0.01)


def test_a_ct_window_takes_no_more_voxels_of_a_larger_cohort(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "CT_VOXELS", 50)
    monkeypatch.setattr(fingerprint, "CT_VOXELS_IN_ALL", 60)
    taken = []
    real = fingerprint._foreground_intensities
    monkeypatch.setattr(fingerprint, "_foreground_intensities", lambda *a: taken.append(real(*a)) or taken[-1])
    cases = [labelled(tmp_path, name) for name in "abc"]
    measure(dataset_of(tmp_path, channels=("CT",)), splits_of(cases[:1]))
    measure(dataset_of(tmp_path, channels=("CT",)), splits_of(cases))
    assert list(map(len, taken)) == [50, 20, 20, 20]


def test_ct_without_foreground(tmp_path):
    case = labelled(tmp_path, values=(0,))
    with pytest.raises(InputError, match=r"labels of a: got no foreground voxel, expected some"):
        measure(dataset_of(tmp_path, channels=("CT",)), splits_of([case]))


def test_no_ct_window_is_measured_where_one_is_given(tmp_path):
    image = noise()
    image[3:] = 0
    case = case_of(tmp_path, "a", image, np.zeros(SHAPE, np.uint8))
    given = {"scheme": "window", "low": -9, "high": 9}
    plan = make_plan(
        dataset_of(tmp_path, channels=("ct",), classes={"background": 0, "a": 1}),
        splits_of([case]),
        overrides={"normalisation": given},
    )
    assert (plan.normalisation[0].low, plan.normalisation[0].high) == (-9, 9)
    assert not plan.crop_nonzero  # CT all the same


def test_undeclared_modality_is_treated_as_mr(tmp_path):
    found = measure(dataset_of(tmp_path), splits_of([labelled(tmp_path)]))
    assert found.channels == ("undeclared",)
    assert found.normalisation[0].scheme == "zscore"


def test_wrong_number_of_channels(tmp_path):
    case = labelled(tmp_path)
    with pytest.raises(InputError, match=r"a_0.nii.gz: got 1 channel\(s\), expected 2"):
        measure(dataset_of(tmp_path, channels=("a", "b")), splits_of([case]))


def test_unreadable_file(tmp_path):
    case = labelled(tmp_path)
    case.images[0].write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"a_0.nii.gz: got an unreadable file"):
        measure(dataset_of(tmp_path), splits_of([case]))


def test_plan_of_files(tmp_path):
    cases = [
        labelled(tmp_path, name, affine=np.diag([mm, mm, 1, 1])) for name, mm in zip("abc", (1, 1.5, 3), strict=True)
    ]
    plan = make_plan(
        dataset_of(tmp_path),
        splits_of(cases),
        dims="2",
        memory_gb=1,
        overrides={"network": {"norm": "batch"}},
    )
    assert plan.spacing_mm == (1.5, 1.5, None)
    assert plan.classes == {"background": 0, "1": 1, "2": 2}
    assert plan.network.norm == "batch"
    assert plan.memory_gb == 1
    assert plan.fingerprint["scans"] == 3
    assert plan.fingerprint["largest_spacing_mm"] == [3.0, 3.0, 1.0]
    assert plan == type(plan).parse(plan.model_dump(mode="json"), "plan")


@pytest.mark.realdata
def test_plan_of_real_scans(real_data):
    root = real_data / "hippocampus" / "Dataset004_Hippocampus"
    images = sorted((root / "imagesTr").glob("*.nii.gz"))[:8]
    cases = [Case(p.name[:15], (p,), root / "labelsTr" / p.name.replace("_0000", "")) for p in images]
    plan = make_plan(dataset_of(root), splits_of(cases[:2], cases[2:]))
    assert plan.dims == 3
    assert plan.spacing_mm == (1.0, 1.0, 1.0)
    assert list(plan.classes.values()) == [0, 1, 2]
    assert all(32 <= side <= 64 for side in plan.patch)


def test_the_plan_reads_labels_as_the_dataset_says(tmp_path):
    case = labelled(tmp_path, values=(0, 1, 2, 7))
    declared = {
        "classes": {"background": 0, "a": 1, "b": 2},
        "relabel": {7: 2},
        "other_is_background": True,
        "regions": {"all": (1, 2)},
    }
    plan = make_plan(dataset_of(tmp_path, **declared), splits_of([case]))
    assert {key: getattr(plan, key) for key in declared} == declared
    found = measure(dataset_of(tmp_path, relabel={7: 2}), splits_of([case]))
    assert found.classes == {"background": 0, "1": 1, "2": 2}


def test_relabelled_background_is_no_foreground_of_the_ct_window(tmp_path):
    label = np.resize(np.array([0, 1, 7], np.uint8), SHAPE)
    image = np.where(label == 7, 5000, noise()).astype(np.float32)
    case = case_of(tmp_path, "a", image, label)
    for declared in ({"relabel": {7: 0}}, {"classes": {"background": 0, "a": 1}, "other_is_background": True}):
        (window,) = measure(dataset_of(tmp_path, channels=("CT",), **declared), splits_of([case])).normalisation
        assert window.high < 200
