"""No command touches a file outside --out, or one in it that semiseg did not write there."""

import hashlib

import pytest
from support.bench_grid import FLAGS
from support.command_line import TINY, semiseg, train_run_on, write_study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("outputs")
    study = write_study(root / "study")
    return study, train_run_on(study, root / "run")


@pytest.fixture(autouse=True)
def small(one_core):
    return one_core


def contents(*folders):
    """Every file and its hash."""
    files = (path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
@pytest.mark.parametrize("place", ["images", "labels"])
def test_predictions_never_land_among_scans_or_labels(made, place, overwrite):
    """They replaced the truth, and the next evaluation would have scored it against itself."""
    study, run = made
    before = contents(study, run)
    code, _, err = semiseg("predict", run, study / "images", "--out", study / place, *overwrite)
    assert code == 2
    assert "expected another --out" in err or "which semiseg did not write here" in err
    assert contents(study, run) == before


def test_scores_never_land_among_labels(made, tmp_path):
    study, run = made
    code, _, err = semiseg("predict", run, study / "images", "--out", tmp_path / "p")
    assert code == 0, err
    before = contents(study, tmp_path)
    for labels in (study, study / "labels"):
        code, _, err = semiseg("evaluate", tmp_path / "p", labels, "--out", study / "labels")
        assert code == 2, err
    assert contents(study, tmp_path) == before


FOREIGN = {
    "train": ("splits.json", "plan.json", "env.json", "provenance.json", "metrics.jsonl", "progress.png"),
    "predict": ("labels.json", "labels.txt", "labels.ctbl", "failed.csv", "case0.nii.gz"),
    "evaluate": ("metrics.csv", "summary.json"),
    "rank": ("ranking.csv", "summary.json"),
    "review": ("README.txt", "labels.txt", "review.csv"),
    "bench": ("plan.json", "results.csv"),
}


@pytest.mark.parametrize(("command", "name"), [(command, name) for command, names in FOREIGN.items() for name in names])
def test_a_file_that_semiseg_did_not_write_stays(made, tmp_path, command, name):
    """Likely by accident: `plan --out runs/a/plan.json`, an edit, then `train --out runs/a`."""
    study, run = made
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    predictions = tmp_path / "predictions"
    if command == "evaluate":
        assert semiseg("predict", run, study, "--out", predictions)[0] == 0
    words = {
        "train": (study, "--labelled", "2", *TINY),
        "predict": (run, study),
        "evaluate": (predictions, study),
        "rank": (run, study),
        "review": (run, study),
        "bench": (study, *FLAGS, "--labelled", "2", "--test", "1", "--runs", "1"),
    }[command]
    code, _, err = semiseg(command, *words, "--out", out)
    assert code == 2, err
    assert f"it holds {name}, which semiseg did not write here; choose another --out, or move it away" in err
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: "mine"}


def test_a_report_replaces_nothing_but_a_report(made, tmp_path):
    _, run = made
    before = contents(run)
    for target in (run / "config.yaml", run / "checkpoints" / "last.safetensors", tmp_path / "scan.nii.gz"):
        code, _, err = semiseg("report", run, "--out", target)
        assert code == 2
        assert "expected a file that ends in .html" in err
    page = tmp_path / "page.html"
    page.write_text("<html>mine</html>")
    code, _, err = semiseg("report", run, "--out", page)
    assert code == 2
    assert "which is there and is no report of semiseg" in err
    assert page.read_text() == "<html>mine</html>"
    assert contents(run) == before
    for _ in range(2):
        assert semiseg("report", run, "--out", tmp_path / "report.html")[0] == 0


def test_a_label_map_and_probabilities_never_share_a_name(made, tmp_path):
    study, run = made
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("a", "a_prob"):
        (scans / f"{name}.nii.gz").write_bytes((study / "images" / "case0.nii.gz").read_bytes())
    code, _, err = semiseg("predict", run, scans, "--probabilities", "--out", tmp_path / "out")
    assert code == 3
    assert "a_prob.nii.gz: got a case whose label map has the name of another one's probabilities" in err
    assert not list((tmp_path / "out").glob("*.nii.gz"))
    assert semiseg("predict", run, scans, "--out", tmp_path / "apart")[0] == 0
