"""QuickNAT's HDF5 files: which cases there are, where they belong, and what their values mean."""

import h5py
import numpy as np
import pytest

from semiseg.data.check import check_dataset
from semiseg.data.layouts import open_dataset, open_inputs

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
