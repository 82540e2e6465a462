"""Every recipe, from raw files on disk to metrics.csv, in one command, on a simulated cohort and a tiny budget."""

import json

import nibabel as nib
import numpy as np
import pytest
from support.command_line import rows_of, semiseg

SMALL_UNET = ("--set", "plan.network={name: roam-unet, widths: [4, 8, 8]}")
SMALL_DENSENET = ("--set", "plan.network={name: fcdensenet, first: 4, growth: 2, blocks: [1, 1, 1]}")
BUDGET = (
    *("--steps", "3", "--precision", "32", "--set", "training.validate_every=2", "--set", "training.tensorboard=false"),
    *("--set", "plan.batch=2", "--set", "plan.unlabelled_batch=2", "--quiet", "--device", "cpu", "--workers", "1"),
)
MALC = (*SMALL_UNET, "--set", "plan.patch=[32,32]", "--test", "1", "--val", "1", "--labelled", "1")
QUICKNAT = (*SMALL_UNET, "--set", "plan.patch=[32,32]", "--labelled", "1")
COVID = (*SMALL_UNET, "--set", "plan.patch=[32,32]", "--set", "plan.resize=[32,32,null]")
BRATS = (
    *(*SMALL_DENSENET, "--set", "plan.patch=[32,32]", "--set", "plan.crop_box=[[4,36],null,null]"),
    *("--labelled", "1", "--val", "1", "--test", "1", "--set", "training.patience=2"),
)
CASES = {
    "malc-roam-supervised": ("wholebrain", "malc", "malc-roam-supervised", MALC),
    "malc-roam-semi": ("wholebrain", "malc", "malc-roam-semi", MALC),
    "malc-roam-semi-quicknat": ("wholebrain", "quicknat", "malc-roam-semi", QUICKNAT),
    "covid-roam-supervised": ("covid", ".", "covid-roam-supervised", (*COVID, "--fold", "2/5")),
    "covid-roam-semi": ("covid", ".", "covid-roam-semi", (*COVID, "--fold", "5/5")),
    "brats19-supervised": ("brats", ".", "brats19-supervised", BRATS),
    "brats19-equireg": ("brats", ".", "brats19-equireg", BRATS),
}
SIZES = {
    "wholebrain": ("--subjects", "6", "--spacing-mm", "4"),
    "covid": ("--subjects", "10", "--size", "48"),
    "brats": ("--subjects", "6", "--spacing-mm", "6"),
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    made = {}

    def world(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            code, _, err = semiseg(
                "simulate", name, "--out", made[name] / "data", *SIZES[name], "--workers", "1", "--quiet"
            )
            assert code == 0, err
        return made[name] / "data"

    return world


@pytest.mark.parametrize("name", CASES)
def test_raw_files_to_scores(name, worlds, tmp_path):
    world, folder, recipe, changes = CASES[name]
    data = worlds(world) / folder
    run = tmp_path / "run"
    code, out, err = semiseg("train", data, "--recipe", recipe, "--out", run, *BUDGET, *changes)
    assert code == 0, err
    assert "mean over classes" in out
    rows = rows_of(run / "scores" / "metrics.csv")
    plan = json.loads((run / "plan.json").read_text())
    (split,) = json.loads((run / "splits.json").read_text())
    assert {row["case"] for row in rows} == set(split["test"])
    assert not {*split["test"]} & {*split["train"], *split["val"], *split["unlabelled"]}
    assert split["val"]
    assert {row["class"] for row in rows} == {*list(plan["classes"])[1:], *plan["regions"]}
    assert all(row["state"] == "ok" for row in rows)
    used = json.loads((run / "result.json").read_text())
    assert (used["unlabelled"] > 0) == (recipe.endswith(("semi", "equireg")))
    if world == "wholebrain":
        assert len(plan["classes"]) == 28
    if world == "brats":
        case = split["test"][0]
        (source,) = data.rglob(f"{case}_flair.nii.gz")
        made, given = nib.load(run / "predictions" / f"{case}.nii.gz"), nib.load(source)
        np.testing.assert_array_equal(made.affine, given.affine)
        assert made.shape == given.shape
        assert set(np.unique(made.dataobj)) <= {0, 1, 2, 4}
        assert {row["value"] for row in rows} == {"1", "2", "4", "1+2+4", "1+4"}
