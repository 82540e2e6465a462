"""COVID-19 CT: stacks become slices, the lungs join the lesions, pictures are unlabelled, and what a mistake says."""

import os
import re

import numpy as np
import pytest
from PIL import Image
from support.scans import write_nifti

from semiseg.data import images
from semiseg.data.images import read_image, read_label
from semiseg.data.layouts import covid, open_dataset, open_inputs, stacks
from semiseg.errors import InputError

AFFINE = np.diag([-0.75, -0.5, 5, 1])
SHAPE = (5, 4, 6)
"""Columns, rows, slices."""
STACK = np.random.default_rng(0).normal(-500, 300, SHAPE)


def masks():
    """Lesions 1, 2, 3 in columns 1 to 3 of slices 0 to 2; the lung in columns 0 and 1 of all, as values 1 and 2."""
    lesion, lung = np.zeros(SHAPE), np.zeros(SHAPE, np.uint8)
    for index in range(3):
        lesion[1 + index, :2, index] = 1 + index
    lung[0], lung[1] = 1, 2
    return lesion, lung


def medseg(root, lung=True, lesion=None, more=False):
    lesions, lungs = masks()
    write_nifti(root / "tr_im.nii.gz", STACK, AFFINE)
    write_nifti(root / "tr_mask.nii.gz", lesions if lesion is None else lesion)
    if lung:
        write_nifti(root / "tr_lungmasks_updated.nii.gz", lungs)
    if more:
        write_nifti(root / "val_im.nii.gz", STACK[..., :2] + 1, AFFINE)
    return root


