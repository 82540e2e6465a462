"""Training on regions, from dataset.json to scores, with every method."""

import csv
import json

import numpy as np
import pytest
import torch
from support.scans import write_nifti

from semiseg.draws import Draws
from semiseg.errors import UserError
from semiseg.evaluation.evaluate import evaluate_folder
from semiseg.experiments.experiment import train_run
from semiseg.experiments.run_settings import RunSettings
from semiseg.methods import METHODS, build_method
from semiseg.models.model import load_model
from semiseg.networks.unet import UNet
from semiseg.prediction.segment import segment
from semiseg.types import Batch

LABELS = {"background": 0, "whole": [1, 4], "core": [4]}
TINY = {
    "dims": "2",
    "plan": {"patch": [8, 8], "batch": 2, "unlabelled_batch": 2, "network": {"widths": [4, 8], "strides": [[2, 2]]}},
    "training": {"steps": 2, "precision": "32", "tensorboard": False},
}


@pytest.fixture
def nested(tmp_path):
    """Squares within squares, of values 1 and 4."""
    for index in range(3):
        label = np.zeros((16, 16, 4), np.uint8)
        label[3:13, 3:13], label[6:10, 6:10] = 1, 4
        image = label * 40 + np.random.default_rng(index).normal(20, 2, label.shape)
        write_nifti(tmp_path / "data" / "images" / f"case{index}.nii.gz", image.astype(np.float32))
        write_nifti(tmp_path / "data" / "labels" / f"case{index}.nii.gz", label)
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MR"}, "labels": LABELS}))
    return tmp_path


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_regions_where_the_plan_says_so(name):
    torch.manual_seed(0)
    batch = Batch(
        torch.randn(2, 1, 8, 8), torch.randint(0, 3, (2, 8, 8)), torch.randn(2, 1, 8, 8),
        torch.ones(2, 8, 8, dtype=torch.bool), (1.0, 1.0),
    )  # fmt: skip
    network = UNet(1, 3, 2, (4, 8), ((2, 2),))
    settings = {"regions": ((1, 2), (2,))}
    methods = []
    for given in (settings, {}):
        torch.manual_seed(1)  # a second network has the same first weights in both
        methods.append(build_method(name, network, given))
    with_regions, without = methods
    draws = Draws(seed=0, step=1, slot=0)
    terms, plain = (method.objective(batch, draws, 0.5).terms for method in (with_regions, without))
    assert terms.keys() == plain.keys()
    changed = {key for key in terms if not torch.equal(terms[key], plain[key])}
    assert changed
    if name != "bcp":  # its guesses are labels of a part of the picture, and have the labels' loss
        assert changed <= {"supervised", "dice"}  # terms on unlabelled scans compare classes
    sum(terms.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_from_regions_in_dataset_json_to_scores(nested):
    plan = {**TINY["plan"], "train_on": "regions"}
    settings = RunSettings.parse({**TINY, "plan": plan, "data": {"path": str(nested / "data"), "test": "1"}}, "")
    run = train_run(settings, nested / "run", device="cpu", workers=1)
    assert load_model(run.model).plan.region_members == ((1, 2), (2,))
    assert segment([run.path], [nested / "data"], nested / "out", only=run.splits, device="cpu").exit_code == 0
    left = json.loads((nested / "out" / "manifest.json").read_text())["labels"]
    assert left == {"relabel": {}, "other_is_background": False, "regions": {"whole": [1, 4], "core": [4]}}
    (nested / "data" / "dataset.json").unlink()  # what predict left is enough
    summary = evaluate_folder(nested / "out", nested / "data" / "labels", nested / "scores").summary
    assert list(summary["classes"]) == ["1", "core"]
    assert list(summary["regions"]) == ["whole", "core"]


def test_training_on_regions_is_refused_where_they_do_not_part_the_classes(nested):
    document = {"labels": {"background": 0, "whole": [1, 4]}}
    (nested / "data" / "dataset.json").write_text(json.dumps(document))
    plan = {**TINY["plan"], "train_on": "regions"}
    settings = RunSettings.parse({**TINY, "plan": plan, "data": {"path": str(nested / "data")}}, "")
    with pytest.raises(UserError, match=r"plan.train_on: got 'regions', expected classes, or regions that tell '4'"):
        train_run(settings, nested / "run", device="cpu", workers=1)
    given = {**TINY, "method": {"name": "supervised", "regions": [[1]]}, "data": {"path": str(nested / "data")}}
    with pytest.raises(UserError, match=r"method.regions: got .*, expected none; name regions in plan.regions"):
        train_run(RunSettings.parse(given, ""), nested / "run", device="cpu", workers=1)
    assert not (nested / "run").exists()


def test_classes_of_a_table_from_training_to_scores(nested):
    (nested / "table.yaml").write_text("organ: [1, 4]\n")
    data = {"path": str(nested / "data"), "test": "1", "classes": str(nested / "table.yaml")}
    run = train_run(RunSettings.parse({**TINY, "data": data}, ""), nested / "run", device="cpu", workers=1)
    segment([run.path], [nested / "data"], nested / "out", only=run.splits, device="cpu")
    (nested / "data" / "dataset.json").unlink()
    summary = evaluate_folder(nested / "out", nested / "data", nested / "scores").summary
    assert {name: (entry["value"], entry["n"]) for name, entry in summary["classes"].items()} == {"organ": (1, 1)}
    with (nested / "scores" / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["truth_ml"]) == pytest.approx(100 * 4 / 1000)  # both values of the truth
