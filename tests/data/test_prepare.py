import errno
from dataclasses import replace

import numpy as np
import pytest
from support.plans import make_plan
from support.scans import write_nifti

from semiseg.data import prepare as module
from semiseg.data.dataset import Case
from semiseg.data.plan import Plan
from semiseg.data.prepare import prepare_cases
from semiseg.errors import InputError
from semiseg.experiments.experiment import prepare_dataset
from semiseg.experiments.run_settings import RunSettings
from semiseg.types import IGNORE


@pytest.fixture
def case(tmp_path):
    rng = np.random.default_rng(0)
    label = np.zeros((10, 12, 8), np.uint8)
    label[2:8, 3:9, 2:6] = 1
    label[8:, :2, :2] = 2
    image = rng.normal(1.7e6, 1e5, label.shape).astype(np.float32)
    write_nifti(tmp_path / "images" / "one.nii.gz", image)
    write_nifti(tmp_path / "labels" / "one.nii.gz", label)
    return Case("one", (tmp_path / "images" / "one.nii.gz",), tmp_path / "labels" / "one.nii.gz")


def test_arrays_on_disk(case):
    (prepared,) = prepare_cases([case], make_plan())
    image, label, foreground = prepared.open_image(), prepared.open_label(), prepared.open_foreground()
    assert prepared.name == "one"
    assert prepared.shape == image.shape[1:] == label.shape == (10, 12, 8)
    assert prepared.spacing_mm == (1, 1, 1)
    assert isinstance(image, np.memmap)
    assert image.dtype == np.float16
    assert np.isfinite(image).all()
    assert label.dtype == np.uint8
    assert np.bincount(label.ravel()).tolist() == [960 - 144 - 8, 144, 8]
    assert foreground.dtype == np.int32
    assert len(foreground) == 144 + 8
    np.testing.assert_array_equal(label[tuple(foreground[:, 1:].T)], foreground[:, 0])


def test_foreground_is_a_spread_deterministic_sample(case, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "FOREGROUND_VOXELS", 20)
    first = prepare_cases([case], make_plan(), cache=tmp_path / "a")[0].open_foreground()
    second = prepare_cases([case], make_plan(), cache=tmp_path / "b")[0].open_foreground()
    np.testing.assert_array_equal(first, second)
    assert np.bincount(first[:, 0]).tolist() == [0, 20, 8]
    ones = first[first[:, 0] == 1, 1:]
    assert (np.ptp(ones, axis=0) >= (4, 4, 2)).all()
    assert len(np.unique(ones, axis=0)) == 20


def test_nothing_is_done_twice(case, monkeypatch):
    first = prepare_cases([case], make_plan())
    monkeypatch.setattr(module, "read_image", None)
    monkeypatch.setattr(module, "read_label", None)
    assert prepare_cases([case], make_plan()) == first
    assert prepare_cases([case], make_plan(patch=(16, 16, 16), batch=7)) == first


FLAT = {"dims": 2, "patch": (8, 8)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"spacing_mm": (2, 2, 2)}),
        ({}, {"crop_nonzero": True}),
        ({}, {"normalisation": [{"scheme": "window"}]}),
        ({}, {"crop_box": ((1, 9), None, None)}),
        ({}, {"resize": (None, 9, None)}),
        ({}, {"bias_correction": True}),
        ({}, {"mask_zeros": True}),
        ({**FLAT, "slice_axis": 0}, {**FLAT, "slice_axis": 1}),
    ],
)
def test_changed_preprocessing_is_prepared_anew(case, before, after):
    first, second = (prepare_cases([case], make_plan(**changes))[0] for changes in (before, after))
    assert first.image != second.image
    assert first.label != second.label


@pytest.mark.parametrize(
    "changes",
    [{"classes": {"background": 0, "b": 2, "a": 1}}, {"classes": {"background": 0, "a": 1}, "ignore": 2}],
)
def test_changed_classes_change_the_label_alone(case, changes):
    first, second = (prepare_cases([case], plan)[0] for plan in (make_plan(), make_plan(**changes)))
    assert first.image == second.image
    assert not np.array_equal(first.open_label(), second.open_label())