def pictures(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(np.zeros((3, 4), np.uint8)).save(folder / name)


def test_stacked_slices_become_cases(tmp_path):
    dataset = open_dataset(medseg(tmp_path, lung=False, more=True))
    assert (dataset.layout, dataset.channels) == ("covid", ("CT",))
    assert [case.name for case in dataset.cases] == [f"slice_00{k}" for k in range(6)] + ["val_000", "val_001"]
    assert [case.split for case in dataset.cases] == [None] * 6 + ["unlabelled"] * 2
    assert dataset.classes == {"background": 0, "ground glass": 1, "consolidation": 2, "pleural effusion": 3}
    for index, case in enumerate(dataset.cases[:6]):
        image, label = read_image(case.images[0]), read_label(case.label)
        np.testing.assert_allclose(image.array, STACK[..., index : index + 1], rtol=1e-6)
        np.testing.assert_array_equal(label.array, masks()[0][..., index : index + 1])
        np.testing.assert_array_equal(image.geometry.affine, AFFINE)
        np.testing.assert_array_equal(label.geometry.affine, AFFINE)
    np.testing.assert_allclose(read_image(dataset.cases[7].images[0]).array[..., 0], STACK[..., 1] + 1, rtol=1e-6)
    assert dataset.cases[7].label is None
    assert dataset.notes[0].startswith("6 slices of tr_im.nii.gz, tr_mask.nii.gz, unpacked in ")
    assert dataset.notes[1].startswith("2 slices of val_im.nii.gz, unpacked in ")


def test_the_lungs_become_a_class_and_lesions_win(tmp_path):
    dataset = open_dataset(medseg(tmp_path))
    assert list(dataset.classes) == ["background", "lung", "ground glass", "consolidation", "pleural effusion"]
    assert list(dataset.classes.values()) == [0, 1, 2, 3, 4]
    values = [read_label(case.label).array[:, :, 0] for case in dataset.cases]
    assert values[0].tolist() == [[1] * 4, [2, 2, 1, 1], [0] * 4, [0] * 4, [0] * 4]
    assert values[1].tolist() == [[1] * 4, [1] * 4, [3, 3, 0, 0], [0] * 4, [0] * 4]
    assert values[2].tolist() == [[1] * 4, [1] * 4, [0] * 4, [4, 4, 0, 0], [0] * 4]
    assert values[5].tolist() == [[1] * 4, [1] * 4, [0] * 4, [0] * 4, [0] * 4]


def test_the_authors_arrays_lie_as_pictures(tmp_path):
    labels = np.random.default_rng(1).integers(0, 5, (3, 4, 5))
    np.save(tmp_path / "COVID.npy", STACK.transpose(2, 1, 0)[:3])
    np.save(tmp_path / "COVID_Seg.npy", labels.astype(float))
    dataset = open_dataset(tmp_path)
    assert dataset.classes == covid.LUNG_AND_INFECTION
    for index, case in enumerate(dataset.cases):
        image, label = read_image(case.images[0]), read_label(case.label)
        np.testing.assert_allclose(image.array, STACK[..., index : index + 1], rtol=1e-6)
        np.testing.assert_array_equal(label.array[..., 0], labels[index].T)
        np.testing.assert_array_equal(image.geometry.affine, images.PICTURE_AFFINE)
    assert len(dataset.cases) == 3


def unlabelled_stacks(root):
    for offset, name in enumerate(("unlCovid", "unlNonCovid")):
        write_nifti(root / f"{name}.nii", STACK[..., : 2 + offset] + 10 * (1 + offset), AFFINE)
    return root


def test_the_authors_unlabelled_stacks_lie_beside_their_arrays(tmp_path):
    np.save(tmp_path / "COVID.npy", STACK.transpose(2, 1, 0))
    np.save(tmp_path / "COVID_Seg.npy", np.zeros((6, 4, 5)))
    dataset = open_dataset(unlabelled_stacks(tmp_path))
    assert [case.name for case in dataset.cases[6:]] == [
        "unlCovid_000", "unlCovid_001", "unlNonCovid_000", "unlNonCovid_001", "unlNonCovid_002",
    ]  # fmt: skip
    assert {(case.split, case.label) for case in dataset.cases[6:]} == {("unlabelled", None)}
    assert all(case.label for case in dataset.cases[:6])
    first, last = read_image(dataset.cases[6].images[0]), read_image(dataset.cases[-1].images[0])
    np.testing.assert_allclose(first.array, STACK[..., :1] + 10, rtol=1e-5)
    np.testing.assert_allclose(last.array, STACK[..., 2:3] + 20, rtol=1e-5)
    np.testing.assert_array_equal(last.geometry.affine, AFFINE)
    assert [note.partition(",")[0] for note in dataset.notes] == [
        "6 slices of COVID.npy", "2 slices of unlCovid.nii", "3 slices of unlNonCovid.nii",
    ]  # fmt: skip


@pytest.mark.parametrize("missing", ["COVID.npy", "COVID_Seg.npy", "unlCovid.nii", "unlNonCovid.nii"])
def test_any_of_the_authors_files_may_be_missing(tmp_path, missing):
    np.save(tmp_path / "COVID.npy", STACK.transpose(2, 1, 0))
    np.save(tmp_path / "COVID_Seg.npy", np.zeros((6, 4, 5)))
    (unlabelled_stacks(tmp_path) / missing).unlink()
    dataset = open_dataset(tmp_path)
    count = {"COVID.npy": 5, "COVID_Seg.npy": 11, "unlCovid.nii": 9, "unlNonCovid.nii": 8}[missing]
    assert (dataset.layout, len(dataset.cases)) == ("covid", count)
    assert sum(case.label is not None for case in dataset.cases) == (0 if missing.startswith("COVID") else 6)


def test_names_do_not_depend_on_the_order_in_which_a_disk_lists_folders(tmp_path, monkeypatch):
    for above in "ab":
        pictures(tmp_path / above / "CT_COVID", "x.png")
    listed = type(tmp_path).glob
    monkeypatch.setattr(type(tmp_path), "glob", lambda self, pattern: sorted(listed(self, pattern), reverse=True))
    first, second = open_dataset(tmp_path).cases
    assert (first.name, first.images[0].parent.parent.name) == ("x", "a")
    assert (second.name, second.images[0].parent.parent.name) == ("CT_COVID_x", "b")


def test_pictures_are_unlabelled_cases_wherever_the_repository_lies(tmp_path):
    root = medseg(tmp_path / "data")
    pictures(root / "COVID-CT" / "Images-processed" / "CT_COVID", "2020.01%0.png", "a.jpg", "._a.jpg")
    pictures(root / "CT_NonCOVID", "a.jpg", "slice_000.png")
    cases = open_dataset(root).cases[6:]
    assert {case.name for case in cases} == {"a", "CT_COVID_a", "2020.01%0", "CT_NonCOVID_slice_000"}
    assert {(case.split, case.label) for case in cases} == {("unlabelled", None)}
    alone = open_dataset(root / "COVID-CT")
    assert [case.name for case in alone.cases] == ["2020.01%0", "a"]
    other = medseg(tmp_path / "other")
    assert [case.name for case in open_dataset(other, unlabelled=root / "COVID-CT").cases[6:]] == ["2020.01%0", "a"]
    folder = root / "CT_NonCOVID"
    assert [case.name for case in open_dataset(other, unlabelled=folder).cases[6:]] == ["a", "CT_NonCOVID_slice_000"]
    assert [case.name for case in open_inputs([root / "COVID-CT"], 1)] == ["2020.01%0", "a"]


def test_slices_are_unpacked_once_and_anew_when_a_file_changes(tmp_path, monkeypatch):
    root = medseg(tmp_path)
    before = open_dataset(root)
    with monkeypatch.context() as patched:
        patched.setattr(stacks, "write_like", None)
        assert open_dataset(root) == before
    lesion, _ = masks()
    lesion[4, 3, 5] = 3
    write_nifti(root / "tr_mask.nii.gz", lesion)
    os.utime(root / "tr_mask.nii.gz", (1, 1))  # however fast this test runs
    after = open_dataset(root)
    assert [case.images for case in after.cases] == [case.images for case in before.cases]
    assert read_label(after.cases[5].label).array[4, 3, 0] == 4
    assert read_label(before.cases[5].label).array[4, 3, 0] == 0


def test_an_interrupted_unpacking_leaves_nothing(tmp_path, monkeypatch):
    root, whole, written = medseg(tmp_path), stacks.write_like, []

    def breaks(path, array, scan):
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        whole(path, array, scan)

    with monkeypatch.context() as patched:
        patched.setattr(stacks, "write_like", breaks)
        with pytest.raises(KeyboardInterrupt):
            open_dataset(root)
    assert not list(written[0].parent.parent.iterdir())
    assert len(open_dataset(root).cases) == 6


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("tr_mask.nii.gz", np.zeros((5, 4, 7)), "got shape 5x4x7, expected 5x4x6 as in tr_im.nii.gz; use files that"),
        ("tr_lungmasks_updated.nii.gz", np.zeros((5, 5, 6)), "got shape 5x5x6, expected 5x4x6 as in tr_im.nii.gz"),
        ("tr_mask.nii.gz", np.full(SHAPE, 4.0), "got label value 4, expected 0 (background), 1 (ground glass), 2 ("),
        ("tr_im.nii.gz", np.zeros((5, 4)), "got 2-D (5x4), expected 3-D"),
    ],
)
def test_a_mistake_names_the_source_file(tmp_path, name, array, message):
    write_nifti(medseg(tmp_path) / name, array)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / name}: {message}")):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (STACK, np.full(SHAPE, 5), "COVID_Seg.npy: got label value 5, expected 0 (background), 1 (lung), 2 (ground"),
        (STACK, np.zeros((6, 5, 4)), "COVID_Seg.npy: got shape 6x5x4, expected 5x4x6 as in COVID.npy"),
        (STACK[0], masks()[0], "COVID.npy: got float64 of shape (4, 6), expected numbers as slices x height x width"),
        (np.array([{}], object), masks()[0], "COVID.npy: got an unreadable file (Array can't be memory-mapped"),
        (np.zeros((2, 3, 4), [("a", "f4")]), masks()[0], "COVID.npy: got [('a', '<f4')] of shape (2, 3, 4), expected"),
        (np.zeros((2, 3, 4), "U3"), masks()[0], "COVID.npy: got <U3 of shape (2, 3, 4), expected numbers"),
    ],
)
def test_a_mistake_in_an_array_names_its_file(tmp_path, image, label, message):
    np.save(tmp_path / "COVID.npy", image, allow_pickle=True)
    np.save(tmp_path / "COVID_Seg.npy", label)
    with pytest.raises(InputError, match=re.escape(message)):
        open_dataset(tmp_path)


