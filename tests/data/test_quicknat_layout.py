"""QuickNAT's HDF5 files: which cases there are, where they belong, and what their values mean."""

import re

import h5py
import numpy as np
import pytest

from semiseg.data.check import check_dataset
from semiseg.data.images import HDF5_AFFINE, read_image, read_label
from semiseg.data.layouts import open_dataset, open_inputs, stacks
from semiseg.errors import InputError

SHAPE = (6, 5, 7)
"""Coronal slices x height x width."""


def write(folder, name, label=True, value=27):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(name))
    with h5py.File(folder / f"Data_{name}.h5", "w") as file:
        file["data"] = rng.normal(size=SHAPE) + sum(map(ord, folder.name))
    if label:
        labels = np.zeros(SHAPE)
        labels[2:4] = value
        with h5py.File(folder / f"Label_{name}.h5", "w") as file:
            file["label"] = labels


@pytest.fixture
def root(tmp_path):
    for folder, name, label in (
        ("train", "1000", True),
        ("train", "1001", False),
        ("val", "1002", True),
        ("test", "1000", True),
        ("unlabel", "1003", True),
    ):
        write(tmp_path / folder, name, label)
    (tmp_path / "train" / "notes.h5").touch()
    (tmp_path / "train" / "._Data_1000.h5").touch()
    return tmp_path


def test_cases_and_their_places(root):
    dataset = open_dataset(root)
    assert dataset.layout == "quicknat"
    assert [(case.name, case.split, case.label is not None) for case in dataset.cases] == [
        ("1000", "train", True),
        ("1001", "train", False),
        ("1002", "val", True),
        ("test_1000", "test", True),
        ("1003", "unlabelled", False),
    ]
    assert dataset.cases[3].images == (root / "test" / "Data_1000.h5",)
    assert dataset.cases[3].label == root / "test" / "Label_1000.h5"
    assert dataset.channels == ("T1",)
    assert list(dataset.classes.values()) == list(range(28))
    assert [case.name for case in open_inputs([root], 1)] == ["1000", "1001", "1002", "test_1000", "1003"]


def test_check_reads_them_and_finds_unknown_values(root):
    assert check_dataset(open_dataset(root)).can_train
    write(root / "train", "1009", value=28)
    (root / "train" / "Label_lonely.h5").touch()
    report = check_dataset(open_dataset(root))
    assert {"1009", "Label_lonely"} == {one.case for one in report.findings if one.severity == "error"}
    assert any("Label_1009.h5: got label values 28 (70 voxels)" in line for line in report.lines())


def test_a_folder_of_other_hdf5_files_is_not_this_layout(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "scan.h5").touch()
    assert [case.name for case in open_inputs([tmp_path / "train"], 1)] == ["scan"]


COUNTS = {"1000": 3, "1001": 5, "1002": 4}
TABLE = "file,case,slices\n" + "".join(f"train/Data_train.h5,{case},{count}\n" for case, count in COUNTS.items())


def stacked(root, table=TABLE, slices=12):
    """All training volumes in one file, and two of 6 slices in Data_Test.h5, as ROAM's authors have them."""
    (root / "train").mkdir(parents=True, exist_ok=True)
    for folder, name, number in ((root / "train", "train", slices), (root, "Test", 12)):
        voxels = np.arange(number * 35).reshape(number, 5, 7)
        with h5py.File(folder / f"Data_{name}.h5", "w") as file:
            file["data"] = voxels.astype(float)
        with h5py.File(folder / f"Label_{name}.h5", "w") as file:
            file["label"] = voxels % 28
    if table:
        (root / "volumes.csv").write_text(table + "Data_Test.h5,1000,6\nData_Test.h5,2000,6\n")
    return root


