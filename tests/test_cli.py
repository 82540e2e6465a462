"""The commands as a user meets them: exit codes, one clear message, files that lie where the scans lie."""

import csv
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from conftest import ball, write_nifti

from semiseg.cli import app, main

COMMANDS = ("check", "plan", "prepare", "train", "predict", "evaluate", "demo")
TINY = (
    *("--dims", "2", "--steps", "2", "--precision", "32", "--set", "training.tensorboard=false"),
    *("--set", "plan.patch=[8,8]", "--set", "plan.batch=2", "--set", "plan.unlabelled_batch=2"),
    *("--set", "plan.network={widths: [4, 8], strides: [[2, 2]]}"),
)
VALUE = 17
"""Of the only structure, as FreeSurfer numbers the left hippocampus."""


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    monkeypatch.setenv("SEMISEG_WORKERS", "1")
    monkeypatch.setenv("SEMISEG_DEVICE", "cpu")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def semiseg(monkeypatch, capsys):
    """Run a command line in this process; returns exit code, standard output and standard error."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["semiseg", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        return (stop.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Plain folders of oblique, anisotropic, mirrored scans of different shapes; five of seven have labels."""
    root = tmp_path_factory.mktemp("study")
    turned = np.eye(4)
    angle = 0.2
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    for index in range(7):
        image, label = ball((12 + index % 2, 14, 10), index)
        mirrored = np.diag([-0.9, 1.1, 1.3 + 0.1 * index, 1.0]) if index % 2 else np.diag([0.9, 1.1, 1.3, 1.0])
        affine = turned @ mirrored
        affine[:3, 3] = (-7.5, 3.25, index)
        write_nifti(root / "images" / f"case{index}.nii.gz", image, affine)
        if index < 5:
            write_nifti(root / "labels" / f"case{index}.nii.gz", label * np.uint8(VALUE), affine)
    document = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "hippocampus": VALUE}}
    (root / "dataset.json").write_text(json.dumps(document))
    return root


@pytest.fixture(scope="module")
def run_folder(study, tmp_path_factory):
    """One tiny finished run on `study`."""
    out = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CACHE", out.parent / "cache"), ("WORKERS", 1), ("DEVICE", "cpu")):
            patch.setenv(f"SEMISEG_{name}", str(value))
        words = ("train", study, "--out", out, "--method", "equireg", "--labelled", "2", "--val", "1", "--test", "1")
        patch.setattr(sys, "argv", ["semiseg", *map(str, (*words, *TINY))])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return out


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def one_message(err):
    """The only line that an error leaves, without a traceback."""
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert err.rstrip().endswith(line)
    return line


# help