def header(text, version=1):
    """A file of NumPy with this header, and no more."""
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


HEADERS = {
    "a negative shape": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3, 4)}\n"),
    "an enormous shape": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000, 30000, 40000)}\n"),
    "a shape of text": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': ('a', 3, 4)}\n"),
    "no shape": header(b"{'descr': '<f4', 'fortran_order': False}\n"),
    "an unknown type": header(b"{'descr': 'x9', 'fortran_order': False, 'shape': (2, 3, 4)}\n"),
    "no Python": header(b"(((((\n"),
    "an open string": header(b"{'descr': '<f4\n"),
    "nested": header(b"[" * 9000),
    "not ASCII": header(b"\xff\xfe\xff"),
    "a later version": header(b"{}", version=9),
    "cut off": b"\x93NUMPY\x01",
    "empty": b"",
    "something else": b"hello",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_damaged_array_names_its_file(tmp_path, name):
    (tmp_path / "COVID.npy").write_bytes(HEADERS[name])
    with pytest.raises(InputError, match=r"COVID\.npy: got an unreadable file .*, expected a NumPy array of numbers"):
        open_dataset(tmp_path)


def test_several_arrays_under_the_name_of_one(tmp_path):
    np.savez(tmp_path / "several.npz", STACK)
    (tmp_path / "several.npz").rename(tmp_path / "COVID.npy")
    with pytest.raises(InputError, match=r"COVID\.npy: got an unreadable file \(several arrays in one file\)"):
        open_dataset(tmp_path)
