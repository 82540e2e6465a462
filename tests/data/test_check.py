"""Every kind of finding: what it says, how severe it is, and whether training may start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.scans import ball, write_nifti

from semiseg.data.check import CheckReport, Finding, check_dataset
from semiseg.data.images import read_image, read_label
from semiseg.data.layouts import add_unlabelled, open_dataset
from semiseg.data.splits import make_splits
from semiseg.types import Geometry

Cohort = Callable[..., Path]
SHAPE = (12, 14, 10)


def shifted(mm: float) -> np.ndarray:
    affine = np.eye(4)
    affine[2, 3] = mm
    return affine


def only(report: CheckReport) -> Finding:
    assert len(report.findings) == 1, report.lines()
    return report.findings[0]


@pytest.fixture
def root(plain_cohort: Cohort) -> Path:
    return plain_cohort(labelled=4)


def test_a_sound_dataset_has_no_findings(root: Path, nnunet_cohort: Cohort) -> None:
    report = check_dataset(open_dataset(root))
    assert report.lines() == []
    assert report.can_train
    assert len(report.usable) == 4
    report = check_dataset(open_dataset(nnunet_cohort(unlabelled=2, test=1, channels=2)), strict=True)
    assert report.lines() == []
    assert report.can_train


def test_unlabelled_case_is_a_note(root: Path) -> None:
    (root / "labels" / "case1.nii.gz").unlink()
    report = check_dataset(open_dataset(root), strict=True)
    assert report.lines() == [f"note: {root}/images/case1.nii.gz: an image without a label: an unlabelled case"]
    assert report.can_train
    assert len(report.usable) == 4


@pytest.mark.parametrize(("values", "severity"), [(100, None), (101, "warning"), (1000, "warning"), (1001, "error")])
def test_a_label_of_very_many_values_is_told(root: Path, values: int, severity: str | None) -> None:
    """Where classes are not declared, each value would be one: an image in the place of a label."""
    path = root / "labels" / "case1.nii.gz"
    write_nifti(path, (np.arange(np.prod(SHAPE)) % values).reshape(SHAPE).astype(np.int16))
    assert check_dataset(open_dataset(root)).findings[0].found.startswith("label values")  # they are declared here
    (root / "dataset.json").unlink()
    report = check_dataset(open_dataset(root))
    found = [one for one in report.findings if one.file == path]
    assert [one.severity for one in found] == ([severity] if severity else [])
    assert all(one.found == f"{values} different values" for one in found)
    assert report.left_out == (("case1",) if severity == "error" else ())


def test_label_without_image(root: Path) -> None:
    (root / "images" / "case1.nii.gz").unlink()
    report = check_dataset(open_dataset(root))
    assert report.lines() == [
        f"error: {root}/labels/case1.nii.gz: got a label without an image, expected an image of case "
        "'case1'; add the image or remove the label"
    ]
    assert report.can_train


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (
        lambda root: shorten(root / "images" / "case1.nii.gz"),
        "images/case1.nii.gz: got an unreadable file (EOFError: ",
    ),
    "truncated label": (
        lambda root: shorten(root / "labels" / "case1.nii.gz"),
        "labels/case1.nii.gz: got an unreadable file (",
    ),
    "not finite": (
        lambda root: write_nifti(root / "images" / "case1.nii.gz", np.full(SHAPE, np.nan, np.float32)),
        "images/case1.nii.gz: got 1680 voxels that are NaN or infinite, expected finite intensities; repair",
    ),
    "4-D": (
        lambda root: write_nifti(root / "images" / "case1.nii.gz", np.zeros((*SHAPE, 2), np.float32)),
        "images/case1.nii.gz: got 4-D (12x14x10x2), expected 3-D; store one volume a file",
    ),
    "2-D": (
        lambda root: write_nifti(root / "images" / "case1.nii.gz", np.zeros(SHAPE[:2], np.float32)),
        "images/case1.nii.gz: got 2-D (12x14), expected 3-D",
    ),
    "shape": (
        lambda root: write_nifti(root / "labels" / "case1.nii.gz", np.ones((12, 14, 9), np.uint8)),
        "labels/case1.nii.gz: got shape 12x14x9, expected 12x14x10 as in case1.nii.gz; export both",
    ),
    "geometry": (
        lambda root: write_nifti(root / "labels" / "case1.nii.gz", ball(SHAPE, 1)[1], shifted(0.2)),
        "labels/case1.nii.gz: got a geometry that puts a corner voxel 0.2 mm from where case1.nii.gz has it, "
        "expected less than 0.1 mm; export both on the same grid",
    ),
    "values": (
        lambda root: write_nifti(root / "labels" / "case1.nii.gz", ball(SHAPE, 1)[1] * np.uint8(4)),
        "labels/case1.nii.gz: got label values 4 (",
    ),
    "fractions": (
        lambda root: write_nifti(root / "labels" / "case1.nii.gz", ball(SHAPE, 1)[1] * np.float32(0.5)),
        "labels/case1.nii.gz: got values that are not whole numbers, such as 0.5",
    ),
}


def shorten(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_case_is_left_out(root: Path, kind: str) -> None:
    spoil, message = BREAKS[kind]
    spoil(root)
    dataset = open_dataset(root)
    report = check_dataset(dataset)
    finding = only(report)
    assert finding.severity == "error"
    assert finding.case == "case1"
    assert str(finding).startswith(f"error: {root}/{message}")
    assert report.lines()[0].endswith("(case left out)")
    assert report.left_out == ("case1",)
    assert [case.name for case in report.usable] == ["case0", "case2", "case3"]
    assert report.can_train
    assert not check_dataset(dataset, strict=True).can_train


@pytest.mark.parametrize(
    ("move_mm", "severity"), [(0, None), (0.009, None), (0.011, "note"), (0.09, "note"), (0.11, "error")]
)
def test_geometry_thresholds(root: Path, move_mm: float, severity: str | None) -> None:
    write_nifti(root / "labels" / "case1.nii.gz", ball(SHAPE, 1)[1], shifted(move_mm))
    severities = [finding.severity for finding in check_dataset(open_dataset(root)).findings]
    assert severities == ([severity] if severity else [])


def test_displacement_is_of_the_worst_corner() -> None:
    turned = np.eye(4)
    turned[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    moved = Geometry((11, 1, 1), np.eye(4)).corner_displacement_mm(Geometry((11, 1, 1), turned))
    assert moved == pytest.approx(10 * np.hypot(0.2, 0.6))  # the far corner; the near one stays


def test_accepted_without_a_word(root: Path) -> None:
    image, label = ball(SHAPE, 1)
    write_nifti(root / "images" / "case1.nii.gz", image[..., None])
    write_nifti(root / "labels" / "case1.nii.gz", label.astype(np.float32)[..., None, None])
    assert check_dataset(open_dataset(root), strict=True).lines() == []


def test_empty_label_is_a_warning(root: Path) -> None:
    write_nifti(root / "labels" / "case1.nii.gz", np.zeros(SHAPE, np.uint8))
    report = check_dataset(open_dataset(root), strict=True)
    assert only(report).severity == "warning"
    assert "labels/case1.nii.gz: got an empty label (background only)" in report.lines()[0]
    assert report.can_train


def test_ignore_value_and_undeclared_classes(root: Path) -> None:
    label = ball(SHAPE, 1)[1]
    label[0] = 9
    write_nifti(root / "labels" / "case1.nii.gz", label)
    dataset = open_dataset(root)
    assert "got label values 9 (140 voxels), expected only 0, 1; " in check_dataset(dataset).lines()[0]
    assert check_dataset(replace(dataset, ignore=9)).lines() == []
    assert check_dataset(replace(dataset, classes=None)).lines() == []
    write_nifti(root / "labels" / "case1.nii.gz", np.full(SHAPE, 9, np.uint8))
    assert "an empty label" in only(check_dataset(replace(dataset, ignore=9))).found


def test_channels(nnunet_cohort: Cohort) -> None:
    root = nnunet_cohort(labelled=4, channels=2)
    image = ball(SHAPE, 1)[0]
    write_nifti(root / "imagesTr" / "ball_000_0002.nii.gz", image + 7)
    (root / "imagesTr" / "ball_001_0000.nii.gz").unlink()
    write_nifti(root / "imagesTr" / "ball_002_0001.nii.gz", image[:-1])
    write_nifti(root / "imagesTr" / "ball_003_0001.nii.gz", image + 3, shifted(1))
    report = check_dataset(open_dataset(root))
    lines = [line.removeprefix(f"error: {root}/imagesTr/") for line in report.lines()]
    assert lines[0].startswith("ball_000_0000.nii.gz: got 3 channel(s) for case 'ball_000', expected 2; ")
    assert lines[1].startswith("ball_001_0000.nii.gz: got no such file, expected a NIfTI file; restore it")
    assert lines[2].startswith("ball_002_0001.nii.gz: got shape 11x14x10, expected 12x14x10 as in ball_002_0000.nii.gz")
    assert lines[3].startswith("ball_003_0001.nii.gz: got a geometry that puts a corner voxel 1 mm from where")
    assert not report.usable
    assert not report.can_train
    assert lines[4] == f"error: {root}: got no usable case with a label for training, expected at least one; " + (
        "repair or add labels"
    )


def test_a_channel_that_is_misnumbered_is_no_ten_thousand_findings(nnunet_cohort: Cohort) -> None:
    root = nnunet_cohort(labelled=2, channels=1)
    folder = root / "imagesTr"
    (folder / "ball_000_0000.nii.gz").rename(folder / "ball_000_9999.nii.gz")
    lines = [line.removeprefix(f"error: {folder}/") for line in check_dataset(open_dataset(root)).lines()]
    assert len(lines) == 1 + 8 + 1
    assert lines[0].startswith("ball_000_0000.nii.gz: got 10000 channel(s) for case 'ball_000', expected 1; ")
    assert lines[1].startswith("ball_000_0000.nii.gz: got no such file")
    assert lines[9].startswith("ball_000_0008.nii.gz: got 9991 more files of case 'ball_000' that cannot be used")


def test_layout_notes_are_notes(root: Path) -> None:
    (root / "dataset.json").unlink()
    report = check_dataset(open_dataset(root), strict=True)
    assert "note: " in report.lines()[0]
    assert "modality not declared" in report.lines()[0]
    assert report.can_train


def test_same_content_twice_is_a_warning(root: Path) -> None:
    shutil.copy(root / "images" / "case0.nii.gz", root / "images" / "case1.nii.gz")
    report = check_dataset(open_dataset(root))
    assert str(only(report)) == (
        f"warning: {root}/images/case1.nii.gz: got the same content as {root}/images/case0.nii.gz, expected "
        "every scan once; remove one of the two"
    )
    assert report.can_train


def test_constant_channels_are_not_duplicates(root: Path) -> None:
    for name in ("case0", "case1"):
        write_nifti(root / "images" / f"{name}.nii.gz", np.zeros(SHAPE, np.float32))
    assert check_dataset(open_dataset(root)).lines() == []


def test_training_scan_among_test_scans_is_refused(nnunet_cohort: Cohort) -> None:
    root = nnunet_cohort(labelled=2, test=2)
    first, second = root / "imagesTr" / "ball_000_0000.nii.gz", root / "imagesTs" / "ball_003_0000.nii.gz"
    shutil.copy(first, second)
    report = check_dataset(open_dataset(root))
    assert only(report).leak
    assert str(only(report)) == (
        f"error: {second}: got in test the same content as {first} in train, expected every scan in one "
        "split; remove one of the two"
    )
    assert not report.can_train


@pytest.mark.parametrize("stored", ["reversed", "permuted", "mirrored", "padded"])
def test_training_scan_among_test_scans_stored_in_another_way_is_refused(nnunet_cohort: Cohort, stored: str) -> None:
    """Whether the affine tells of it (then it is the same picture) or not (then it is its mirror image)."""
    root = nnunet_cohort(labelled=2, test=2)
    first, second = root / "imagesTr" / "ball_000_0000.nii.gz", root / "imagesTs" / "ball_003_0000.nii.gz"
    scan = read_image(first)
    reverse = np.diag([-1.0, 1, 1, 1])
    reverse[0, 3] = scan.array.shape[0] - 1
    array, affine = {
        "reversed": (scan.array[::-1], scan.geometry.affine @ reverse),
        "permuted": (scan.array.transpose(2, 0, 1), scan.geometry.affine[:, [2, 0, 1, 3]]),
        "mirrored": (scan.array[::-1], scan.geometry.affine),
        "padded": (np.pad(scan.array, 2), scan.geometry.affine),
    }[stored]
    write_nifti(second, array, affine)
    report = check_dataset(open_dataset(root))
    assert f"{second}: got in test the same content as {first} in train" in str(only(report))
    assert not report.can_train


@pytest.mark.parametrize("kind", ["the file", "a link", "a copy", "other values", "mirrored", "of another case"])
def test_a_label_in_the_place_of_an_image_is_refused(root: Path, kind: str) -> None:
    label, image = root / "labels" / "case1.nii.gz", root / "images" / "case1.nii.gz"
    array = read_label(label).array
    image.unlink()
    if kind == "the file":
        (root / "dataset.csv").write_text("case,image,label\n1,labels/case1.nii.gz,./labels/case1.nii.gz\n")
        image = root / "labels" / "case1.nii.gz"
    elif kind == "a link":
        image.hardlink_to(label)
    elif kind == "a copy":
        write_nifti(image, array.astype(np.float32))
    elif kind == "other values":
        write_nifti(image, 70 * array + 30)
    elif kind == "mirrored":
        write_nifti(image, array[:, ::-1])
    else:
        write_nifti(image, read_label(root / "labels" / "case0.nii.gz").array)
    report = check_dataset(open_dataset(root))
    (finding,) = (one for one in report.findings if one.leak)
    assert finding.file == image
    assert "label" in finding.found
    assert not report.can_train


def test_a_hidden_label_in_the_place_of_an_image_is_found_without_opening_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = root / "images" / "case1.nii.gz"
    image.unlink()
    image.symlink_to(root / "labels" / "case1.nii.gz")
    monkeypatch.setattr("semiseg.data.facts.read_label", lambda _: pytest.fail("a hidden label was opened"))
    report = check_dataset(open_dataset(root), labels=())
    assert [one.file for one in report.findings if one.leak] == [image]


def test_same_content_in_two_drawn_splits_is_refused(root: Path) -> None:
    shutil.copy(root / "images" / "case0.nii.gz", root / "images" / "case1.nii.gz")
    dataset = open_dataset(root)
    (root / "val.txt").write_text("case0")
    (root / "test.txt").write_text("case1")
    splits = make_splits(dataset.cases, val="val.txt", test="test.txt", base=root)
    report = check_dataset(dataset, splits=splits, transductive=True)
    assert "got in test the same content as" in str(only(report))
    assert not report.can_train
    (root / "labelled.txt").write_text("case2")
    hidden = make_splits(dataset.cases, val="val.txt", labelled="labelled.txt", base=root)
    assert only(check_dataset(dataset, splits=hidden)).leak  # a hidden label does not make it another scan


def test_unlabelled_scans_that_are_test_scans(root: Path) -> None:
    dataset = open_dataset(root)
    (root / "more").mkdir()
    shutil.copy(root / "images" / "case2.nii.gz", root / "more" / "new.nii.gz")
    dataset = add_unlabelled(dataset, root / "more")
    (root / "test.txt").write_text("case2")
    splits = make_splits(dataset.cases, test="test.txt", base=root)
    report = check_dataset(dataset, splits=splits)
    assert "in unlabelled the same content as" in str(only(report))
    assert only(report).action.endswith("or say --transductive")
    assert not report.can_train
    allowed = check_dataset(dataset, splits=splits, transductive=True)
    assert only(allowed).severity == "note"
    assert "(transductive)" in only(allowed).found
    assert allowed.can_train


def test_group_in_two_splits_is_refused(root: Path) -> None:
    dataset = open_dataset(root)
    first, second, *rest = (replace(case, group="anna") for case in dataset.cases)
    rest = [replace(case, group="") for case in rest]
    parted = replace(dataset, cases=(replace(first, split="train"), replace(second, split="test"), *rest))
    report = check_dataset(parted)
    assert only(report).leak
    assert "case1.nii.gz: got group 'anna' in test, and in train with" in str(only(report))
    assert not report.can_train
    followed = replace(dataset, cases=(first, replace(second, split="test"), *rest))
    assert check_dataset(followed).can_train
    splits = make_splits(dataset.cases, test="2", base=root)
    grouped = [replace(case, group="anna") for case in splits.test + splits.labelled]
    parted_splits = replace(splits, test=tuple(grouped[:2]), labelled=tuple(grouped[2:]))
    report = check_dataset(replace(dataset, cases=tuple(grouped)), splits=parted_splits)
    assert only(report).leak


def test_training_needs_a_usable_labelled_case(root: Path) -> None:
    dataset = open_dataset(root)
    splits = make_splits(dataset.cases, labelled="1", base=root)
    (labelled,) = splits.labelled
    assert labelled.label
    shorten(labelled.label)
    assert not check_dataset(dataset, splits=splits).can_train
    assert check_dataset(dataset).can_train
    bare = replace(dataset, cases=tuple(replace(case, label=None, split="train") for case in dataset.cases))
    assert not check_dataset(bare).can_train


def test_json(root: Path) -> None:
    write_nifti(root / "labels" / "case1.nii.gz", np.zeros(SHAPE, np.uint8))
    shorten(root / "images" / "case2.nii.gz")
    document = json.loads(json.dumps(check_dataset(open_dataset(root)).to_json()))
    assert document["can_train"] is True
    assert document["cases"] == 4
    assert document["usable"] == ["case0", "case1", "case3"]
    assert document["left_out"] == ["case2"]
    first, second = document["findings"]
    assert (first["severity"], first["case"]) == ("error", "case2")
    assert second == {
        "file": f"{root}/labels/case1.nii.gz",
        "severity": "warning",
        "case": "case1",
        "found": "an empty label (background only)",
        "expected": "some foreground",
        "action": "make sure that it is meant",
        "leak": False,
    }


@pytest.mark.realdata
def test_real_datasets_can_train(real_data: Path) -> None:
    report = check_dataset(open_dataset(real_data / "hippocampus" / "Dataset004_Hippocampus"))
    assert report.can_train
    assert not report.left_out
    unlabelled = [finding.case for finding in report.findings if "unlabelled case" in finding.found]
    assert unlabelled == ["hippocampus_118"]


def test_a_labelled_scan_that_is_unlabelled_too_is_no_leak(plain_cohort):
    dataset = open_dataset(plain_cohort(labelled=4))
    splits = make_splits(dataset.cases, labelled="2", test="1", reuse_labelled=True, base=dataset.root)
    report = check_dataset(dataset, splits=splits)
    assert report.can_train
    assert report.findings == ()


def test_relabelled_and_other_values_are_no_mistake(tmp_path: Path) -> None:
    image, label = ball((12, 14, 10), 0)
    write_nifti(tmp_path / "images" / "a.nii.gz", image)
    write_nifti(tmp_path / "labels" / "a.nii.gz", np.where(label, 7, 9).astype(np.uint8))
    declared = replace(open_dataset(tmp_path), classes={"background": 0, "ball": 1}, notes=())
    (finding,) = check_dataset(declared).findings[:1]
    assert "label values 7, 9" in finding.found
    assert finding.expected == "only 0, 1"
    assert check_dataset(replace(declared, relabel={7: 1, 9: 0})).findings == ()
    (note,) = check_dataset(replace(declared, relabel={7: 1}, other_is_background=True)).findings
    assert str(note) == f"note: {tmp_path}: label values 9 are no class and count as background"
    (empty,) = check_dataset(replace(declared, relabel={7: 0, 9: 0})).findings
    assert (empty.severity, empty.found) == ("warning", "an empty label (background only)")
