"""The examples do what they say."""

import json
import runpy
import sys
from pathlib import Path

import torch
from torch import nn

from semiseg import Batch, Draws, RunSettings, load_model

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "my_method.py"
TINY = {
    "plan": {"patch": [8, 8], "batch": 2, "unlabelled_batch": 2, "network": {"widths": [4, 8], "strides": [[2, 2]]}},
    "training": {"steps": 2, "precision": "32", "log_every": 1, "tensorboard": False},
    "dims": "2",
}


def batch_of(count=2, side=8):
    generator = torch.Generator().manual_seed(0)
    return Batch(
        image=torch.randn(count, 1, side, side, generator=generator),
        label=torch.randint(2, (count, side, side), generator=generator),
        unlabelled=torch.randn(count, 1, side, side, generator=generator),
        inside=torch.ones(count, side, side, dtype=torch.bool),
        spacing_mm=(1.0, 1.0),
    )


def test_the_example_is_a_method_that_learns_from_both_streams():
    defined = runpy.run_path(str(SCRIPT))
    method = defined["MeanTeacher"](nn.Conv2d(1, 2, 3, padding=1), defined["MeanTeacherConfig"]())
    terms = method(batch_of(), Draws(0, 0), progress=1.0).terms
    for name in ("supervised", "consistency"):
        gradient = torch.autograd.grad(terms[name], method.network.weight, retain_graph=True)[0]
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().max() > 0, name
    assert all(not p.requires_grad for p in method.predictor.parameters())
    again = method(batch_of(), Draws(0, 0), progress=1.0).terms
    assert all(torch.equal(terms[name], again[name]) for name in terms)
    assert method(batch_of(), Draws(0, 0), progress=0.0).terms["consistency"] == 0


def test_the_example_trains_as_a_script_and_its_run_can_be_loaded(plain_cohort, tmp_path, monkeypatch):
    """As written, but for a plan and a number of steps that are tiny."""
    whole = RunSettings.parse
    monkeypatch.setattr(RunSettings, "parse", lambda values, where: whole({**values, **TINY}, where=where))
    monkeypatch.setenv("SEMISEG_WORKERS", "1")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(plain_cohort(labelled=5, unlabelled=2)), str(tmp_path / "run")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["labelled"], result["unlabelled"], result["steps"]) == (4, 3, 2)
    settings = json.loads((tmp_path / "run" / "model" / "model.json").read_text())["settings"]["method"]
    assert settings["name"] == "mine"
    assert settings["noise"] == 0.1
    assert load_model(tmp_path / "run").plan.patch == (8, 8)