def test_volumes_of_one_file_are_divided_as_the_table_says(tmp_path):
    dataset = open_dataset(stacked(tmp_path))
    assert [(case.name, case.split) for case in dataset.cases] == [
        ("1000", "train"), ("1001", "train"), ("1002", "train"), ("test_1000", "test"), ("2000", "test"),
    ]  # fmt: skip
    voxels, begin = np.arange(12 * 35).reshape(12, 5, 7), 0
    for case, count in zip(dataset.cases, [*COUNTS.values(), 6, 6], strict=True):
        begin = 0 if case.name == "test_1000" else begin
        image, label = read_image(case.images[0]), read_label(case.label)
        np.testing.assert_array_equal(image.array, voxels[begin : begin + count])
        np.testing.assert_array_equal(label.array, voxels[begin : begin + count] % 28)
        np.testing.assert_array_equal(image.geometry.affine, HDF5_AFFINE)
        begin += count
    assert dataset.notes[0].startswith("3 volumes of Data_train.h5, Label_train.h5, unpacked in ")
    assert len(dataset.notes) == 2
    assert dataset.notes[1].startswith("2 volumes of Data_Test.h5, Label_Test.h5, unpacked in ")
    assert check_dataset(dataset).can_train


def test_volumes_are_unpacked_once_and_anew_when_the_table_changes(tmp_path, monkeypatch):
    before = open_dataset(stacked(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(stacks, "write_like", None)
        assert open_dataset(tmp_path) == before
    (tmp_path / "volumes.csv").write_text((tmp_path / "volumes.csv").read_text().replace("1000,3", "1000,7", 1))
    with pytest.raises(InputError, match=r"Data_train\.h5: got 12 slices, expected 16 as in volumes\.csv"):
        open_dataset(tmp_path)
    stacked(tmp_path, TABLE.replace("1000,3", "1000,4").replace("1002,4", "1002,3"))
    assert [len(read_image(case.images[0]).array) for case in open_dataset(tmp_path).cases] == [4, 5, 3, 6, 6]


def test_labels_and_further_splits_may_be_missing(tmp_path):
    stacked(tmp_path)
    (tmp_path / "train" / "Label_train.h5").unlink()
    (tmp_path / "Data_Test.h5").unlink()
    (tmp_path / "volumes.csv").write_text(TABLE)
    dataset = open_dataset(tmp_path)
    assert [(case.name, case.label) for case in dataset.cases] == [(case, None) for case in COUNTS]
    assert dataset.orphan_labels == (tmp_path / "Label_Test.h5",)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "",
            "train/Data_train.h5: got the volumes of a split in one file, expected {root}/volumes.csv to say how many",
        ),
        ("file,case,slices\n", "train/Data_train.h5: got the volumes of a split in one file"),
        (
            "file,case,slices\ntrain/Data_val.h5,1,12\n",
            "volumes.csv, line 2: got 'train/Data_val.h5', which is no Data",
        ),
        (TABLE.replace("1001,5", "1000,5"), "volumes.csv, line 3: got case '1000' a second time, expected file,case,"),
        (TABLE.replace("1001,5", "../1,5"), "volumes.csv, line 3: got case '../1', which cannot be the name of a file"),
        (TABLE.replace("1001,5", "1001,0"), "volumes.csv, line 3: got 0 slices, expected file,case,slices, a row"),
        (TABLE.replace("1001,5", f"1001,{'9' * 3000}"), "volumes.csv, line 3: got 9999999"),
        (TABLE.replace("1001,5", "1001,five"), "volumes.csv, line 3: got invalid literal"),
        (TABLE.replace("slices", "count"), "volumes.csv: got no column slices, expected"),
        (TABLE.replace("1001,5", "1001,4"), "train/Data_train.h5: got 12 slices, expected 11 as in volumes.csv"),
    ],
)
def test_a_division_is_never_guessed(tmp_path, table, message):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/{message.format(root=tmp_path)}")) as caught:
        open_dataset(stacked(tmp_path, table))
    assert caught.value.exit_code == 3
    assert len(str(caught.value)) < 1000
