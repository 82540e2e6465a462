"""The whole path on real scans: a few steps of training, predictions on the grids of their files, scores."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from support.command_line import rows_of, semiseg

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

SHORT = ("--steps", "3", "--labelled", "2", "--precision", "32", "--set", "training.tensorboard=false")
TINY_2D = ("--dims", "2", *SHORT, "--set", "plan.network={widths: [8, 16], strides: [[2, 2]]}")
TINY_3D = ("--dims", "3", *SHORT, "--set", "plan.network={widths: [4, 8], strides: [[2, 2, 2]]}")
SMALL_BATCH = ("--set", "plan.batch=2", "--set", "plan.unlabelled_batch=2")
GEOMETRY = ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d")
OFFSETS = ("qoffset_x", "qoffset_y", "qoffset_z", "xyzt_units", "descrip")


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    monkeypatch.setenv("SEMISEG_WORKERS", "1")
    monkeypatch.setenv("SEMISEG_DEVICE", "cpu")


def run(*words):
    code, out, err = semiseg(*words)
    assert code == 0, err
    return out


def few_scans(source, target, folders, count):
    """Link the first scans of each folder, and copy dataset.json, into a dataset of their own."""
    for folder in folders:
        (target / folder).mkdir(parents=True)
        for path in sorted((source / folder).glob("*.nii.gz"))[:count]:
            (target / folder / path.name).symlink_to(path.resolve())
    if (source / "dataset.json").exists():
        shutil.copy(source / "dataset.json", target)
    return target


def values_in(path):
    return set(np.unique(np.asarray(nib.load(path).dataobj)).astype(int).tolist())


def assert_same_place(scan, made):
    source, prediction = nib.load(scan), nib.load(made)
    assert prediction.shape == source.shape, made
    np.testing.assert_array_equal(prediction.affine, source.affine, err_msg=str(made))
    assert prediction.header.get_zooms() == source.header.get_zooms(), made
    for field in (*GEOMETRY, *OFFSETS):
        np.testing.assert_array_equal(prediction.header[field], source.header[field], err_msg=f"{made}: {field}")


def test_freesurfer_numbers_come_back_on_the_grids_of_the_scans(real_data, tmp_path):
    data = few_scans(real_data / "wholebrain", tmp_path / "brains", ("images", "labels"), count=6)
    run("train", data, "--out", tmp_path / "run", "--method", "roam", "--test", "2", *TINY_2D, *SMALL_BATCH)
    made = tmp_path / "made"
    run("predict", tmp_path / "run", data, "--cases", tmp_path / "run" / "splits.json", "--out", made)
    (split,) = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert len(split["test"]) == 2
    visible = set().union(*(values_in(data / "labels" / f"{name}.nii.gz") for name in split["train"]))
    assert {17, 53} < visible  # the hippocampi
    assert set(json.loads((made / "labels.json").read_text()).values()) == visible
    for name in split["test"]:
        assert_same_place(data / "images" / f"{name}.nii.gz", made / f"{name}.nii.gz")
        assert values_in(made / f"{name}.nii.gz") <= visible
        assert len(values_in(made / f"{name}.nii.gz")) > 1
    run("evaluate", made, data, "--out", tmp_path / "scores")
    rows = rows_of(tmp_path / "scores" / "metrics.csv")
    assert {row["case"] for row in rows} == set(split["test"])
    assert {int(row["value"]) for row in rows} == visible - {0}
    assert max(float(row["dice"]) for row in rows) < 1


def test_a_perfect_prediction_of_real_labels_scores_1(real_data, tmp_path):
    data = few_scans(real_data / "wholebrain", tmp_path / "brains", ("images", "labels"), count=2)
    run("evaluate", data / "labels", data, "--out", tmp_path / "scores")
    rows = rows_of(tmp_path / "scores" / "metrics.csv")
    present = [row for row in rows if row["in_truth"] == "True"]
    assert {"17", "53"} <= {row["value"] for row in present}
    for row in present:
        assert (float(row["dice"]), float(row["hd95_mm"]), float(row["surface_dice"])) == (1, 0, 1)
        assert float(row["difference_ml"]) == 0
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["mean"]["dice"] == 1


def test_every_real_hippocampus_can_be_used(real_data):
    report = json.loads(run("check", real_data / "hippocampus" / "Dataset004_Hippocampus", "--json"))
    assert report["can_train"]
    assert len(report["usable"]) == 201
    (note,) = report["findings"]
    assert (note["case"], note["severity"]) == ("hippocampus_118", "note")
    assert note["found"] == "an image without a label: an unlabelled case"


def test_three_dimensions_on_the_hippocampus(real_data, tmp_path):
    source = real_data / "hippocampus" / "Dataset004_Hippocampus"
    data = few_scans(source, tmp_path / "Dataset004", ("imagesTr", "labelsTr"), count=8)
    run("train", data, "--out", tmp_path / "run", "--method", "equireg", "--test", "2", *TINY_3D, *SMALL_BATCH)
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["dims"] == 3
    made = tmp_path / "made"
    run("predict", tmp_path / "run", data, "--out", made, "--probabilities")
    scans = sorted((data / "imagesTr").iterdir())
    assert len(scans) == 8
    for scan in scans:
        name = scan.name.removesuffix("_0000.nii.gz")
        assert_same_place(scan, made / f"{name}.nii.gz")
        assert values_in(made / f"{name}.nii.gz") <= {0, 1, 2}
        probability = nib.load(made / f"{name}_prob.nii.gz")
        assert probability.shape == (*nib.load(scan).shape, 3)
        np.testing.assert_allclose(probability.get_fdata().sum(-1), 1, atol=1.6 / 255)
    run("evaluate", made, data, "--out", tmp_path / "scores")
    rows = rows_of(tmp_path / "scores" / "metrics.csv")
    assert len(rows) == 16
    assert {row["class"] for row in rows} == {"Anterior", "Posterior"}
