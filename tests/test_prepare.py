from dataclasses import replace

import numpy as np
import pytest
from conftest import write_nifti
from test_space import make_plan

from semiseg.data import prepare as module
from semiseg.data.dataset import Case
from semiseg.data.prepare import prepare_cases
from semiseg.errors import InputError
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
