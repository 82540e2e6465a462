import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from semiseg import demo
from semiseg.demo import run_demo
from semiseg.errors import InputError, UserError

TINY = {"steps": 2, "unlabelled": 2, "test": 2, "spacing_mm": 6.0, "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMISEG_CACHE", str(out / "cache"))
        patch.setenv("SEMISEG_WORKERS", "1")
        run_demo(out / "demo", **TINY)
    torch.set_num_threads(threads)
    return out / "demo"


@pytest.mark.parametrize(("name", "unlabelled"), [("supervised", 0), ("roam", 2), ("equireg", 2)])
def test_every_method_is_trained_on_the_same_labels_and_scored_on_held_out_scans(folder, name, unlabelled):
    result = json.loads((folder / name / "result.json").read_text())
    assert (result["labelled"], result["validation"], result["unlabelled"]) == (3, 2, unlabelled)
    assert result["steps"] == 2
    (split,) = json.loads((folder / name / "splits.json").read_text())
    (first,) = json.loads((folder / "supervised" / "splits.json").read_text())
    assert split == first
    assert split["test"] == ["test_001", "test_002"]
    with (folder / "scores" / name / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == {"test_001", "test_002"}
    assert {row["class"] for row in rows} == {"grey matter", "white matter", "cerebrospinal fluid"}


def test_predictions_lie_on_the_scans(folder):
    scan = nib.load(folder / "data" / "imagesTs" / "test_001_0000.nii.gz")
    for name in demo.METHODS:
        prediction = nib.load(folder / "predictions" / name / "test_001.nii.gz")
        assert prediction.shape == scan.shape
        assert np.array_equal(prediction.affine, scan.affine)


def test_the_report_says_simulated_and_names_every_method(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Simulated scans" in text
    assert "semiseg demo --out" in text
    assert "3 labelled scans, 2 without labels" in text
    for name in demo.METHODS:
        assert f'<th scope="row">{name}</th>' in text


def test_a_finished_demo_is_not_computed_again(folder, monkeypatch, capsys):
    def fail(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr("semiseg.simulate.brain.simulate_brain", fail)
    monkeypatch.setattr("semiseg.experiments.experiment.fit", fail)
    before = (folder / "scores" / "roam" / "metrics.csv").stat().st_mtime_ns
    assert run_demo(folder, **TINY) == folder / "report.html"
    assert (folder / "scores" / "roam" / "metrics.csv").stat().st_mtime_ns == before
    printed = capsys.readouterr().out
    header, *rows, last = printed.splitlines()
    assert header.split()[:4] == ["method", "labelled", "unlabelled", "seconds"]
    assert [row.split()[0] for row in rows] == list(demo.METHODS)
    assert rows[1].split()[1:5] == ["3", "+", "2", "2"]
    assert last == f"Simulated scans; full report: {folder / 'report.html'}"


def test_other_numbers_are_refused(folder):
    with pytest.raises(UserError, match=r"training\.steps: 2 -> 3"):
        run_demo(folder, **{**TINY, "steps": 3})
    with pytest.raises(InputError, match="choose another folder"):
        run_demo(folder, **{**TINY, "seed": 1})


def test_a_device_that_is_not_there_is_told_before_anything_is_simulated(tmp_path):
    with pytest.raises(UserError, match="--device: got 'foo'"):
        run_demo(tmp_path / "demo", device="foo")
    assert not (tmp_path / "demo").exists()
