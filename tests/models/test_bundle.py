"""A bundle predicts as its run does, tells what it is, and says nothing of whose scans made it."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.command_line import semiseg, train_run_on, write_study

from semiseg.data.splits import SplitNames
from semiseg.errors import InputError, UserError
from semiseg.models.bundle import export_bundle, splits_hash
from semiseg.models.model import BUNDLES, load_model
from semiseg.runs.checkpoint import read_checkpoint, write_checkpoint
from semiseg.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("private")


@pytest.fixture(scope="module")
def study(place):
    return write_study(place / "study")


@pytest.fixture(scope="module")
def run(study, place):
    return train_run_on(study, place / "run")


def test_a_bundle_predicts_as_its_run_does(run, study, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMISEG_DEVICE", "cpu")
    code, out, err = semiseg("export", run, "--out", tmp_path / "ball", "--licence", "CC0-1.0")
    assert code == 0, err
    assert out == f"{tmp_path / 'ball'}: 0.0 MB; read its README.md before you give it away\n"
    for name, source in (("run", run), ("bundle", tmp_path / "ball")):
        code, _, err = semiseg("predict", source, study / "images" / "case0.nii.gz", "--out", tmp_path / name)
        assert code == 0, err
    one, other = (nib.load(tmp_path / name / "case0.nii.gz").get_fdata() for name in ("run", "bundle"))
    assert np.array_equal(one, other)


def test_nothing_of_the_makers_disk_is_inside(run, place, tmp_path):
    out = export_bundle(run, tmp_path / "ball")
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "model.json", "README.md"}
    names = [name for part in json.loads((run / "splits.json").read_text())[0].values() if isinstance(part, list)
             for name in part]  # fmt: skip
    assert len(names) == 7
    for path in out.iterdir():
        content = path.read_bytes()
        for secret in (*names, str(place), place.name, "study"):
            assert secret.encode() not in content, (path, secret)
    assert (out / "model.safetensors").stat().st_mode & 0o044 == (out / "README.md").stat().st_mode & 0o044


def test_the_card_says_what_the_model_is(run, tmp_path):
    card = (export_bundle(run, tmp_path / "ball", licence="CC0-1.0", description="Balls.") / "README.md").read_text()
    facts = json.loads((tmp_path / "ball" / "model.json").read_text())
    best = json.loads((run / "result.json").read_text())["best"]
    dice = best["validation_dice"]
    for part in (
        "# ball\n\nBalls.\n\nLicence: CC0-1.0\n",
        "This is not a medical device",
        "| 0 | background | - |",
        f"| 17 | hippocampus | {dice:.3f} |",
        f"- method: equireg, {best['step']} steps (best checkpoint)",
        "- scans: 2 labelled, 3 without labels, 1 with labels for validation",
        f"- mean Dice on the validation scans: {dice:.3f}",
        "| scans | 6 |",
        "| intensities of MRI | zscore |",
        f"| splits | {facts['data']['splits']} |",
    ):
        assert part in card, part
    assert facts["settings"]["method"]["name"] == "equireg"
    assert facts["settings"].keys() == {"method", "training", "plan", "dims", "memory_gb", "seed"}
    unnamed = (export_bundle(run, tmp_path / "other") / "README.md").read_text()
    assert "Segments hippocampus in MRI.\n\nLicence: not stated" in unnamed


def test_the_hash_of_the_splits_is_that_of_who_played_which_part(tmp_path):
    def hashed(**changes):
        split = {"train": ["a", "b"], "val": ["c"], "unlabelled": [], "test": ["d"], **changes}
        (tmp_path / "splits.json").write_text(json.dumps([split]))
        return splits_hash(SplitNames.load(tmp_path / "splits.json"))

    assert hashed() == hashed(train=["b", "a"], split_seed=3)
    assert hashed() != hashed(train=["a"], val=["b", "c"])


def test_half_the_size_for_a_small_difference(run, tmp_path):
    whole, half = (export_bundle(run, tmp_path / str(flag), half=flag) for flag in (False, True))
    stored = load_file(half / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    one, other = (load_model(folder).network.state_dict() for folder in (whole, half))
    for name, value in one.items():
        assert other[name].dtype == torch.float32
        assert torch.equal(other[name], value.half().float())


def test_weights_that_16_bits_cannot_hold(run, tmp_path, monkeypatch):
    weights = load_model(run).network.state_dict()
    weights["head.bias"] = torch.full_like(weights["head.bias"], 1e6)
    monkeypatch.setattr("semiseg.models.bundle.checkpoint_weights", lambda *_: weights)
    with pytest.raises(UserError, match=r"--half: got values beyond 65504 in head.bias.*export without --half"):
        export_bundle(run, tmp_path / "out", half=True)


def test_another_checkpoint(run, tmp_path):
    export_bundle(run, tmp_path / "last", checkpoint="last")
    assert json.loads((tmp_path / "last" / "model.json").read_text())["scores"]["checkpoint"] == "last"
    expected = read_checkpoint(RunFolder(run).last)
    predictor = expected.part(f"method.{expected.facts['predictor']}")
    for name, value in load_file(tmp_path / "last" / "model.safetensors").items():
        assert torch.equal(value, predictor[name])


def test_a_checkpoint_that_cannot_predict_is_not_given_away(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "previous.safetensors").unlink(missing_ok=True)
    whole = read_checkpoint(folder.last)
    for tensors, facts in (
        ({name: value for name, value in whole.tensors.items() if "head" not in name}, whole.facts),
        ({}, whole.facts),
        (whole.tensors, {**whole.facts, "predictor": "teacher"}),
        (whole.tensors, {key: value for key, value in whole.facts.items() if key != "predictor"}),
        ({name: value * torch.nan for name, value in whole.tensors.items()}, whole.facts),
    ):
        write_checkpoint(folder.last, tensors, facts)
        with pytest.raises(InputError, match=r"run: (it lacks head|got a checkpoint without weights|got values in)"):
            export_bundle(tmp_path / "run", tmp_path / "out", checkpoint="last")
        assert not (tmp_path / "out").exists()


def test_only_an_earlier_bundle_is_replaced_and_only_if_asked(run, tmp_path):
    out = export_bundle(run, tmp_path / "out")
    with pytest.raises(UserError, match=r"out: got a folder that holds .*; pass --overwrite to replace it"):
        export_bundle(run, out)
    export_bundle(run, out, overwrite=True)
    (out / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"expected none or an empty one; choose another --out"):
        export_bundle(run, out, overwrite=True)


@pytest.mark.slow
def test_killed_at_any_step_it_can_be_called_again(run, tmp_path):
    """And what looks like a model meanwhile is a whole one."""
    words = [sys.executable, "-m", "support.killed_export", run, tmp_path]
    there = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=there, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    kills = dict(line.split() for line in done.stdout.splitlines())
    assert kills.keys() == {"nothing", "empty", "earlier"}
    assert all(int(number) >= 10 for number in kills.values()), kills  # three files: written, flushed, moved


def test_the_folder_of_an_interrupted_export_and_of_another_command(run, tmp_path):
    (tmp_path / "begun.json").write_text(json.dumps({"command": "predict", "version": "0"}))
    with pytest.raises(UserError, match=r"got the results of `semiseg predict`, expected an empty folder"):
        export_bundle(run, tmp_path, overwrite=True)
    (tmp_path / "begun.json").write_text(json.dumps({"command": "export", "version": "0"}))
    (tmp_path / "README.md").write_text("half")
    export_bundle(run, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.json", "README.md"}
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: got a file, expected a folder"):
        export_bundle(run, tmp_path / "file")


def test_an_unfinished_run(tmp_path):
    with pytest.raises(InputError, match=r"got no result.json, expected a finished run; finish it"):
        export_bundle(tmp_path, tmp_path / "out")


# the model that comes with the package


def test_an_unknown_path_names_the_models_that_come_along(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: got no such run or model.*\(demo-brain\)"):
        load_model(tmp_path / "nowhere")


def test_a_path_goes_before_a_name(run, tmp_path, monkeypatch):
    export_bundle(run, tmp_path / "demo-brain")
    monkeypatch.chdir(tmp_path)
    assert list(load_model("demo-brain").plan.classes) == ["background", "hippocampus"]


def test_shipped_models_are_small_honest_and_in_the_wheel():
    for folder in BUNDLES.iterdir():
        assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.json", "README.md"}
        assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6
        card = (folder / "README.md").read_text()
        assert "demonstration" in card
        assert "not for clinical use" in card
        assert load_model(folder.name).plan.classes
        ignored = subprocess.run(["git", "check-ignore", *folder.iterdir()], cwd=ROOT, capture_output=True, check=False)
        assert ignored.stdout == b""  # what git ignores, hatchling leaves out
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/semiseg"]}
    assert BUNDLES.relative_to(ROOT / "src" / "semiseg") == Path("models/bundles")


def test_the_shipped_model_segments_a_brain_that_it_never_saw():
    """A simulated subject of another cohort, at another resolution than it was trained on."""
    pytest.importorskip("nilearn")
    from semiseg.data.space import back_to_file_space, to_network_space
    from semiseg.models.windows import predict_probabilities
    from semiseg.simulate.brain import simulate_brain
    from semiseg.types import Geometry

    scan = simulate_brain(1, 1, spacing_mm=3.0, seed=77)
    shipped = load_model("demo-brain")
    image, space = to_network_space(np.float32(scan.image)[None], Geometry(scan.image.shape, scan.affine), shipped.plan)
    found = back_to_file_space(predict_probabilities(shipped.network, image, shipped.plan).numpy(), space)
    dice = {}
    for index, (name, value) in enumerate(shipped.plan.classes.items()):
        a, b = found == index, scan.label == value
        dice[name] = 2 * (a & b).sum() / (a.sum() + b.sum())
    assert dice["grey matter"] > 0.85, dice
    assert dice["white matter"] > 0.85, dice
    assert dice["cerebrospinal fluid"] > 0.7, dice
