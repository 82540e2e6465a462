"""The command line itself: help, flags and settings, and what a mistake leaves behind."""

import os
import subprocess
import sys

import pytest
import torch
import yaml
from support.command_line import TINY, semiseg

from semiseg.cli import app

COMMANDS = (
    *("check", "plan", "prepare", "train", "predict", "evaluate", "bench", "rank", "review", "report"),
    *("simulate", "export", "layers", "demo"),
)


pytestmark = pytest.mark.usefixtures("one_core")


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
        (
            ["train", "DATA", "--out", "OUT", "--set", "seed=2001-99-99"],
            2,
            ["--set seed: got '2001-99-99', expected a"],
        ),
        (["train", "DATA", "--out", "OUT", "--set", f"seed={'1' * 6000}"], 2, ["--set seed: got '111", "a YAML value"]),
        (["train", "DATA", "--out", "OUT", "--set", f"a={'[' * 9000}"], 2, ["--set a: got '[[[[", "a YAML value"]),
        (["train", "DATA", "--out", "OUT", "--set", "seed=!!bool x"], 2, ["--set seed: got '!!bool x', expected a"]),
        (
            ["train", "DATA", "--out", "OUT", "--set", "unlabelled_ratio=.inf"],
            2,
            ["--set unlabelled_ratio: got '.inf'"],
        ),
        (["train", "DATA", "--out", "OUT", "--set", 'init="\\ud800"'], 2, ["--set init: got", "expected a YAML value"]),
        (["train", "DATA", "--out", "OUT", "--memory-gb", "inf"], 2, ["memory_gb: got inf", "a finite number"]),
        (["train", "DATA", "--out", "OUT", "--memory-gb", "1e9"], 2, ["memory_gb: got 1000000000.0", "100000"]),
        (["train", "DATA", "--out", "OUT", "--set", "plan.batch=1000000000"], 2, ["plan.batch: got 1000000000"]),
        (
            ["train", "DATA", "--out", "OUT", "--set", "plan.batch=100000", "--set", "plan.patch=[16,16,16]"],
            2,
            ["plan.memory_gb: got 8 for patch (16, 16, 16), batch 100000", "expected at least", "--memory-gb"],
        ),
        (["train", "DATA", "--out", "OUT", "--set", "plan.unlabelled_batch=1e300"], 2, ["plan.unlabelled_batch: got"]),
        (["train", "DATA", "--out", "OUT", "--set", "plan.network=5"], 2, ["plan.network: got 5"]),
        (["train", "DATA", "--out", "OUT", "--set", "plan.network=null"], 2, ["plan.network: got None"]),
        (["train", "DATA", "--out", "OUT", "--set", "method.name=[1]"], 2, ["--method: got '[1]', expected one of"]),
        (["train", "DATA", "--out", "OUT", "--fold", "1/" + "9" * 5000], 2, ["--fold: got '1/999", "expected K/N"]),
        (["train", "DATA", "--out", "OUT", "--labelled", "l" * 300], 2, ["--labelled: got 'lll", "no such file"]),
        (["check", "d" * 5000], 3, ["ddd: got no such file or folder"]),
        (["predict", "m" * 5000, "DATA", "--out", "OUT"], 2, ["mmm...: got a path of 5000 bytes", "shorten it"]),
        (["predict", "RUN", "DATA", "--out", "OUT/" + "o" * 300], 2, ["ooo...: got a path of", "the disk takes"]),
        (["predict", "RUN", "DATA", "--out", "OUT", "--device", "meta"], 2, ["--device: got 'meta'"]),
        (["predict", "RUN", "DATA", "--out", "OUT", "--shard", "1/" + "9" * 5000], 2, ["--shard: got '1/999"]),
        (["train", "DATA", "--out", "OUT", "--labelled", "40"], 2, ["--labelled: got '40'", "at most 5"]),
        (["train", "DATA", "--out", "OUT", "--labelled", "few"], 2, ["--labelled: got 'few'", "10%"]),
        (["train", "DATA", "--out", "OUT", "--precision", "8"], 2, ["training.precision: got '8'", "'bf16'"]),
        (["train", "DATA", "--out", "OUT", "--dims", "4"], 2, ["dims: got '4'", "'auto'"]),
        (["train", "DATA", "--out", "OUT", "--config", "no.yaml"], 2, ["--config no.yaml", "YAML file of settings"]),
        (["train", "DATA", "--out", "OUT", "--plan", "no.json"], 3, ["no.json", "make one with `semiseg plan`"]),
        (["predict", "DATA", "--out", "OUT"], 2, ["got only DATA", "name both"]),
        (["predict", "scan.nii.gz", "b.nii", "--out", "OUT"], 2, ["got only scan.nii.gz", "name both"]),
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
def test_a_mistake_is_one_message_and_its_exit_code(study, run_folder, tmp_path, words, code, parts):
    places = {"DATA": str(study), "RUN": str(run_folder), "OUT": str(tmp_path / "out")}
    for key, place in places.items():
        words = [place + word.removeprefix(key) if word.split("/")[0] == key else word for word in words]
    exit_code, _, err = semiseg(*words)
    assert exit_code == code, err
    message = one_message(err)
    for part in parts:
        assert part.replace("DATA", str(study)) in message


@pytest.mark.parametrize(
    "words", [["evaluate", "DATA/labels", "DATA"], ["predict", "RUN", "DATA"], ["rank", "RUN", "DATA"]]
)
def test_a_circle_of_links_as_out(study, run_folder, tmp_path, words):
    (tmp_path / "out").symlink_to(tmp_path / "there")
    (tmp_path / "there").symlink_to(tmp_path / "out")
    words = [word.replace("DATA", str(study)).replace("RUN", str(run_folder)) for word in words]
    code, _, err = semiseg(*words, "--out", tmp_path / "out")
    assert code == 2
    assert str(tmp_path) in one_message(err)