def test_changed_files_are_prepared_anew(case):
    (first,) = prepare_cases([case], make_plan())
    write_nifti(case.label, np.ones((10, 12, 8), np.uint8))
    (second,) = prepare_cases([case], make_plan())
    assert second.image == first.image
    assert (second.open_label() == 1).all()
    write_nifti(case.images[0], np.zeros((10, 12, 8), np.float32))
    assert (prepare_cases([case], make_plan())[0].open_image() == 0).all()


def test_hidden_label_is_never_looked_for(case):
    case.label.write_bytes(b"not a label")
    (prepared,) = prepare_cases([replace(case, label=None)], make_plan())
    assert prepared.label is None
    assert prepared.foreground is None
    with pytest.raises(InputError, match="one: got an unlabelled case, expected one with a label"):
        prepared.open_label()


def test_values_become_indices_and_ignore(case):
    write_nifti(case.label, np.array([0, 17, 53, 255], np.uint8).repeat(240).reshape(10, 12, 8))
    plan = make_plan(classes={"background": 0, "right": 53, "left": 17}, ignore=255)
    label = prepare_cases([case], plan)[0].open_label()
    assert label.dtype == np.int16
    assert np.unique(label).tolist() == [IGNORE, 0, 1, 2]
    assert label.ravel()[[0, 240, 480, 720]].tolist() == [0, 2, 1, IGNORE]


def test_label_without_foreground(case):
    write_nifti(case.label, np.zeros((10, 12, 8), np.uint8))
    assert prepare_cases([case], make_plan())[0].open_foreground().shape == (0, 4)


def test_several_processes_give_the_same_in_the_same_order(case, tmp_path):
    other = Case("another", case.images)
    cases = [case, other]
    alone = prepare_cases(cases, make_plan(), cache=tmp_path / "alone")
    shared = prepare_cases(cases, make_plan(), cache=tmp_path / "shared", workers=2)
    assert [prepared.name for prepared in shared] == ["one", "another"]
    for first, second in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(first.open_image(), second.open_image())


def test_failure_leaves_nothing_behind(case, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "write_json", None)
    with pytest.raises(TypeError):
        prepare_cases([case], make_plan(), cache=tmp_path / "cache")
    assert list((tmp_path / "cache" / "prepared" / "images").iterdir()) == []


def broken(case, kind):
    good = np.ones((10, 12, 8), np.float32)
    if kind == "truncated":
        case.images[0].write_bytes(case.images[0].read_bytes()[:500])
        return case, "one.nii.gz: got an unreadable file"
    if kind == "missing":
        case.images[0].unlink()
        return case, "one.nii.gz: got No such file or directory, expected a readable file"
    if kind == "channels":
        return replace(case, images=case.images * 2), "got 2 channel.s., expected 1 .MRI."
    if kind == "nan":
        good[0, 0, :3] = np.nan
        write_nifti(case.images[0], good)
        return case, "one.nii.gz: got NaN or infinity in 3 voxels"
    if kind == "shape":
        write_nifti(case.label, np.ones((10, 12, 7), np.uint8))
        return case, "labels/one.nii.gz: got shape 10x12x7, expected 10x12x8 like .*images/one.nii.gz"
    write_nifti(case.label, np.full((10, 12, 8), 9, np.uint8))
    return case, r"labels/one.nii.gz: got label value\(s\) 9, expected 0 \(background\), 1 \(a\), 2 \(b\)"


KINDS = ["truncated", "missing", "channels", "nan", "shape", "values"]


@pytest.mark.parametrize(("kind", "workers"), [(kind, 1) for kind in KINDS] + [("truncated", 2)])
def test_mistakes_are_named(case, tmp_path, kind, workers):
    sound = tmp_path / "images" / "sound.nii.gz"
    write_nifti(sound, np.ones((10, 12, 8), np.float32))
    case, message = broken(case, kind)
    with pytest.raises(InputError, match=message):
        prepare_cases([Case("sound", (sound,)), case], make_plan(), workers=workers)


