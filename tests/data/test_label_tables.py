"""Tables of classes: the numberings agree in names, no value means two classes, the right numbering is chosen."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.scans import write_nifti

from semiseg.data.dataset import Case, Dataset
from semiseg.data.label_tables import CHALLENGE, FREESURFER, QUICKNAT_28, TABLES, apply_table
from semiseg.data.label_values import class_values, undeclared
from semiseg.errors import InputError, UserError


def dataset(tmp_path, values=None, **declared):
    label = None
    if values is not None:
        label = write_nifti(tmp_path / "label.nii.gz", np.array(values, np.int16).reshape(-1, 1, 1))
    return Dataset(tmp_path, "plain", (Case("a", (), None), Case("b", (), label)), **declared)


@pytest.mark.parametrize("table", TABLES["roam28"].values(), ids=TABLES["roam28"])
def test_every_numbering_has_the_28_classes_and_each_value_once(table):
    assert table.keys() == QUICKNAT_28.keys()
    assert len(table) == 28
    values = [value for numbers in table.values() for value in numbers]
    assert len(values) == len(set(values))
    assert table["background"] == (0,)
    for name in table:
        if name.startswith("left "):
            assert len(table[name]) == len(table[name.replace("left", "right")])


def test_known_numbers():
    """Spot checks against FreeSurferColorLUT.txt and the challenge's list of labels."""
    assert FREESURFER["left hippocampus"] == (17,)
    assert FREESURFER["right ventral DC"] == (60,)
    assert {1035, 2} & set(FREESURFER["left cortical GM"]) == {1035}
    assert FREESURFER["right lateral ventricle"] == (43, 44)
    assert CHALLENGE["right caudate"] == (36,)
    assert CHALLENGE["brain stem"] == (35,)
    assert CHALLENGE["right cortical GM"] == tuple(range(100, 207, 2))
    assert CHALLENGE["left cortical GM"] == tuple(range(101, 208, 2))
    assert list(QUICKNAT_28)[:6] == [
        "background", "left cortical WM", "left cortical GM", "right cortical WM", "right cortical GM",
        "left lateral ventricle",
    ]  # fmt: skip
    assert QUICKNAT_28["right ventral DC"] == 27


@pytest.mark.parametrize(
    ("values", "numbering", "thalamus"),
    [
        ([0, 2, 3, 41, 42, 10, 49, 14, 136, 164], "FreeSurfer", 10),
        ([0, 44, 45, 100, 101, 59, 60, 35, 23], "2012 challenge", 60),
        (range(28), "QuickNAT index", 8),
        (None, "FreeSurfer", 10),
    ],
)
def test_the_numbering_is_found_in_a_label_file(tmp_path, values, numbering, thalamus):
    read = apply_table(dataset(tmp_path, values), "roam28")
    assert read.notes == (f"classes roam28, {numbering} numbering",)
    assert list(read.classes) == list(QUICKNAT_28)
    assert read.classes["left thalamus"] == thalamus
    assert read.other_is_background


def test_values_become_class_values(tmp_path):
    read = apply_table(dataset(tmp_path, [0, 2, 5, 41, 1003, 136]), "roam28")
    array = np.array([[0, 2, 4, 5], [1003, 136, 77, 60]], np.int32)
    assert class_values(array, read).tolist() == [[0, 2, 4, 4], [3, 0, 0, 60]]
    assert undeclared([2, 5, 136], read) == [136]


def test_only_listed_values_change_without_other(tmp_path):
    read = dataset(tmp_path, classes={"background": 0, "a": 1}, relabel={7: 1, 8: 0}, ignore=9)
    assert class_values(np.array([0, 1, 7, 8, 9, 5]), read).tolist() == [0, 1, 1, 0, 9, 5]
    assert undeclared([0, 1, 5, 7, 8, 9], read) == [5]


@pytest.mark.parametrize("name", ["table.yaml", "table.json"])
def test_a_table_of_ones_own(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps({"organ": [3, 5], "air": [9, 0], "tumour": 4, "other": "background"}))
    regions = {"all": (3, 4), "gone": (1,)}
    read = apply_table(dataset(tmp_path, regions=regions), str(path))
    assert list(read.classes.items()) == [("air", 0), ("organ", 3), ("tumour", 4)]
    assert read.relabel == {9: 0, 5: 3}
    assert read.other_is_background
    assert read.regions == {"all": (3, 4)}
    path.write_text("organ: [3, 5]")
    read = apply_table(dataset(tmp_path), str(path))
    assert read.classes == {"background": 0, "organ": 3}
    assert not read.other_is_background


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "table.yaml: got no table, expected lines `name: value`"),
        ("a: [1, 2", "table.yaml: got while parsing"),
        ("a: 1.5", "table.yaml: got 1.5 for class 'a', expected a whole number"),
        (f"a: {2**31}", "table.yaml: got 2147483648 for class 'a', expected a whole number of 32 bits"),
        ('"\\ud800": 1', "table.yaml: got the text '\\ud800', which is not Unicode"),
        ("a: []", "table.yaml: got [] for class 'a', expected a whole number"),
        ("a: 1\nb: [2, 1]", "table.yaml: got value 1 twice, expected each in one class"),
        ("background: 0\nother: background", "table.yaml: got only 'background', expected a class besides"),
        ("a: 1\nother: 2", "table.yaml: got other: 2, expected `other: background`"),
    ],
)
def test_mistakes_in_a_table(tmp_path, text, message):
    (tmp_path / "table.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        apply_table(dataset(tmp_path), str(tmp_path / "table.yaml"))
    assert message in str(error.value)


def test_unknown_names(tmp_path):
    with pytest.raises(UserError, match=r"--classes: got 'roam82', expected roam28, or a .yaml or .json file"):
        apply_table(dataset(tmp_path), "roam82")
    with pytest.raises(InputError, match=r"none.yaml: got .*No such file"):
        apply_table(dataset(tmp_path), str(tmp_path / "none.yaml"))


@pytest.mark.realdata
def test_real_freesurfer_labels_have_every_class(real_data: Path):
    from semiseg.data.layouts import open_dataset

    for layout in (None, "malc"):
        read = open_dataset(real_data / "wholebrain", layout)
        read = read if layout else apply_table(read, "roam28")
        assert "classes roam28, FreeSurfer numbering" in read.notes
    import nibabel as nib

    values = np.asarray(nib.load(real_data / "wholebrain" / "labels" / "subject01.nii.gz").dataobj).astype(np.int32)
    assert set(np.unique(class_values(values, read))) == set(read.classes.values())
