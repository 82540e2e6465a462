"""Folder layouts: what is found, what is declared, and what a mistake says."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.scans import write_nifti

from semiseg.data.dataset import LONGEST_NAME, Dataset
from semiseg.data.facts import Unreadable, case_facts
from semiseg.data.layouts import LAYOUTS, add_unlabelled, open_dataset, open_inputs
from semiseg.errors import InputError, UserError

Cohort = Callable[..., Path]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def described(root: Path, **document: object) -> Path:
    (root / "dataset.json").write_text(json.dumps(document))
    return root


def table(root: Path, text: str, name: str = "dataset.csv") -> Path:
    (root / name).write_text(text)
    return root / name


def by_name(dataset: Dataset) -> dict[str, tuple[int, bool, str | None]]:
    return {case.name: (len(case.images), case.label is not None, case.split) for case in dataset.cases}


def test_nnunet(nnunet_cohort: Cohort) -> None:
    root = nnunet_cohort(labelled=2, unlabelled=1, test=2, channels=2)
    (root / "labelsTr" / "ball_001.nii.gz").unlink()
    touch(root, "labelsTr/lonely.nii.gz", "labelsTs/ball_004.nii.gz", "imagesTr/._ball_000_0000.nii.gz")
    dataset = open_dataset(root)
    assert dataset.layout == "nnunet"
    assert by_name(dataset) == {
        "ball_000": (2, True, None),
        "ball_001": (2, False, None),
        "ball_002": (2, False, "unlabelled"),
        "ball_003": (2, False, "test"),
        "ball_004": (2, True, "test"),
    }
    assert [path.name for path in dataset.cases[0].images] == ["ball_000_0000.nii.gz", "ball_000_0001.nii.gz"]
    assert [path.name for path in dataset.orphan_labels] == ["lonely.nii.gz"]
    assert dataset.channels == ("MRI0", "MRI1")
    assert dataset.classes == {"background": 0, "ball": 1}
    assert dataset.channel_suffix
    assert dataset.notes == ()


def test_nnunet_missing_channel_is_listed_by_the_name_it_should_have(nnunet_cohort: Cohort) -> None:
    root = nnunet_cohort(labelled=2, channels=2)
    (root / "imagesTr" / "ball_000_0000.nii.gz").unlink()
    (root / "imagesTr" / "ball_001_0001.nii.gz").unlink()
    first, second = open_dataset(root).cases
    assert first.images[0] == root / "imagesTr" / "ball_000_0000.nii.gz"
    assert second.images[1] == root / "imagesTr" / "ball_001_0001.nii.gz"


def test_nnunet_same_name_in_two_folders_and_missing_suffix(nnunet_cohort: Cohort) -> None:
    root = touch(nnunet_cohort(labelled=1), "imagesUn/ball_000_0000.nii.gz", "imagesUn/other.nii.gz")
    dataset = open_dataset(root)
    assert [case.name for case in dataset.cases] == ["ball_000", "imagesUn_ball_000"]
    assert any("other.nii.gz: got no channel suffix, expected CASE_0000" in note for note in dataset.notes)
    (root / "imagesTr" / "ball_000_0000.nii.gz").unlink()
    (root / "imagesUn" / "ball_000_0000.nii.gz").unlink()
    with pytest.raises(InputError, match=r"other\.nii\.gz: got no channel suffix, .*use the plain layout"):
        open_dataset(root)


def test_nnunet_raw_variable(nnunet_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = nnunet_cohort(name="raw/Dataset004_Balls")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    assert open_dataset("Dataset004_Balls").root == root
    with pytest.raises(InputError, match=r"^Dataset005: got no such file or folder, expected Dataset005 or .*raw"):
        open_dataset("Dataset005")


def test_ignore_label_background_first_and_old_modality_key(tmp_path: Path) -> None:
    root = touch(tmp_path, "images/a.nii.gz")
    described(root, modality={"0": "CT"}, labels={"b": 7, "ignore": 3, "a": 2, "nothing": 0, "c": -1})
    dataset = open_dataset(root)
    assert list((dataset.classes or {}).items()) == [("nothing", 0), ("c", -1), ("a", 2), ("b", 7)]
    assert dataset.ignore == 3
    assert dataset.channels == ("CT",)


def test_lists_of_values_are_regions_and_name_single_values(tmp_path: Path) -> None:
    root = touch(tmp_path, "images/a.nii.gz")
    described(root, labels={"background": 0, "whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]})
    dataset = open_dataset(root)
    assert list((dataset.classes or {}).items()) == [("background", 0), ("1", 1), ("2", 2), ("enhancing", 4)]
    assert dataset.regions == {"whole": (1, 2, 4), "core": (1, 4), "enhancing": (4,)}
    described(root, labels={"background": 0, "oedema": 2, "core": [1, 4], "ignore": 9})
    dataset = open_dataset(root)
    assert dataset.classes == {"background": 0, "1": 1, "oedema": 2, "4": 4}
    assert dataset.regions == {"core": (1, 4)}
    assert dataset.ignore == 9


def test_with_an_order_of_regions_single_values_are_regions_too(tmp_path: Path) -> None:
    root = touch(tmp_path, "imagesTr/a_0000.nii.gz")
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    described(root, channel_names={"0": "T1"}, labels=labels, regions_class_order=[1, 2, 3])
    dataset = open_dataset(root)
    assert dataset.regions == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert dataset.classes == {"background": 0, "1": 1, "2": 2, "enhancing": 3}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"labels": {"background": 0, "whole": [0, 1]}}, "got [0, 1] for label 'whole', expected whole numbers other"),
        ({"labels": {"background": 0, "whole": []}}, "got [] for label 'whole', expected whole numbers other than 0"),
        ({"labels": {"background": 0, "a": 1, "ignore": 2, "whole": [1, 2]}}, "got the ignore value 2 in a region"),
        ({"labels": {"0": "background"}}, "got 'background' for label '0', expected a whole number"),
        ({"labels": {"background": 0, "a": True}}, "got True for label 'a'"),
        ({"labels": {"background": 0, "a": 2**40}}, "got 1099511627776 for label 'a', expected a whole number of 32"),
        ({"labels": {"background": 0, "a": [2**31]}}, "got [2147483648] for label 'a', expected whole numbers other"),
        ({"labels": {"background": 0, "\ud800": 1}}, r"got the text '\ud800', which is not Unicode"),
        ({"channel_names": {"0": ["CT"]}}, "got channel_names {'0': ['CT']}, expected {"),
        ({"channel_names": {"0": None}}, "got channel_names {'0': None}, expected {"),
        ({"file_ending": ["x"]}, "got file_ending ['x'], expected one of"),
        ({"labels": {"a": 1}}, "got labels without the value 0, expected a background"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "got the same value for two labels"),
        ({"labels": {"background": 0, "a": 1, "ignore": 1}}, "got the same value for two labels"),
        ({"labels": ["background"]}, "got labels ['background'], expected {"),
        ({"channel_names": {"1": "CT"}}, "got channel_names {'1': 'CT'}, expected {"),
        ({"file_ending": ".mha"}, "got file_ending '.mha', expected one of .nii.gz, .nii, .jpg"),
        ([1], "got a list, expected an object"),
    ],
)
def test_mistakes_in_dataset_json(tmp_path: Path, document: object, message: str) -> None:
    touch(tmp_path, "images/a.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=re.escape("dataset.json: got ")) as error:
        open_dataset(tmp_path)
    assert message in str(error.value)


def test_broken_dataset_json(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii.gz", "dataset.json")
    with pytest.raises(InputError, match=r"dataset.json: got Expecting value.*expected a JSON file"):
        open_dataset(tmp_path)


def test_plain(plain_cohort: Cohort) -> None:
    root = touch(plain_cohort(labelled=2, unlabelled=1), "images/new.nii", "labels/lonely.nii.gz")
    dataset = open_dataset(root)
    assert dataset.layout == "plain"
    assert by_name(dataset) == {
        "case0": (1, True, None),
        "case1": (1, True, None),
        "new": (1, False, None),
        "case2": (1, False, "unlabelled"),
    }
    assert [path.name for path in dataset.orphan_labels] == ["lonely.nii.gz"]
    assert not dataset.channel_suffix


def test_plain_channels_and_numbered_patients(tmp_path: Path) -> None:
    names = [f"images/{case}_{channel}.nii.gz" for case in "ab" for channel in ("0000", "0001")]
    root = touch(tmp_path / "channels", *names, "labels/a.nii.gz", "unlabelled/c_0000.nii.gz")
    dataset = open_dataset(root)
    assert by_name(dataset) == {"a": (2, True, None), "b": (2, False, None), "c": (1, False, "unlabelled")}
    assert dataset.channel_suffix
    numbered = [f"{folder}/patient_000{n}.nii.gz" for folder in ("images", "labels") for n in range(3)]
    dataset = open_dataset(touch(tmp_path / "numbered", *numbered))
    assert [case.name for case in dataset.cases] == ["patient_0000", "patient_0001", "patient_0002"]
    assert not dataset.channel_suffix


def test_undeclared_modality_is_said(tmp_path: Path) -> None:
    dataset = open_dataset(touch(tmp_path, "images/a.nii.gz"))
    assert dataset.channels == ()
    assert dataset.classes is None
    assert any("modality not declared, treated as MR (z-score)" in note and "CT" in note for note in dataset.notes)


def test_two_files_for_one_case(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii.gz", "images/a.nii")
    with pytest.raises(InputError, match=r"a\.nii\.gz: got a second file of case 'a', expected one; remove"):
        open_dataset(tmp_path)


def test_table(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "\ufeffcase, image,image_2,label,split,group\n"
        "a,x/a1.nii.gz,x/a2.nii.gz,a.nii.gz,,anna\n"
        "b,x/b1.nii.gz,x/b2.nii.gz,,test,\n"
        "\n"
        "c,x/c1.nii.gz,,,unlabelled,anna\n",
    )
    for place in (path, tmp_path):
        dataset = open_dataset(place)
        assert dataset.layout == "table"
        assert by_name(dataset) == {
            "a": (2, True, None),
            "b": (2, False, "test"),
            "c": (1, False, "unlabelled"),
        }
        assert [case.group_name for case in dataset.cases] == ["anna", "b", "anna"]
        assert dataset.cases[0].images == (tmp_path / "x/a1.nii.gz", tmp_path / "x/a2.nii.gz")
        assert dataset.cases[0].label == tmp_path / "a.nii.gz"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "case,imaeg\na,a.nii",
            "got column 'imaeg', expected case,image[,image_2...],label,split,group; did you mean",
        ),
        ("case,image,age\na,a.nii,3", "got column 'age'"),
        ("image\na.nii", "got no column 'case', expected one"),
        ("case,image,image_3\na,a.nii,b.nii", "got no column 'image_2'"),
        ("case,image,image\na,a.nii,b.nii", "got 2 column 'image'"),
        ("case,image\na,a.nii\na,b.nii", "line 3: got case 'a' a second time"),
        ("case,image\nx/a,a.nii", "line 2: got case 'x/a', expected a name that can be a file name"),
        ("case,image\na,", "line 2: got an empty image for case 'a'"),
        (
            "case,image,split\na,a.nii,training",
            "line 2: got split 'training', expected train, val, test, unlabelled",
        ),
        ("case,image\na,a.nii,b", "line 2: got more values than columns"),
        ("case;image\na;a.nii", "got column 'case;image'"),
        ("", "got no column 'case'"),
    ],
)
def test_mistakes_in_a_table(tmp_path: Path, text: str, message: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(InputError, match=re.escape(str(path))) as error:
        open_dataset(path)
    assert message in str(error.value)


def test_names_that_are_not_utf8_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.nii.gz")
    for folder in ("images", "unlabelled"):
        touch(tmp_path / folder, "images/a.nii.gz", f"{folder}/{name}")
        with pytest.raises(
            InputError, match=r"caf\\udce9\.nii\.gz': got a name that is not UTF-8, .*; rename it"
        ) as told:
            open_dataset(tmp_path / folder)
        assert str(told.value).isascii()
    with pytest.raises(InputError, match=r"caf\\udce9\.nii\.gz': got the name .*, expected text in UTF-8"):
        open_inputs([tmp_path / "images" / "images" / name], 1)
    above = tmp_path / os.fsdecode(b"caf\xe9")
    touch(above, "images/a.nii.gz")
    with pytest.raises(InputError, match=r"caf\\udce9/images/a\.nii\.gz': got the name"):
        open_dataset(above)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{'c' * 231},a.nii", "got a case name of 231 bytes ('cccccccc"),
        (f"{'é' * 116},a.nii", "got a case name of 232 bytes"),
        ("c,a\0.nii", "a\\x00.nii', expected text in UTF-8 without NUL"),
        ("c\0,a.nii", "got the name 'c\\x00'"),
    ],
)
def test_names_that_no_file_of_results_can_have(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        open_dataset(table(tmp_path, f"case,image\n{row}"))
    assert message in str(error.value)
    assert len(str(error.value)) < 700


def test_the_longest_name_is_that_of_a_file(tmp_path: Path) -> None:
    (case,) = open_dataset(table(tmp_path, f"case,image\n{'c' * LONGEST_NAME},a.nii")).cases
    (tmp_path / f"001_{case.name}_uncertainty.nii.gz").touch()
    (tmp_path / f"001_{case.name}_image_0000.nii.gz").touch()


def test_paths_that_are_too_long_are_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"aaa: got no such file or folder, expected") as told:
        open_dataset(tmp_path / ("a" * 5000))
    assert len(str(told.value)) < 800
    (case,) = open_dataset(table(tmp_path, f"case,image\nc,{'a' * 5000}.nii")).cases
    (image,) = case_facts(case).images
    assert isinstance(image, Unreadable)
    assert image.found == "no such file"


def test_no_layout_fits(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got no layout that fits") as error:
        open_dataset(tmp_path)
    for wanted in ("table: a CSV file", "nnunet: imagesTr/CASE_0000.nii.gz", "plain: images/CASE.nii.gz"):
        assert wanted in str(error.value)
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"got no image, expected images/CASE\.nii\.gz"):
        open_dataset(tmp_path)


def test_forced_and_misspelt_layout(plain_cohort: Cohort) -> None:
    root = plain_cohort()
    assert open_dataset(root, "plain").layout == "plain"
    with pytest.raises(UserError, match=r"--layout: got 'plian', expected one of .*did you mean 'plain'\?"):
        open_dataset(root, "plian")
    with pytest.raises(InputError, match=r"got no layout that fits, expected one of \[nnunet: imagesTr"):
        open_dataset(root, "nnunet")
    table(root, "case,image\na,images/case0.nii.gz\n")
    dataset = open_dataset(root)
    assert dataset.layout == "table"
    assert any("plain would fit too (force one with --layout)" in note for note in dataset.notes)


def names(cases: list) -> list[tuple[str, int]]:
    return [(case.name, len(case.images)) for case in cases]


def test_inputs_from_files_and_folders(tmp_path: Path) -> None:
    root = touch(tmp_path / "scans", "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz")
    assert names(open_inputs([root], 2)) == [("a", 2), ("b", 2)]
    assert names(open_inputs([root / "a_0000.nii.gz", root / "a_0001.nii.gz"], 2)) == [("a", 2)]
    assert names(open_inputs([root], 1)) == [(f"{n}_000{c}", 1) for n in "ab" for c in (0, 1)]
    assert names(open_inputs([root / "a_0000.nii.gz"], 1)) == [("a", 1)]
    assert names(open_inputs([root / "a_0000.nii.gz"], 1, False)) == [("a_0000", 1)]
    touch(root, "c.nii.gz")
    assert names(open_inputs([root / "c.nii.gz"], 1, True)) == [("c", 1)]
    assert names(open_inputs([root], 2, True)) == [("a", 2), ("b", 2), ("c", 1)]


def test_inputs_from_datasets_have_no_labels(nnunet_cohort: Cohort, plain_cohort: Cohort) -> None:
    cases = open_inputs([nnunet_cohort(labelled=1, unlabelled=1, test=1), plain_cohort(labelled=1)], 1)
    assert [case.name for case in cases] == ["ball_000", "ball_001", "ball_002", "case0"]
    assert all(case.label is None for case in cases)


def test_mistakes_in_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.nii.gz", "two/a.nii.gz", "two/c_0000.nii.gz", "empty/readme.txt")
    with pytest.raises(InputError, match=r"two/a\.nii\.gz: got case 'a' twice"):
        open_inputs([tmp_path / "one" / "a.nii.gz", tmp_path / "two" / "a.nii.gz"], 1)
    with pytest.raises(InputError, match=r"two/a\.nii\.gz: got case 'a' as in .*one/a\.nii\.gz"):
        open_inputs([tmp_path / "one", tmp_path / "two"], 1)
    with pytest.raises(InputError, match=r"a\.nii\.gz: got 1 image\(s\) for case 'a', expected 2; name them CASE_0000"):
        open_inputs([tmp_path / "one"], 2)
    with pytest.raises(InputError, match=r"empty: got no image, expected one of \[images \(.*nnunet: imagesTr"):
        open_inputs([tmp_path / "empty"], 1)
    with pytest.raises(InputError, match=r"nowhere: got no such file or folder"):
        open_inputs([tmp_path / "nowhere"], 1)
    with pytest.raises(InputError, match=r"input: got no image"):
        open_inputs([], 1)
    (tmp_path / "hollow" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match=r"hollow: got no image, expected scans to segment"):
        open_inputs([tmp_path / "hollow"], 1)


def test_add_unlabelled(plain_cohort: Cohort, nnunet_cohort: Cohort, tmp_path: Path) -> None:
    root = plain_cohort(labelled=2)
    more = touch(tmp_path / "more", "new.nii.gz")
    shutil.copy(root / "images" / "case0.nii.gz", more / "case0.nii.gz")
    dataset = add_unlabelled(open_dataset(root), more)
    assert by_name(dataset) == {
        "case0": (1, True, None),
        "case1": (1, True, None),
        "more_case0": (1, False, "unlabelled"),
        "new": (1, False, "unlabelled"),
    }
    other = nnunet_cohort(labelled=2)
    added = add_unlabelled(open_dataset(root), other).cases[2:]
    assert [(case.name, case.label, case.split) for case in added] == [
        ("ball_000", None, "unlabelled"),
        ("ball_001", None, "unlabelled"),
    ]


@pytest.mark.realdata
def test_real_layouts(real_data: Path) -> None:
    hippocampus = open_dataset(real_data / "hippocampus" / "Dataset004_Hippocampus")
    assert len(hippocampus.cases) == 201
    assert [case.name for case in hippocampus.cases if case.label is None] == ["hippocampus_118"]
    assert len(open_dataset(real_data / "atria").cases) == 80
    assert len(open_dataset(real_data / "wholebrain").cases) == 15


def test_channels_are_chosen_by_name(nnunet_cohort: Cohort) -> None:
    root = nnunet_cohort(labelled=2, unlabelled=1, channels=4)
    dataset = open_dataset(root, channels=["MRI3", "MRI0"])
    assert dataset.channels == ("MRI3", "MRI0")
    files = [[path.name[-11:-7] for path in case.images] for case in dataset.cases]
    assert files == [["0003", "0000"]] * 3
    (root / "imagesTr" / "ball_000_0003.nii.gz").unlink()  # `check` says which file is absent
    assert open_dataset(root, channels=["MRI3"]).cases[0].images == (root / "imagesTr" / "ball_000_0003.nii.gz",)
    more = open_dataset(nnunet_cohort(name="other", channels=2), unlabelled=root)
    assert [len(case.images) for case in more.cases] == [2] * 6
    for names, message in (
        (["MRI4"], "data.channels: got 'MRI4', expected one of MRI0, MRI1, MRI2, MRI3; did you mean 'MRI"),
        (["MRI1", "MRI1"], "data.channels: got ['MRI1', 'MRI1'], expected at least one name, each once"),
        ([], "data.channels: got [], expected at least one name"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            open_dataset(root, channels=names)


def test_channels_of_a_dataset_that_names_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.channels: got 'T1', expected none, as the dataset names no channels; "):
        open_dataset(touch(tmp_path, "images/a.nii.gz"), channels=["T1"])


def test_inputs_are_cut_to_the_channels_of_the_model(nnunet_cohort: Cohort) -> None:
    root = nnunet_cohort(labelled=1, channels=3)
    (case,) = open_inputs([root], 2, channel_names=["MRI2", "MRI0"])
    assert [path.name for path in case.images] == ["ball_000_0002.nii.gz", "ball_000_0000.nii.gz"]
    (case,) = open_inputs([root], 3, channel_names=["T1", "T2", "FLAIR"])  # other words for what may be the same
    assert [path.name[-11:-7] for path in case.images] == ["0000", "0001", "0002"]


def test_pictures_beside_volumes_of_the_same_name_show_them(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii.gz", "images/a.png", "images/b.PNG", "images/c.jpeg", "images/c.h5", "labels/b.png")
    dataset = open_dataset(tmp_path)
    assert [(case.name, case.images[0].name) for case in dataset.cases] == [
        ("a", "a.nii.gz"),
        ("b", "b.PNG"),
        ("c", "c.h5"),
    ]
    assert dataset.cases[1].label == tmp_path / "labels" / "b.png"
    touch(tmp_path, "images/b.jpg")
    with pytest.raises(InputError, match=r"b\.jpg: got a second file of case 'b', expected one; remove"):
        open_dataset(tmp_path)


def test_arrays_are_scans_whose_spacing_is_not_known(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "anna.npy", np.zeros((3, 4, 5), np.uint8))
    dataset = open_dataset(tmp_path)
    assert [(case.name, case.label.name) for case in dataset.cases] == [("anna", "anna.npy")]
    assert any("number of scans: 1; they are taken for axial slices of 1 mm" in note for note in dataset.notes)


def unused(root: Path, **options: object) -> list[str]:
    return [note for note in open_dataset(root, **options).notes if note.startswith("not used")]


def test_files_that_look_like_data_and_are_not_used_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/anna.nii.gz", "labels/anna.nii.gz", "labels/lonely.nii.gz", "dataset.csv.bak", "readme.txt")
    assert unused(tmp_path) == []
    touch(
        tmp_path, "more/ben.NII", "more/b/c/deep.npy", "images/anna.png", "x.mha", ".hidden.nii", "images/._anna.nii.gz"
    )
    assert unused(tmp_path) == [
        "not used by the layout plain: x.mha, images/anna.png, more/ben.NII, more/b/c/deep.npy; "
        "docs/data.md says which files it reads"
    ]
    assert "more/ben.NII" not in unused(tmp_path, unlabelled=tmp_path / "more")[0]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "anna.nii.gz").symlink_to(tmp_path / "images" / "anna.nii.gz")
    assert "linked" not in unused(tmp_path)[0]


def test_the_note_of_unused_files_has_an_end(tmp_path: Path) -> None:
    touch(tmp_path, "images/anna.nii.gz", *(f"{index:03d}{'x' * 200}.h5" for index in range(300)), "\n\u202e.h5")
    (note,) = unused(tmp_path)
    assert len(note) < 700
    assert note.isprintable()
    assert " and 296 more; docs/data.md" in note


LAYOUT_FILES = {
    "nnunet": ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTr/loose.nii.gz"),
    "plain": ("images/a.nii.gz", "labels/a.nii.gz"),
    "table": ("a.nii.gz", "b.nii.gz"),
    "malc": ("training-images/1000_3.nii.gz", "training-labels/1000_3_glm.nii.gz"),
    "ibsr": ("IBSR_01/IBSR_01_ana.nii.gz",),
    "candi": ("HC/HC_001/HC_001_procimg.nii.gz",),
    "brats": ("HGG/a/a_flair.nii.gz", "HGG/a/a_t1.nii.gz", "LGG/b/b_flair.nii.gz"),
    "quicknat": ("train/Data_a.h5", "train/Label_a.h5", "unlabel/Data_b.h5"),
    "covid": ("CT_COVID/a.png",),
}


def test_every_layout_is_among_them() -> None:
    assert {layout.NAME for layout in LAYOUTS} == {*LAYOUT_FILES}


@pytest.mark.parametrize("layout", LAYOUT_FILES)
def test_every_layout_names_what_it_does_not_use(tmp_path: Path, layout: str) -> None:
    touch(tmp_path, *LAYOUT_FILES[layout])
    if layout == "table":
        (tmp_path / "dataset.csv").write_text("case,image,label\na,a.nii.gz,b.nii.gz\n")
    assert unused(tmp_path, labels=False) == []
    touch(tmp_path, "stray.npy", "train/Weight_a.h5")
    (note,) = unused(tmp_path, labels=False)
    assert note.startswith(f"not used by the layout {layout}: stray.npy, train/Weight_a.h5; ")


def test_sources_of_what_is_unpacked_are_used(tmp_path: Path) -> None:
    np.save(tmp_path / "COVID.npy", np.zeros((3, 4, 5)))
    np.save(tmp_path / "COVID_Seg.npy", np.zeros((3, 4, 5)))
    write_nifti(tmp_path / "unlCovid.nii", np.zeros((5, 4, 3)))
    assert unused(tmp_path) == []
    np.save(tmp_path / "Lung.npy", np.zeros((3, 4, 5)))
    assert unused(tmp_path)[0].startswith("not used by the layout covid: Lung.npy; ")