def brains(folder, count=3, shape=(40, 44, 30)):
    """Skull-stripped two-channel scans whose intensities fade, stored left to right as most are."""
    cases = []
    for index in range(count):
        rng = np.random.default_rng(index)
        distance = np.linalg.norm((np.indices(shape).T - np.array(shape) / 2) / (17, 18, 12), axis=-1).T
        label = (distance < 1).astype(np.uint8) + (distance < 0.4)
        images = []
        for channel in range(2):
            tissue = np.array([0, 300 + 200 * channel, 700])[label] + (label > 0) * rng.normal(0, 20, shape)
            field = np.exp(np.linspace(-0.4, 0.4, shape[channel])).reshape(
                [-1 if a == channel else 1 for a in range(3)]
            )
            path = folder / f"brain{index}_{channel}.nii.gz"
            images.append(write_nifti(path, (tissue * field).round().astype(np.int16), np.diag([-1.0, -1.0, 1.0, 1.0])))
        cases.append(Case(f"brain{index}", tuple(images)))
    return cases


BRATS = {
    "channels": ["flair", "t1"], "normalisation": [{"scheme": "equalise"}] * 2, "dims": 2, "slice_axis": 2,
    "patch": (8, 8), "network": {"widths": [4], "strides": []}, "bias_correction": True, "mask_zeros": True,
    "crop_nonzero": True, "crop_box": ((2, 38), (8, 232), None),
}  # fmt: skip


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_prediction_sees_what_was_prepared(tmp_path, monkeypatch, workers):
    """The preprocessing of EquiReg: the same in other processes, and found again afterwards."""
    plan, cases = make_plan(**BRATS), brains(tmp_path)
    prepared = prepare_cases(cases, plan, workers=workers)
    for case, stored in zip(cases, prepared, strict=True):
        channels, scan = module.read_channels(case, plan)
        image, space = module.to_network_space(channels, scan.geometry, plan)
        assert space.box[:2] == ((2, 38), (8, 44))
        assert stored.shape == space.shape == (23, 36, 36)
        np.testing.assert_array_equal(stored.open_image(), image.astype(np.float16))
        inside = image[0] > 0
        np.testing.assert_allclose(np.quantile(image[0][inside], [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.01)
    monkeypatch.setattr(module, "read_image", None)
    assert prepare_cases(cases, plan) == prepared


def test_what_was_prepared_before_an_interruption_is_not_done_again(tmp_path, monkeypatch):
    plan, cases = make_plan(**BRATS), brains(tmp_path)
    begun, whole = [], module.to_network_space

    def interrupted(channels, geometry, plan):
        begun.append(1)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return whole(channels, geometry, plan)

    monkeypatch.setattr(module, "to_network_space", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_cases(cases, plan)
    assert len(prepare_cases(cases, plan)) == 3
    assert len(begun) == 4


def test_a_crop_box_that_misses_a_scan_names_its_file(case):
    with pytest.raises(InputError, match=r"one.nii.gz: plan.crop_box.2: got \(8, 232\) for a scan of 8 voxels"):
        prepare_cases([case], make_plan(crop_box=(None, None, (8, 232))))


def test_scans_that_are_windowed_already_are_counted(plain_cohort, capsys):
    root = plain_cohort(labelled=4, unlabelled=2)
    for name in ("images/case1", "unlabelled/case4", "unlabelled/case5"):
        write_nifti(root / f"{name}.nii.gz", np.random.default_rng(0).integers(0, 256, (12, 14, 10)).astype(np.uint8))
    for name in ("case0", "case2", "case3"):
        image = np.random.default_rng(0).normal(-300, 500, (12, 14, 10)).astype(np.float32)
        write_nifti(root / f"images/{name}.nii.gz", image)
    window = {"scheme": "window", "low": -1000, "high": 600, "eight_bit": True}
    small = {"patch": [8, 8, 8], "network": {"widths": [4], "strides": []}}
    settings = RunSettings.parse(
        {"data": {"path": str(root)}, "plan": {**small, "normalisation": [window]}}, "settings"
    )
    prepare_dataset(settings, workers=1)
    assert capsys.readouterr().err.count("3 of 6 scans: all values lie in 0 to 255 or 0 to 1, taken as") == 1
    prepare_dataset(settings.model_copy(update={"plan": small}), workers=1)
    assert "taken as" not in capsys.readouterr().err


@pytest.mark.realdata
def test_real_scans(real_data):
    root = real_data / "hippocampus" / "Dataset004_Hippocampus"
    images = sorted((root / "imagesTr").glob("*.nii.gz"))[:3]
    cases = [Case(path.name[:15], (path,), root / "labelsTr" / path.name.replace("_0000", "")) for path in images]
    for prepared in prepare_cases(cases, make_plan()):
        image = prepared.open_image().astype(np.float32)
        assert abs(image.mean()) < 0.1
        assert abs(image.std() - 1) < 0.1
        assert set(np.unique(prepared.open_label())) == {0, 1, 2}


def test_a_plan_that_was_saved_finds_what_was_prepared(case, tmp_path):
    plan = make_plan(classes={"background": 0, "both": 1}, relabel={5: 1, 2: 1, 4: 0})
    plan.save(tmp_path / "plan.json")
    (made,), (found,) = prepare_cases([case], plan), prepare_cases([case], Plan.load(tmp_path / "plan.json"))
    assert made == found


def test_relabelled_values_are_their_class(case):
    before = prepare_cases([case], make_plan())[0]
    plan = make_plan(classes={"background": 0, "both": 1}, relabel={2: 1})
    (prepared,) = prepare_cases([case], plan)
    assert prepared.image == before.image
    assert np.bincount(prepared.open_label().ravel()).tolist() == [960 - 144 - 8, 144 + 8]
    (other,) = prepare_cases([case], make_plan(classes={"background": 0, "both": 1}, other_is_background=True))
    assert np.bincount(other.open_label().ravel()).tolist() == [960 - 144, 144]
    (gone,) = prepare_cases([case], make_plan(classes={"background": 0, "both": 1}, relabel={2: 0}))
    np.testing.assert_array_equal(gone.open_label(), other.open_label())
    (ignored,) = prepare_cases([case], make_plan(classes={"background": 0, "both": 1}, relabel={2: 9}, ignore=9))
    assert (ignored.open_label() == IGNORE).sum() == 8


def truncated(path):
    path.write_bytes(path.read_bytes()[:150])


def of_another_shape(path):
    np.save(path, np.load(path)[:, :2])


def of_another_type(path):
    np.save(path, np.load(path).astype(np.float64))


def emptied(path):
    path.write_bytes(b"")


def gone(path):
    path.unlink()


def pickled(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def nested(path):
    path.write_text("[" * 100000)


DAMAGE = [truncated, of_another_shape, of_another_type, emptied, gone, pickled, nested]


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "foreground.npy", "images/meta.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_prepared_anew(case, tmp_path, name, damage):
    if damage in (of_another_shape, of_another_type) and name.endswith(".json"):
        return
    (first,) = prepare_cases([case], make_plan(), cache=tmp_path / "cache")
    before = first.open_image().copy(), first.open_label().copy(), first.open_foreground().copy()
    folder, _, file = name.rpartition("/")
    (path,) = (path for path in (tmp_path / "cache").rglob(file) if folder in path.parts or not folder)
    damage(path)
    (again,) = prepare_cases([case], make_plan(), cache=tmp_path / "cache")
    for expected, array in zip(before, (again.open_image(), again.open_label(), again.open_foreground()), strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_prepared_label_with_values_of_no_class_is_prepared_anew(case, tmp_path):
    (first,) = prepare_cases([case], make_plan(), cache=tmp_path / "cache")
    np.save(first.label, np.full_like(np.load(first.label), 9))
    (again,) = prepare_cases([case], make_plan(), cache=tmp_path / "cache")
    assert again.open_label().max() == 2


def test_a_full_disk_in_the_cache_is_told_as_one(case, tmp_path, monkeypatch):
    def short(*_, **__):
        raise OSError("62475 requested and 12224 written")

    monkeypatch.setattr(np, "save", short)
    with pytest.raises(OSError, match="No space left") as told:
        prepare_cases([case], make_plan(), cache=tmp_path / "cache")
    assert told.value.errno == errno.ENOSPC
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_grid_far_too_fine_is_refused_before_it_is_made(case, tmp_path):
    plan = make_plan(spacing_mm=(1e-4, 1e-4, 1e-4))
    with pytest.raises(
        InputError, match=r"one\.nii\.gz: got 100000x120000x80000 voxels after resampling from 1 x 1 x 1"
    ):
        prepare_cases([case], plan, cache=tmp_path / "cache")