@pytest.mark.parametrize(
    "words",
    [
        ("check", "caf\udce9"),
        ("predict", "RUN", "caf\udce9.nii.gz", "--out", "OUT"),
        ("predict", "RUN", "DATA", "--out", "OUT/\udce9"),
        ("export", "RUN", "--out", "OUT", "--licence", "\ud800"),
        ("export", "RUN", "--out", "OUT", "--description", "caf\udce9"),
        ("train", "DATA", "--out", "OUT", "--set", "init=\udce9"),
    ],
)
def test_words_that_are_not_utf8_are_refused_at_once(study, run_folder, tmp_path, words):
    places = {"DATA": str(study), "RUN": str(run_folder), "OUT": str(tmp_path / "out")}
    code, _, err = semiseg(*[places.get(word, word.replace("OUT", str(tmp_path))) for word in words])
    assert code == 3
    assert "which is not UTF-8, expected text that is" in one_message(err)
    assert one_message(err).isascii()
    assert not list(tmp_path.iterdir())


def test_a_working_folder_that_is_not_utf8(study, tmp_path, monkeypatch):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    code, _, err = semiseg("check", study)
    assert code == 3
    assert "caf\\udce9', which is not UTF-8" in one_message(err)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("command", ["train", "predict"])
def test_a_device_that_is_not_there(study, run_folder, tmp_path, command):
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
        (["check", "somewhere", "--workers", "0"], "--workers"),
        (["check"], "data"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_the_flags_exits_2_without_a_traceback(words, part):
    code, out, err = semiseg(*words)
    assert code == 2
    assert part.lower() in err.lower()
    assert "Traceback" not in err
    assert out == ""


def test_ctrl_c_exits_130(study, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("semiseg.data.check.check_dataset", interrupted)
    assert semiseg("check", study)[0] == 130


def test_a_place_that_cannot_be_written_to(study, run_folder, tmp_path):
    (tmp_path / "taken").write_text("")
    code, _, err = semiseg("predict", run_folder, study / "images", "--out", tmp_path / "taken" / "out", "--quiet")
    assert code == 2
    assert "expected a place to write to; choose another --out" in one_message(err)
    code, _, err = semiseg("predict", run_folder, study / "images", "--out", tmp_path / ("x" * 300), "--quiet")
    assert code == 2
    assert "xxx...: got a path of" in one_message(err)


def test_memory_that_runs_out_says_what_to_lower(study, tmp_path, monkeypatch):
    def exhausted(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("semiseg.experiments.experiment.fit", exhausted)
    code, _, err = semiseg("train", study, "--out", tmp_path / "run", "--labelled", "2", *TINY)
    assert code == 6
    assert "lower --memory-gb" in err


# settings


def resolved(*words):
    code, out, err = semiseg("train", "somewhere", "--out", "nowhere", "--dry-run", *words)
    assert code == 0, err
    return yaml.safe_load(out)


def test_flags_win_over_set_over_configuration_over_defaults(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("training: {steps: 7, lr: 0.5}\nmethod: {name: roam, alpha: 0.9, weight: 3}\nseed: 4\n")
    values = resolved(
        *("--config", config, "--set", "training.steps=8", "--set", "method.alpha=0.3", "--steps", "9"),
        *("--seed", "5"),
    )
    assert values["training"]["steps"] == 9
    assert values["training"]["lr"] == 0.5
    assert (values["method"]["name"], values["method"]["alpha"], values["method"]["weight"]) == ("roam", 0.3, 3)
    assert values["seed"] == 5
    assert values["data"]["path"] == "somewhere"
    assert values["training"]["clip"] == 12.0
    assert resolved("--config", config, "--set", "training.steps=8")["training"]["steps"] == 8
    assert resolved("--config", config)["training"]["steps"] == 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_flag_wins_over_the_environment(study, run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMISEG_DEVICE", "cuda")
    scan = study / "images" / "case0.nii.gz"
    assert semiseg("predict", run_folder, scan, "--out", tmp_path / "out")[0] == 2
    assert semiseg("predict", run_folder, scan, "--out", tmp_path / "out", "--device", "cpu")[0] == 0


def test_a_saved_configuration_gives_the_same_settings_again(run_folder):
    saved = yaml.safe_load((run_folder / "config.yaml").read_text())
    code, out, err = semiseg(
        "train", saved["data"]["path"], "--out", "nowhere", "--dry-run", "--config", run_folder / "config.yaml"
    )
    assert code == 0, err
    assert yaml.safe_load(out) == saved


def test_numbers_are_accepted_where_words_are_expected(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("data: {labelled: 4, val: 0.1}\ndims: 2\ntraining: {precision: 32}\n")
    values = resolved("--config", config, "--method", "roam", "--set", "method.layers=[input, 1]")
    assert (values["data"]["labelled"], values["data"]["val"], values["dims"]) == ("4", "0.1", "2")
    assert values["method"]["layers"] == ["input", "1"]
    assert resolved("--method", "roam", "--set", "method.preset=2020")["method"]["mix_skips"] is False


def test_a_slash_that_completion_adds_is_not_another_setting(tmp_path):
    code, out, err = semiseg("train", f"{tmp_path}/", "--out", tmp_path / "run", "--dry-run")
    assert code == 0, err
    assert yaml.safe_load(out)["data"]["path"] == str(tmp_path)
