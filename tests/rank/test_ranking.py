"""Ranking files: what is written, in which order, and what is never done twice or mixed up."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from support.command_line import rows_of
from support.pixelwise import Pixelwise, plan_of
from support.scans import write_nifti

from semiseg.data.dataset import Case
from semiseg.errors import InputError, UserError
from semiseg.manifest import file_hash
from semiseg.models.model import LoadedModel
from semiseg.rank.ranking import Transforms, rank_cases
from semiseg.rank.scans import rank_scans

RULE = {"scheme": "window", "low": -1000, "high": 1000}


class Fooled(Pixelwise):
    """Pixelwise and so exactly equivariant, but beside anything brighter than 1 it finds whatever is in the middle."""

    def __init__(self, sharpness=1.0):
        super().__init__()
        self.sharpness = torch.nn.Parameter(torch.tensor(sharpness))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        middle = torch.zeros_like(x)
        middle[..., 9:15, 8:12] = 1
        return self.sharpness * super().forward(torch.where((x > 1.2).any(), middle, x))


def model_of(network=None, name="model", **changes):
    return LoadedModel(network or Fooled(), plan_of(2, normalisation=[RULE], **changes), name)


@pytest.fixture
def cases(tmp_path):
    """In the order of their names: one with nothing in it, one that the network gets right, one that fools it."""
    disc = np.linalg.norm(np.indices((3, 20, 18)) - np.array([1, 10, 9])[:, None, None, None], axis=0) < 5
    scans = {"empty": 0 * disc, "good": disc, "hard": 2 * disc}
    return [
        Case(name, (write_nifti(tmp_path / "in" / f"{name}.nii.gz", scan.astype(np.float32)),))
        for name, scan in scans.items()
    ]


# transformations


def test_a_draw_depends_on_seed_case_and_slice_alone():
    transforms = Transforms(seed=3)
    five = transforms.draw("anna", 5, (12, 14), (1.0, 1.5)).grid
    assert torch.equal(five[:3], transforms.draw("anna", 3, (12, 14), (1.0, 1.5)).grid)
    for other in (
        five[1],
        transforms.draw("ben", 1, (12, 14), (1.0, 1.5)).grid[0],
        Transforms(seed=4).draw("anna", 1, (12, 14), (1.0, 1.5)).grid[0],
    ):
        assert (other - five[0]).abs().max() > 0.01
    assert transforms.draw("anna", 1, (6, 12, 14), (3.0, 1.0, 1.5)).grid.shape == (1, 6, 12, 14, 3)


def test_what_is_stored_draws_the_same_again(tmp_path):
    transforms = Transforms(seed=3, warp={"rotate_deg": 5, "elastic": 0.05})
    transforms.save(tmp_path / "transforms.json")
    again = Transforms.load(tmp_path / "transforms.json")
    assert set(again.versions) == {"semiseg", "torch"}
    assert torch.equal(again.draw("a", 2, (8, 9), (1.0, 1.0)).grid, transforms.draw("a", 2, (8, 9), (1.0, 1.0)).grid)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"t\.json: .*, expected the transforms\.json of an earlier ranking"),
        ("[1]", r"t\.json: got \[1\], expected the transforms\.json"),
        ('{"format": 2}', r"t\.json\.format: got 2"),
        ('{"sede": 1}', r"t\.json\.sede: unknown setting; did you mean 'seed'"),
    ],
)
def test_stored_transformations_that_make_no_sense(tmp_path, text, message):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match=message):
        Transforms.load(tmp_path / "t.json")
    with pytest.raises(InputError, match=r"none\.json: .*No such file"):
        Transforms.load(tmp_path / "none.json")


# results


def test_worst_first(cases, tmp_path):
    ranking = rank_cases([model_of()], cases, tmp_path / "out", device="cpu")
    assert (ranking.done, ranking.skipped, ranking.failed, ranking.exit_code) == (("empty", "good", "hard"), (), {}, 0)
    rows = rows_of(tmp_path / "out" / "ranking.csv")
    assert list(rows[0]) == [
        *("case", "class", "value", "kind"),
        *("equivariance_dice", "border_entropy", "volume_ml", "disagreement", "volume_z", "estimated_dice"),
    ]
    assert [(row["case"], row["class"], row["kind"]) for row in rows] == [
        (case, name, kind)
        for case in ("empty", "hard", "good")
        for name, kind in (("mean", "mean"), ("object", "class"))
    ]
    assert [row["equivariance_dice"] for row in rows[:2]] == ["", ""]
    assert float(rows[2]["equivariance_dice"]) < 0.9
    assert float(rows[4]["equivariance_dice"]) == 1
    hard = np.asarray(6 * 4 * 3 / 1000)  # where the middle of the patch is in the picture, in three slices
    assert float(rows[3]["volume_ml"]) == pytest.approx(hard)
    lines = ranking.text(most=2).splitlines()
    assert lines[1].split() == ["empty", "-", "-", "-", "-", "nothing", "found"]
    assert lines[2].split()[0] == "hard"
    assert lines[3:] == [
        "... and 1 better ones in ranking.csv",
        "no estimate of the Dice: no validation scans were given",
        "3 scored, 0 already there",
    ]


def test_summary_and_manifest(cases, tmp_path):
    ranking = rank_cases([model_of()], cases, tmp_path / "out", device="cpu")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == ranking.summary
    assert (summary["cases"], summary["failed"], summary["order"]) == (3, {}, ["empty", "hard", "good"])
    (mean, structure) = summary["scores"]
    assert (mean["class"], mean["kind"], mean["volume_ml"], mean["disagreement"]) == ("mean", "mean", None, None)
    hard, good = (
        row["equivariance_dice"] for row in ranking.rows if row["class"] == "object" and row["case"] != "empty"
    )
    assert structure["equivariance_dice"] == {"n": 2, "mean": (hard + good) / 2, "lowest": hard, "highest": 1.0}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["command"] == "rank"
    assert manifest["requested"] == ["empty", "good", "hard"]
    assert list(manifest["inputs"].values()) == [file_hash(case.images[0]) for case in cases]
    assert all((tmp_path / "out" / name).exists() for name in manifest["outputs"])
    assert {"ranking.csv", "summary.json", "transforms.json", "cases/hard.json"} <= set(manifest["outputs"])


def test_transformations_stored_with_one_model_are_applied_to_another(cases, tmp_path):
    first = [model_of()]
    rank_cases(first, cases, tmp_path / "a", transforms=Transforms(seed=5), device="cpu")
    stored = Transforms.load(tmp_path / "a" / "transforms.json")
    rank_cases([model_of(name="other")], cases, tmp_path / "b", transforms=stored, device="cpu")
    assert (tmp_path / "a" / "ranking.csv").read_bytes() == (tmp_path / "b" / "ranking.csv").read_bytes()
    rank_cases(first, cases, tmp_path / "c", transforms=Transforms(seed=6), device="cpu")
    assert (tmp_path / "a" / "ranking.csv").read_bytes() != (tmp_path / "c" / "ranking.csv").read_bytes()


def test_finished_work_is_not_repeated(cases, tmp_path):
    network = Fooled()
    out = tmp_path / "out"
    rank_cases([model_of(network)], cases[:2], out, device="cpu")
    (out / "manifest.json").rename(out / "begun.json")  # as if it had been interrupted before its end
    calls = network.calls
    ranking = rank_cases([model_of(network)], cases, out, device="cpu")
    assert (ranking.done, ranking.skipped) == (("hard",), ("empty", "good"))
    whole = (out / "ranking.csv").read_bytes()
    assert network.calls == calls + calls / 2
    rank_cases([model_of(network)], cases, tmp_path / "fresh", device="cpu")
    assert whole == (tmp_path / "fresh" / "ranking.csv").read_bytes()
    shutil.copy(cases[0].images[0], cases[1].images[0])  # another scan under the same name
    assert rank_cases([model_of(network)], cases, out, device="cpu").done == ("good",)
    assert rank_cases([model_of(network)], cases, out, overwrite=True, device="cpu").skipped == ()


def test_other_results_in_the_folder_are_refused(cases, tmp_path):
    out = tmp_path / "out"
    rank_cases([model_of()], cases, out, device="cpu")
    before = (out / "ranking.csv").read_bytes()
    with pytest.raises(UserError, match=r"out: got scores made with other weights, expected .* pass --overwrite"):
        rank_cases([model_of(Fooled(sharpness=2.0))], cases, out, device="cpu")
    with pytest.raises(UserError, match=r"made with other transforms, expected"):
        rank_cases([model_of()], cases, out, transforms=Transforms(seed=1), device="cpu")
    assert (out / "ranking.csv").read_bytes() == before
    assert rank_cases([model_of(Fooled(2.0))], cases, out, overwrite=True, device="cpu").done == (
        *("empty", "good", "hard"),
    )
    for damage in ("17", "{", (out / "cases" / "good.json").read_text().replace("equivariance", "variance")):
        (out / "cases" / "good.json").write_text(damage)
        assert rank_cases([model_of(Fooled(2.0))], cases, out, device="cpu").done == ("good",)
    (out / "manifest.json").write_text('{"command": "predict"}')
    with pytest.raises(UserError, match=r"got the results of `semiseg predict`, expected .*; choose another --out"):
        rank_cases([model_of()], cases, out, overwrite=True, device="cpu")


def test_models_that_prepare_scans_otherwise_are_refused(cases, tmp_path):
    coarse = model_of(name="coarse", spacing_mm=(None, 2.0, 2.0))
    with pytest.raises(
        UserError, match=r"coarse: got a plan that prepares scans otherwise than that of model, .*alone"
    ):
        rank_cases([model_of(), coarse], cases, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_scan_that_fails_does_not_stop_the_others(cases, tmp_path, capsys):
    missing = Case("missing", (tmp_path / "in" / "missing.nii.gz",))
    nan = Case("nan", (write_nifti(tmp_path / "in" / "nan.nii.gz", np.full((4, 4, 4), np.nan, np.float32)),))
    ranking = rank_cases([model_of()], [missing, nan, *cases], tmp_path / "out", device="cpu")
    assert ranking.exit_code == 4
    assert ranking.done == ("empty", "good", "hard")
    assert ranking.text().splitlines()[-1] == "3 scored, 0 already there, 2 failed (see failed.csv)"
    with (tmp_path / "out" / "failed.csv").open() as file:
        failed = {row["case"]: row["error"] for row in csv.DictReader(file)}
    assert failed == dict(ranking.failed) == ranking.summary["failed"]
    assert "missing.nii.gz: got no such file" in failed["missing"]
    assert "NaN or infinity in 64 voxels" in failed["nan"]
    assert "nan: failed: " in capsys.readouterr().err
    rank_cases([model_of()], cases, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out" / "failed.csv").exists()


def test_seed_and_stored_transformations_exclude_each_other(tmp_path):
    with pytest.raises(UserError, match="expected one of the two; leave one out"):
        rank_scans([], [], tmp_path, transforms=tmp_path / "transforms.json", seed=0)