def test_help_of_every_command_imports_nothing_heavy():
    code = f"""
import sys
from semiseg.cli import main
for command in [None, *{COMMANDS}]:
    sys.argv = ["semiseg", *([command] if command else []), "--help"]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, command
heavy = {{"torch", "monai", "pandas", "scipy", "numpy", "matplotlib", "nibabel"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("--labelled", "--probabilities", "--tolerance-mm", "--json", "--split-seed"):
        assert name in done.stdout


def test_every_command_is_listed_here():
    assert tuple(command.name or command.callback.__name__ for command in app.registered_commands) == COMMANDS


def test_help_takes_at_most_three_times_as_long_as_importing_typer():
    """Processor time, the best of five: the machine may be busy with something else."""

    def seconds(*arguments):
        best = float("inf")
        for _ in range(5):
            process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0
            best = min(best, usage.ru_utime + usage.ru_stime)
        return best

    assert seconds("-m", "semiseg.cli", "--help") <= 3 * seconds("-c", "import typer")


# mistakes


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["check", "nowhere"], 3, ["nowhere: got no such file or folder", "check the path"]),
        (["check", "DATA", "--layout", "plian"], 2, ["--layout: got 'plian'", "did you mean 'plain'?"]),
        (["train", "DATA", "--out", "OUT", "--method", "raom"], 2, ["--method: got 'raom'", "roam"]),
        (["train", "DATA", "--out", "OUT", "--set", "training.stesp=3"], 2, ["training.stesp", "'steps'"]),
        (
            ["train", "DATA", "--out", "OUT", "--method", "roam", "--set", "method.alhpa=1"],
            2,
            ["method.alhpa: unknown setting; did you mean 'alpha'?"],
        ),
        (["train", "DATA", "--out", "OUT", "--set", "plan.batsh=3"], 2, ["plan.batsh", "did you mean 'batch'?"]),
        (["train", "DATA", "--out", "OUT", "--set", "alpha"], 2, ["--set: got 'alpha', expected key=value"]),
        (["train", "DATA", "--out", "OUT", "--set", "alpha=[1"], 2, ["--set alpha: got '[1', expected a YAML value"]),
        (["train", "DATA", "--out", "OUT", "--labelled", "40"], 2, ["--labelled: got '40'", "at most 5"]),
        (["train", "DATA", "--out", "OUT", "--labelled", "few"], 2, ["--labelled: got 'few'", "10%"]),
        (["train", "DATA", "--out", "OUT", "--precision", "8"], 2, ["training.precision: got '8'", "'bf16'"]),
        (["train", "DATA", "--out", "OUT", "--dims", "4"], 2, ["dims: got '4'", "'auto'"]),
        (["train", "DATA", "--out", "OUT", "--config", "no.yaml"], 2, ["--config no.yaml", "YAML file of settings"]),
        (["train", "DATA", "--out", "OUT", "--plan", "no.json"], 3, ["no.json", "make one with `semiseg plan`"]),
        (["predict", "DATA", "--out", "OUT"], 2, ["got one path", "name both"]),
        (["predict", "DATA", "DATA", "--out", "OUT"], 3, ["got no model.json", "check the path"]),
        (["predict", "RUN", "nowhere", "--out", "OUT"], 3, ["nowhere: got no such file or folder"]),
        (["predict", "RUN", "DATA", "--out", "OUT", "--checkpoint", "first"], 2, ["'first'", "best, last"]),
        (["predict", "RUN/model", "DATA", "--out", "OUT", "--checkpoint", "best"], 3, ["expected a run"]),
        (["evaluate", "nowhere", "DATA", "--out", "OUT"], 3, ["nowhere: got no such folder"]),
        (["evaluate", "DATA/labels", "nowhere", "--out", "OUT"], 3, ["nowhere: got no such file or folder"]),
        (["evaluate", "DATA/labels", "DATA", "--out", "OUT", "--tolerance-mm", "-1"], 2, ["tolerance_mm: got -1.0"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_message_and_its_exit_code(semiseg, study, run_folder, tmp_path, words, code, parts):
    places = {"DATA": str(study), "RUN": str(run_folder), "OUT": str(tmp_path / "out")}
    for key, place in places.items():
        words = [place + word.removeprefix(key) if word.split("/")[0] == key else word for word in words]
    exit_code, _, err = semiseg(*words)
    assert exit_code == code, err
    message = one_message(err)
    for part in parts:
        assert part in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("command", ["train", "predict"])
def test_a_device_that_is_not_there(semiseg, study, run_folder, tmp_path, command):
    words = ["train", study, *TINY] if command == "train" else ["predict", run_folder, study]
    code, _, err = semiseg(*words, "--out", tmp_path / "out", "--device", "cuda")
    assert code == 2
    assert "--device: got 'cuda'" in one_message(err)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["train", "somewhere"], "--out"),
        (["train", "somewhere", "--out", "run", "--steps", "many"], "--steps"),
        (["train", "somewhere", "--out", "run", "--labeled", "4"], "--labelled"),
        (["check"], "data"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_the_flags_exits_2_without_a_traceback(semiseg, words, part):
    code, out, err = semiseg(*words)
    assert code == 2
    assert part.lower() in err.lower()
    assert "Traceback" not in err
    assert out == ""


def test_ctrl_c_exits_130(semiseg, study, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("semiseg.data.check.check_dataset", interrupted)
    assert semiseg("check", study)[0] == 130


def test_memory_that_runs_out_says_what_to_lower(semiseg, study, monkeypatch):
    def exhausted(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("semiseg.experiment.fit", exhausted)
    code, _, err = semiseg("train", study, "--out", study / "never", "--labelled", "2", *TINY)
    assert code == 6
    assert "lower --memory-gb" in err


# settings


def resolved(semiseg, *words):
    code, out, err = semiseg("train", "somewhere", "--out", "nowhere", "--dry-run", *words)
    assert code == 0, err
    return yaml.safe_load(out)


def test_flags_win_over_set_over_configuration_over_defaults(semiseg, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("training: {steps: 7, lr: 0.5}\nmethod: {name: roam, alpha: 0.9, weight: 3}\nseed: 4\n")
    values = resolved(
        *(semiseg, "--config", config, "--set", "training.steps=8", "--set", "method.alpha=0.3", "--steps", "9"),
        *("--seed", "5"),
    )
    assert values["training"]["steps"] == 9
    assert values["training"]["lr"] == 0.5
    assert (values["method"]["name"], values["method"]["alpha"], values["method"]["weight"]) == ("roam", 0.3, 3)
    assert values["seed"] == 5
    assert values["data"]["path"] == "somewhere"
    assert values["training"]["clip"] == 12.0
    assert resolved(semiseg, "--config", config, "--set", "training.steps=8")["training"]["steps"] == 8
    assert resolved(semiseg, "--config", config)["training"]["steps"] == 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_flag_wins_over_the_environment(semiseg, study, run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMISEG_DEVICE", "cuda")
    scan = study / "images" / "case0.nii.gz"
    assert semiseg("predict", run_folder, scan, "--out", tmp_path / "out")[0] == 2
    assert semiseg("predict", run_folder, scan, "--out", tmp_path / "out", "--device", "cpu")[0] == 0


def test_a_saved_configuration_gives_the_same_settings_again(semiseg, run_folder):
    saved = yaml.safe_load((run_folder / "config.yaml").read_text())
    code, out, err = semiseg(
        "train", saved["data"]["path"], "--out", "nowhere", "--dry-run", "--config", run_folder / "config.yaml"
    )
    assert code == 0, err
    assert yaml.safe_load(out) == saved


# the whole path


def test_check_says_what_there_is(semiseg, study):
    code, out, _ = semiseg("check", study)
    assert code == 0
    assert out.splitlines()[-1] == f"{study}: cases: 5 labelled, 2 unlabelled, 0 left out; training can start"
    code, out, _ = semiseg("check", study, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["can_train"] is True
    assert {"case5", "case6"} == {one["case"] for one in report["findings"]}


def test_a_broken_dataset_exits_3(semiseg, plain_cohort):
    root = plain_cohort(labelled=2)
    for path in (root / "labels").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    code, out, _ = semiseg("check", root)
    assert code == 3
    assert out.splitlines()[-1].endswith("2 left out; training cannot start")
    assert json.loads(semiseg("check", root, "--json")[1])["can_train"] is False
    code, _, err = semiseg("train", root, "--out", root / "run", "--quiet")
    assert code == 3
    assert err.startswith(f"error: {root / 'labels'}")
    assert err.endswith("training cannot start; see the lines above\n")
    assert not (root / "run").exists()


def test_plan_writes_a_plan_that_train_and_prepare_take(semiseg, study, tmp_path):
    sets = TINY[TINY.index("plan.patch=[8,8]") - 1 :]
    plan = tmp_path / "plan.json"
    code, out, err = semiseg("plan", study, "--out", plan, "--dims", "2", *sets)
    assert code == 0, err
    assert out.startswith(f"{plan}: ")
    edited = json.loads(plan.read_text())
    plan.write_text(json.dumps({**edited, "overlap": 0.25}))
    flags = ("--plan", plan, "--labelled", "2", "--test", "1")
    code, out, err = semiseg("prepare", study, *flags)
    assert code == 0, err
    assert out.startswith("6 cases prepared")  # of seven, one is a test scan
    code, _, err = semiseg(
        "train", study, "--out", tmp_path / "run", *flags, "--steps", "1", "--set", "training.tensorboard=false"
    )
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["overlap"] == 0.25


def test_predictions_have_the_geometry_of_their_scans_file_by_file(semiseg, study, run_folder, tmp_path):
    code, out, err = semiseg("predict", run_folder, study, "--out", tmp_path / "out", "--probabilities")
    assert code == 0, err
    assert out == f"{tmp_path / 'out'}: 7 predicted, 0 already there\n"
    for scan in sorted((study / "images").iterdir()):
        source, made = nib.load(scan), nib.load(tmp_path / "out" / scan.name)
        assert made.shape == source.shape
        np.testing.assert_array_equal(made.affine, source.affine)
        assert made.header.get_zooms() == source.header.get_zooms()
        assert set(np.unique(np.asarray(made.dataobj))) <= {0, VALUE}
        probability = nib.load(tmp_path / "out" / scan.name.replace(".nii.gz", "_prob.nii.gz"))
        assert probability.shape == (*source.shape, 2)
        np.testing.assert_array_equal(probability.affine, source.affine)
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == {"background": 0, "hippocampus": VALUE}


def test_predicting_again_skips_and_overwrite_does_not(semiseg, study, run_folder, tmp_path):
    def predict(*more):
        code, out, err = semiseg("predict", run_folder, study / "images", "--out", tmp_path, "--json", *more)
        assert code == 0, err
        made = json.loads(out)
        return len(made["done"]), len(made["skipped"]), len(made["failed"])

    assert predict() == (7, 0, 0)
    before = (tmp_path / "case0.nii.gz").stat().st_mtime_ns
    (tmp_path / "case6.nii.gz").unlink()
    assert predict() == (1, 6, 0)
    assert (tmp_path / "case0.nii.gz").stat().st_mtime_ns == before
    assert predict("--overwrite") == (7, 0, 0)
    assert (tmp_path / "case0.nii.gz").stat().st_mtime_ns > before


def test_only_the_test_scans_of_a_run_then_their_scores(semiseg, study, run_folder, tmp_path):
    code, _, err = semiseg(
        "predict", run_folder, study, "--out", tmp_path / "out", "--cases", run_folder / "splits.json"
    )
    assert code == 0, err
    (test,) = json.loads((run_folder / "splits.json").read_text())[0]["test"]
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == [f"{test}.nii.gz"]
    code, out, err = semiseg("evaluate", tmp_path / "out", study, "--out", tmp_path / "scores")
    assert code == 0, err
    header, row, mean = out.splitlines()
    assert header.split() == ["class", "cases", "Dice", "HD95", "mm", "ASSD", "mm"]
    assert row.split()[:2] == ["hippocampus", "1"]
    assert mean.startswith("mean over classes")
    (line,) = rows_of(tmp_path / "scores" / "metrics.csv")
    assert (line["case"], line["class"], line["value"]) == (test, "hippocampus", str(VALUE))
    assert row.split()[2] == f"{float(line['dice']):.3f}"


def test_evaluating_the_truth_against_itself_is_perfect_and_prints_json(semiseg, study, tmp_path):
    code, out, err = semiseg("evaluate", study / "labels", study, "--out", tmp_path / "scores", "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary == json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["classes"]["hippocampus"]["dice"]["mean"] == 1
    assert summary["classes"]["hippocampus"]["n"] == 5


def test_a_bad_file_among_the_scans_does_not_stop_the_others(semiseg, study, run_folder, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("case0", "case1", "case2"):
        content = (study / "images" / f"{name}.nii.gz").read_bytes()
        (scans / f"{name}.nii.gz").write_bytes(content[:200] if name == "case1" else content)
    code, out, _ = semiseg("predict", run_folder, scans, "--out", tmp_path / "out")
    assert code == 4
    assert out == f"{tmp_path / 'out'}: 2 predicted, 0 already there, 1 failed (see failed.csv)\n"
    (failed,) = rows_of(tmp_path / "out" / "failed.csv")
    assert failed["case"] == "case1"
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["case0.nii.gz", "case2.nii.gz"]
    # the case that failed is missing from the scores, and counts
    code, out, _ = semiseg("evaluate", tmp_path / "out", study, "--out", tmp_path / "scores", "--json")
    assert code == 4
    assert json.loads(out)["cases"]["missing"] == 1
    rows = {row["case"]: row for row in rows_of(tmp_path / "scores" / "metrics.csv")}
    assert (rows["case1"]["state"], float(rows["case1"]["dice"]), rows["case1"]["hd95_mm"]) == ("missing", 0.0, "")


def test_a_finished_run_is_left_alone_and_other_settings_are_refused(semiseg, study, run_folder):
    words = ("train", study, "--out", run_folder, "--method", "equireg", "--labelled", "2", "--val", "1", *TINY)
    code, _, err = semiseg(*words, "--test", "1")
    assert code == 0
    assert "already finished; nothing to do" in err
    code, _, err = semiseg(*words, "--test", "1", "--quiet")
    assert (code, err) == (0, "")
    code, _, err = semiseg(*words)
    assert code == 2
    assert "data.test: '1' -> None" in one_message(err)


@pytest.mark.xfail(strict=True, reason="settings that are words refuse what YAML reads as a number")
def test_numbers_are_accepted_where_words_are_expected(semiseg, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("data: {labelled: 4, val: 0.1}\ndims: 2\ntraining: {precision: 32}\n")
    values = resolved(semiseg, "--config", config, "--method", "roam", "--set", "method.layers=[input, 1]")
    assert (values["data"]["labelled"], values["data"]["val"], values["dims"]) == ("4", "0.1", "2")
    assert values["method"]["layers"] == ["input", "1"]
    assert resolved(semiseg, "--method", "roam", "--set", "method.preset=2020")["method"]["mix_skips"] is False


# real scans


@pytest.mark.realdata
def test_freesurfer_values_come_back_on_real_label_maps(semiseg, real_data, tmp_path):
    data = real_data / "wholebrain"
    words = ("train", data, "--out", tmp_path / "run", "--labelled", "2", "--test", "13", *TINY)
    code, _, err = semiseg(*words, "--set", "plan.patch=[32,32]")
    assert code == 0, err
    scan = sorted((data / "images").iterdir())[0]
    code, _, err = semiseg("predict", tmp_path / "run", scan, "--out", tmp_path / "out")
    assert code == 0, err
    source, made = nib.load(scan), nib.load(tmp_path / "out" / scan.name)
    assert made.shape == source.shape
    np.testing.assert_array_equal(made.affine, source.affine)
    known = json.loads((tmp_path / "out" / "labels.json").read_text()).values()
    assert {17, 53} <= set(known)
    assert set(np.unique(np.asarray(made.dataobj))) <= set(known)
