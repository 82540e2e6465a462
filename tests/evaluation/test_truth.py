"""Reading true labels as the predictions mean their classes: by table, by name, by what training did."""

import json

import nibabel as nib
import numpy as np
import pytest

from semiseg.data.label_tables import CHALLENGE, FREESURFER, QUICKNAT_28
from semiseg.evaluation.evaluate import evaluate_folder
from semiseg.manifest import write_manifest

NUMBERINGS = {"freesurfer": FREESURFER, "challenge": CHALLENGE, "index": {n: (v,) for n, v in QUICKNAT_28.items()}}


UNLISTED = {"freesurfer": 58, "challenge": 46, "index": 0}
"""None of the 28: right accumbens (the challenge's left putamen), CSF (FreeSurfer's right cerebellar white matter)."""


def volume(numbering, part=-1, last=0):
    """A bar of 8 voxels for each of the 28 classes, of its first or last number, and a bar of `last`."""
    array = np.zeros((29, 2, 4), np.int16)
    for index, name in enumerate(QUICKNAT_28):
        array[index] = NUMBERINGS[numbering][name][part]
    array[28] = last
    return array


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "predictions", tmp_path / "labels", tmp_path / "out"


@pytest.mark.parametrize("predicted", NUMBERINGS)
@pytest.mark.parametrize("true", NUMBERINGS)
def test_28_classes_meet_in_any_two_numberings_without_a_flag(folders, predicted, true):
    predictions, labels, out = folders
    save(predictions / "a.nii.gz", volume(predicted, part=0))
    save(labels / "a.nii.gz", volume(true, last=UNLISTED[true]))
    values = {name: numbers[0] for name, numbers in NUMBERINGS[predicted].items()}
    (predictions / "labels.json").write_text(json.dumps(values))
    summary = evaluate_folder(predictions, labels, out).summary
    assert len(summary["classes"]) == 27
    assert [entry["dice"]["mean"] for entry in summary["classes"].values()] == [1.0] * 27
    assert summary["absent_classes"] == []


def test_what_training_did_to_labels_is_done_to_the_truth(folders):
    predictions, labels, out = folders
    truth = np.zeros((6, 4, 4), np.uint8)
    truth[0], truth[1], truth[2] = 10, 11, 99
    save(labels / "a.nii.gz", truth)
    save(predictions / "a.nii.gz", np.where(np.isin(truth, (10, 11)), 10, 0).astype(np.uint8))
    (predictions / "labels.json").write_text(json.dumps({"background": 0, "both": 10}))
    assert evaluate_folder(predictions, labels, out).summary["mean"]["dice"] == pytest.approx(2 / 3)  # 11 not known
    left = {"relabel": {"11": 10}, "other_is_background": True, "regions": {"whole": [10]}}
    write_manifest(predictions, "predict", [], [], 0.0, labels=left)
    summary = evaluate_folder(predictions, labels, out, overwrite=True).summary
    assert summary["mean"]["dice"] == 1
    assert summary["regions"]["whole"]["dice"]["mean"] == 1
    assert summary["notes"] == ["labels: read as in training: values as the predictions' manifest.json says"]


def test_a_table_for_the_labels(folders, tmp_path):
    predictions, labels, out = folders
    truth = np.zeros((6, 4, 4), np.uint8)
    truth[0], truth[1] = 10, 11
    save(labels / "a.nii.gz", truth)
    save(predictions / "a.nii.gz", (truth > 0).astype(np.uint8))
    (predictions / "labels.json").write_text(json.dumps({"background": 0, "both": 1}))
    (tmp_path / "table.yaml").write_text("both: [10, 11]\n")
    assert evaluate_folder(predictions, labels, out, classes=str(tmp_path / "table.yaml")).summary["mean"]["dice"] == 1


def test_classes_meet_by_name_and_strangers_are_background(folders):
    """A value of the labels that means another class in the predictions must not count as that class."""
    predictions, labels, out = folders
    truth, guess = np.zeros((6, 4, 4), np.uint8), np.zeros((6, 4, 4), np.uint8)
    truth[0], truth[1] = 1, 2
    guess[0], guess[1] = 2, 1
    save(labels / "a.nii.gz", truth)
    save(predictions / "a.nii.gz", guess)
    (predictions / "labels.json").write_text(json.dumps({"background": 0, "new": 1, "liver": 2}))
    document = {"labels": {"background": 0, "liver": 1, "spleen": 2}}
    (labels.parent / "dataset.json").write_text(json.dumps(document))
    summary = evaluate_folder(predictions, labels, out).summary
    assert summary["classes"]["liver"]["dice"]["mean"] == 1
    assert summary["absent_classes"] == ["new"]
    assert "labels: classes that are not predicted count as background: spleen" in summary["notes"]
