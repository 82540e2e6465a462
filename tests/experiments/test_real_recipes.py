"""Recipes on real scans, as their files are: two of the four modalities of BraTS, FreeSurfer's numbers for MALC's."""

import json

import nibabel as nib
import numpy as np
import pytest
from support.command_line import rows_of, semiseg

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

BUDGET = (
    *("--steps", "4", "--precision", "32", "--set", "training.validate_every=2", "--set", "training.tensorboard=false"),
    *("--set", "plan.batch=1", "--set", "plan.unlabelled_batch=1", "--quiet", "--device", "cpu", "--workers", "1"),
    *("--labelled", "1", "--val", "1", "--test", "1"),
)


def test_tumours_with_two_modalities_come_back_with_their_own_labels(real_data, tmp_path):
    data = real_data / "tumour" / "MICCAI_BraTS_2019_Data_Training"
    network = "plan.network={name: fcdensenet, first: 8, growth: 4, blocks: [1, 1, 1]}"
    run = tmp_path / "run"
    words = ("train", data, "--recipe", "brats19-equireg", "--out", run, *BUDGET, "--set", network)
    code, _, err = semiseg(*words)
    assert code == 0, err
    plan = json.loads((run / "plan.json").read_text())
    assert plan["channels"] == ["flair", "t1ce"]
    assert plan["patch"] == [224, 224]
    (case,) = json.loads((run / "splits.json").read_text())[0]["test"]
    (source,) = data.rglob(f"{case}_flair.nii.gz")
    made, given = nib.load(run / "predictions" / f"{case}.nii.gz"), nib.load(source)
    assert made.shape == given.shape == (240, 240, 155)
    np.testing.assert_array_equal(made.affine, given.affine)
    assert set(np.unique(made.dataobj)) <= {0, 1, 2, 4}
    names = {row["class"] for row in rows_of(run / "scores" / "metrics.csv")}
    assert names == {"necrosis", "oedema", "enhancing", "whole", "core"}


def test_whole_brains_with_freesurfer_numbers(real_data, tmp_path):
    network = "plan.network={name: roam-unet, widths: [4, 8, 8]}"
    run = tmp_path / "run"
    words = ("train", real_data / "wholebrain", "--recipe", "malc-roam-semi", "--out", run, *BUDGET)
    code, _, err = semiseg(*words, "--set", network, "--set", "plan.patch=[96,128]")
    assert code == 0, err
    rows = rows_of(run / "scores" / "metrics.csv")
    assert len(rows) == 27
    assert {row["state"] for row in rows} == {"ok"}
    (case,) = json.loads((run / "splits.json").read_text())[0]["test"]
    plan = json.loads((run / "plan.json").read_text())
    made = nib.load(run / "predictions" / f"{case}.nii.gz")
    assert set(np.unique(made.dataobj)) <= set(plan["classes"].values())
