"""A dataset in which training would see what it is tested on is refused by the command, before anything is written."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from support.bench_grid import write_balls
from support.command_line import TINY, semiseg
from support.scans import write_nifti

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def table(tmp_path):
    """Writes a table of six scans; rows that are given replace some: case to (image, label, split, group)."""
    root = write_balls(tmp_path / "balls", labelled=6, unlabelled=0)

    def write(**changed):
        rows = {
            f"case{index}": (f"images/case{index}.nii.gz", f"labels/case{index}.nii.gz", "", "") for index in range(6)
        }
        rows["case5"] = (*rows["case5"][:2], "test", "")
        lines = [",".join((case, *row)) for case, row in (rows | changed).items()]
        (root / "dataset.csv").write_text("\n".join(["case,image,label,split,group", *lines]) + "\n")
        return root

    return write


def train(root):
    code, _, err = semiseg("train", root, "--out", root.parent / "run", *TINY)
    return code, err


def refusal_of(root):
    code, err = train(root)
    assert code == 3, err
    assert not (root.parent / "run").exists()
    return err


def test_without_a_leak_the_same_table_trains(table):
    assert train(table())[0] == 0


def copied(scan):
    return np.asarray(scan.dataobj), scan.affine


def mirrored(scan):
    """Left to right, in the array alone: another picture of the same patient."""
    return np.asarray(scan.dataobj)[::-1], scan.affine


def stored_otherwise(scan):
    """As another program would write the very same scan: axes in another order and direction, another type."""
    turned = scan.as_reoriented(nib.orientations.axcodes2ornt("PIL"))
    return np.asarray(turned.dataobj, np.float64), turned.affine


def padded(scan):
    return np.pad(np.asarray(scan.dataobj), 3), scan.affine


@pytest.mark.parametrize("change", [copied, mirrored, stored_otherwise, padded])
def test_a_scan_under_another_name_in_training_and_test(table, change):
    root = table(again=("images/again.nii", "labels/case0.nii.gz", "", ""))
    write_nifti(root / "images" / "again.nii", *change(nib.load(root / "images" / "case5.nii.gz")))
    shape = nib.load(root / "images" / "again.nii").shape
    write_nifti(root / "labels" / "again.nii.gz", np.ones(shape, np.uint8), nib.load(root / "images/again.nii").affine)
    root = table(again=("images/again.nii", "labels/again.nii.gz", "", ""))
    said = refusal_of(root)
    assert "in train the same content as" in said
    assert "case5.nii.gz in test, expected every scan in one split" in said


@pytest.mark.parametrize("kind", ["named", "linked", "copied", "as a mask"])
def test_a_label_as_the_image(table, kind):
    """The network would be given the answer, and score 1."""
    root = table()
    label = root / "labels" / "case0.nii.gz"
    place = root / "images" / "answer.nii.gz"
    if kind == "named":
        place = label
    elif kind == "linked":
        place.symlink_to(label)
    elif kind == "copied":
        shutil.copy(label, place)
    else:
        scan = nib.load(label)
        write_nifti(place, 1000 * np.asarray(scan.dataobj, np.float32)[:, ::-1], scan.affine)
    row = (str(place.relative_to(root)), "labels/case0.nii.gz", "train", "")
    said = refusal_of(table(case0=row))
    assert "as the image" in said or "with the content of the label" in said


def test_a_patient_in_two_splits(table):
    image, label = (f"{kind}/case5.nii.gz" for kind in ("images", "labels"))
    first = ("images/case0.nii.gz", "labels/case0.nii.gz", "train", "smith")
    assert "group 'smith'" in refusal_of(table(case0=first, case5=(image, label, "test", "smith")))
