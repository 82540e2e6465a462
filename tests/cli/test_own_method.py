"""A method of one's own in every command that trains, and in no other."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from support.bench_grid import InProcess, write_balls
from support.command_line import TINY, semiseg
from support.own_method import SOURCE, write_method

from semiseg import METHODS
from semiseg.methods.own import BUILT_IN, OWN

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_method.py"
SPLIT = ("--labelled", "2", "--val", "1", "--test", "1")
pytestmark = pytest.mark.usefixtures("one_core")


def forget():
    """As in a process that has just started."""
    OWN.clear()
    for name in METHODS.keys() - BUILT_IN:
        del METHODS[name]


def fresh(*words):
    forget()
    return semiseg(*words)


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(said, *words):
    code, _, err = fresh(*words)
    assert code == 2, err
    assert "Traceback" not in err
    assert re.search(said, err.splitlines()[-1]), err
    return err


# train


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory):
    """A finished run of a method of one's own, and its file."""
    root = tmp_path_factory.mktemp("own")
    path = write_method(root / "code")
    words = ("train", study, "--out", root / "run", "--method", f"{path}:Mine", *SPLIT, *TINY)
    names = {"SEMISEG_CACHE": str(root / "cache"), "SEMISEG_WORKERS": "1", "SEMISEG_DEVICE": "cpu"}
    with patch.dict("os.environ", names), patch.dict(METHODS), patch.dict(OWN):
        code, _, err = semiseg(*words, "--set", "method.alpha=.3")
    assert code == 0, err
    return root / "run", path


@pytest.fixture
def unfinished(trained, tmp_path):
    """The run as it was before it ended, and the command line that it began with."""
    run, path = tmp_path / "run", tmp_path / "my_method.py"
    shutil.copytree(trained[0], run)
    shutil.copy(trained[1], path)
    (run / "result.json").unlink()
    shutil.rmtree(run / "model")

    def train(study, *method, resume=True, settings=("--set", "method.alpha=.3")):
        words = ("train", study, "--out", run, *SPLIT, *TINY, *settings, *method)
        return (*words, "--resume") if resume else words

    return run, path, train


def test_a_run_keeps_the_name_of_the_class_and_the_hash_of_its_file_and_no_path(trained):
    run, path = trained
    kept = yaml.safe_load((run / "config.yaml").read_text())["method"]
    assert (kept["name"], kept["file_sha256"], kept["alpha"]) == ("Mine", sha256_of(path), 0.3)
    assert json.loads((run / "model" / "model.json").read_text())["settings"]["method"] == kept
    for file in (run / "config.yaml", run / "model" / "model.json", run / "result.json"):
        assert path.name not in file.read_text()
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_a_dry_run_prints_the_settings_without_a_path(tmp_path):
    path = write_method(tmp_path)
    words = ("train", "scans", "--out", "run", "--dry-run", "--recipe", "malc-roam-semi", "--method", f"{path}:Mine")
    code, out, err = semiseg(*words)
    assert code == 0, err
    kept = yaml.safe_load(out)["method"]
    assert kept["name"] == "Mine"
    assert kept["file_sha256"] == sha256_of(path)
    assert kept["alpha"] == 1.0  # and nothing of the recipe's method
    assert "my_method.py" not in out


def test_an_unknown_setting_is_refused_with_a_suggestion(tmp_path):
    method = ("--method", f"{write_method(tmp_path)}:Mine", "--set", "method.alhpa=1")
    refused("method.alhpa: unknown setting; did you mean 'alpha'", "train", "scans", "--out", "run", *method)


def test_a_resume_with_the_same_file_goes_on_wherever_the_file_is(unfinished, study, tmp_path):
    run, path, train = unfinished
    path = path.rename(tmp_path / "moved.py")
    refused("got an unfinished run; go on with --resume", *train(study, "--method", f"{path}:Mine", resume=False))
    code, _, err = fresh(*train(study, "--method", f"{path}:Mine"))
    assert code == 0, err
    assert (run / "model" / "model.json").exists()
    code, _, err = fresh(*train(study, "--method", f"{path}:Mine", "--config", run / "config.yaml"))
    assert code == 0, err
    assert "already finished" in err


def test_a_resume_without_the_file_or_with_another_says_what_to_give(unfinished, study):
    run, path, train = unfinished
    sha256 = sha256_of(path)
    begun = rf"Mine of a file with SHA-256 {sha256}, which it was begun with; say --method FILE:Mine with that file"
    refused(rf"{run}: got supervised, expected {begun}", *train(study, settings=()))
    refused(rf"{run}: got equireg, expected {begun}", *train(study, "--method", "equireg", settings=()))
    config = ("--config", run / "config.yaml")
    refused(rf"method: got Mine without its file, expected the file with SHA-256 {sha256}; say", *train(study, *config))
    path.write_text(SOURCE.replace("1.0", "2.0"))
    other = rf"got Mine of a file with SHA-256 {sha256_of(path)}, expected {begun}"
    refused(other, *train(study, "--method", f"{path}:Mine"))
    refused(rf"expected {sha256}, as method.file_sha256 says", *train(study, *config, "--method", f"{path}:Mine"))
    assert not (run / "model").exists()


def test_settings_never_lead_to_an_import(tmp_path, study):
    path = write_method(tmp_path, "raise RuntimeError('it was run')")
    said = rf"method.name: got '{path}:Mine', expected a name: .*; say --method {path}:Mine"
    start = ("train", study, "--out", tmp_path / "run")
    refused(said, *start, "--set", f"method.name={path}:Mine")
    refused(said, *start, "--set", f"method={path}:Mine")
    config = tmp_path / "mine.yaml"
    for text in (f"method: {path}:Mine", f"method: {{name: '{path}:Mine'}}"):
        config.write_text(text)
        refused(said, *start, "--config", config)
    config.write_text(f"method: {{name: Mine, file_sha256: {sha256_of(path)}}}")
    refused("method: got Mine without its file", *start, "--config", config)
    config.write_text(f"methods: {{mine: {{name: '{path}:Mine'}}}}")
    bench = ("bench", study, "--out", tmp_path / "bench", "--config", config, "--labelled", "2", "--test", "1")
    refused(rf"methods: mine: {said}", *bench)
    config.write_text(f"methods: {{mine: {{name: Mine, file_sha256: {sha256_of(path)}}}}}")
    refused(r"methods: mine: method: got Mine without its file, .* \(in a bench --methods NAME=FILE:Mine\)", *bench)


def test_a_mistake_in_the_file_is_one_message(tmp_path):
    path = write_method(tmp_path, "\nx = 1 / 0\n")
    start = ("train", "scans", "--out", tmp_path / "run", "--method")
    refused(
        rf"^error: {path}, line 2: got ZeroDivisionError: division by zero, .*; correct it$", *start, f"{path}:Mine"
    )
    refused(rf"^error: --method {path}: got no class, expected FILE:CLASS", *start, path)
    refused(r"^error: --method no.py:Mine: got 'No such file or directory', .*; check the path$", *start, "no.py:Mine")


# commands that use a model

AUDIT = """
import sys

seen = []
run, scans, out, method = sys.argv[1:]
sys.addaudithook(lambda event, arguments: seen.append(event) if method in map(str, arguments) else None)
from semiseg.cli import main

for words in (
    ("predict", run, scans, "--cases", f"{run}/splits.json", "--out", f"{out}/predicted"),
    ("rank", run, scans, "--cases", f"{run}/splits.json", "--out", f"{out}/ranked"),
    ("review", run, scans, "--count", "1", "--out", f"{out}/reviewed"),
    ("report", run, "--out", f"{out}/report.html"),
    ("export", run, "--out", f"{out}/exported"),
    ("layers", run),
    ("predict", f"{out}/exported", scans, "--cases", f"{run}/splits.json", "--out", f"{out}/again"),
):
    sys.argv = ["semiseg", *words]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, words
    print("done", words[0], file=sys.stderr)
assert not seen, seen
assert not any(name.startswith("semiseg_own") for name in sys.modules)
sys.argv = ["semiseg", "train", scans, "--method", f"{method}:Mine", "--out", f"{out}/run", "--dry-run"]
try:
    main()
except SystemExit as stop:
    assert stop.code == 2  # the file fails
assert {"open", "compile"} <= {*seen}  # so the hook would have seen it
"""


def test_commands_that_use_a_model_never_open_the_file(trained, study, tmp_path):
    run, path = trained
    kept = path.read_text()
    path.write_text("raise RuntimeError('it was run')")
    try:
        words = [sys.executable, "-c", AUDIT, str(run), str(study), str(tmp_path), str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    finally:
        path.write_text(kept)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done ") == 7


# bench

SMALL = (
    *("--labelled", "2", "--runs", "1", "--upper-runs", "0", "--test", "2", "--val", "1", "--device", "cpu"),
    *(word for word in TINY if word not in ("--precision", "32")),
)


class NewProcesses(InProcess):
    """Every job starts knowing nothing of what the bench has imported."""

    def __init__(self):
        super().__init__()
        self.commands = []

    def run(self, jobs):
        for job in jobs:
            self.commands.append(job.command)
            with patch.dict(METHODS), patch.dict(OWN):
                forget()
                yield from super().run([job])


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Runs a bench; returns exit code, output, errors, and the command lines of its jobs."""
    data = write_balls(tmp_path / "balls", labelled=7, unlabelled=1)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        forget()
        launcher = NewProcesses()
        with patch("semiseg.jobs.launchers.launcher_named", lambda *_, **__: launcher):
            made = semiseg("bench", data, "--out", tmp_path / "out", *SMALL, *words)
        return *made, launcher.commands

    return run


def test_a_bench_with_a_method_of_ones_own(bench, tmp_path):
    path, methods = write_method(tmp_path), ("--methods", "supervised,mine=my_method.py:Mine")
    sha256 = sha256_of(path)
    code, text, err, commands = bench(*methods, "--set", "methods.mine.alpha=.3")
    assert code == 0, err
    assert "mine, 2 labelled: too few runs to say" in text
    kept = yaml.safe_load((tmp_path / "out" / "bench.yaml").read_text())
    assert list(kept["methods"]) == ["supervised", "mine"]
    mine = kept["methods"]["mine"]
    assert (mine["name"], mine["file_sha256"], mine["alpha"]) == ("Mine", sha256, 0.3)
    supervised, own = commands
    given = ("--method", f"{path}:Mine", "--set", f"method.file_sha256={sha256}")
    assert any(own[k : k + 4] == given for k in range(len(own)))
    assert "--method" not in supervised
    for file in (tmp_path / "out").rglob("*.yaml"):
        assert "my_method" not in file.read_text(), file
    run = yaml.safe_load((tmp_path / "out" / "runs" / "mine-2-0" / "config.yaml").read_text())
    assert run["method"] == mine

    code, _, err, commands = bench(*methods, "--set", "methods.mine.alpha=.3")
    assert (code, commands) == (0, []), err
    begun = (
        f"Mine of a file with SHA-256 {sha256}, which it was begun with; say --methods mine=FILE:Mine with that file"
    )
    for more in (("--methods", "supervised"), ("--methods", "supervised,equireg", "--estimate")):
        code, _, err, commands = bench(*more)
        assert (code, commands) == (2, [])
        assert err.splitlines()[-1] == (
            f"error: {tmp_path / 'out'}: methods.mine: got none, expected {begun}, or choose another --out"
        )
    path.write_text(SOURCE.replace("1.0", "2.0"))
    code, _, err, commands = bench(*methods, "--set", "methods.mine.alpha=.3")
    assert (code, commands) == (2, [])
    assert f"got Mine of a file with SHA-256 {sha256_of(path)}, expected {begun}" in err


def test_a_file_that_is_edited_before_a_job_starts_is_refused(bench, tmp_path):
    path = write_method(tmp_path)
    run = NewProcesses.run

    def edited(self, jobs):
        path.write_text("raise RuntimeError('it was run')")
        return run(self, jobs)

    sha256 = sha256_of(path)
    with patch.object(NewProcesses, "run", edited):
        code, _, err, _ = bench("--methods", "mine=my_method.py:Mine")
    assert code == 4
    (line,) = [line for line in err.splitlines() if line.startswith("mine-2-0: failed")]
    assert f"exit status 2: error: --method {path}:Mine: got a file with SHA-256 {sha256_of(path)}, " in line
    assert f"expected {sha256}, as method.file_sha256 says; give the file as it was" in line


def test_an_estimate_times_it(bench, tmp_path):
    write_method(tmp_path)
    code, text, err, commands = bench("--methods", "mine=my_method.py:Mine", "--estimate")
    assert code == 0, err
    assert len(commands) == 2
    assert re.search(r"2 runs to do, 0 finished; .*mine [\d.e-]+ s a step", text)


def test_one_class_under_two_names_with_settings_of_a_file(bench, tmp_path):
    write_method(tmp_path)
    (tmp_path / "compare.yaml").write_text("methods: {mild: {alpha: .1}, strong: {name: Mine, alpha: 2}}")
    methods = "mild=my_method.py:Mine,strong=my_method.py:Mine"
    code, _, err, commands = bench("--config", "compare.yaml", "--methods", methods)
    assert code == 0, err
    assert len(commands) == 3
    kept = yaml.safe_load((tmp_path / "out" / "bench.yaml").read_text())["methods"]
    assert {name: each.get("alpha") for name, each in kept.items()} == {"supervised": None, "mild": 0.1, "strong": 2.0}


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (
            "my_method.py:Mine",
            "--methods: got 'my_method.py:Mine', expected NAME=FILE:CLASS; choose a NAME of your own",
        ),
        ("roam=my_method.py:Mine", "--methods: got 'roam=my_method.py:Mine', expected NAME=FILE:CLASS; choose a NAME"),
        ("mine=my_method.py", "--methods mine=my_method.py: got no class, expected FILE:CLASS; add the class"),
        ("mine=my_method.py:Mien", "--methods mine=my_method.py:Mien: got no class 'Mien' in the file, expected"),
        ("mine=roam", "--methods mine=roam: got no class, expected FILE:CLASS"),
        ("taken=my_method.py:Mine", "got class Mine, expected roam, as methods.taken.name says; choose another NAME"),
        ("hashed=my_method.py:Mine", "expected 12ab, as method.file_sha256 says; give the file as it was"),
        ("a b=my_method.py:Mine", "methods: got 'a b' for "),
        ("a=my_method.py:Mine,b=again/my_method.py:Mine", "got a second class Mine beside that of "),
    ],
)
def test_a_mistake_in_methods_is_one_message(bench, tmp_path, methods, said):
    write_method(tmp_path)
    write_method(tmp_path / "again", SOURCE + "\n")
    described = ("--set", "methods.taken={name: roam}", "--set", "methods.hashed={file_sha256: 12ab}")
    code, _, err, commands = bench("--methods", methods, *described)
    assert (code, commands) == (2, []), err
    assert said in err.splitlines()[-1]


# the example


def test_the_example_trains_by_its_name_and_predicts_without_its_file(study, tmp_path):
    path = shutil.copy(EXAMPLE, tmp_path / "example.py")
    words = ("train", study, "--out", tmp_path / "run", "--method", f"{path}:MeanTeacher", *SPLIT, *TINY)
    code, _, err = semiseg(*words, "--set", "method.noise=.1")
    assert code == 0, err
    assert METHODS.keys() - BUILT_IN == {"MeanTeacher"}
    Path(path).unlink()
    code, _, err = fresh("predict", tmp_path / "run", study / "images" / "case0.nii.gz", "--out", tmp_path / "out")
    assert code == 0, err


@pytest.mark.slow
def test_two_processes_import_it(study, tmp_path):
    path = write_method(tmp_path)
    start = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29519")
    words = ("-m", "semiseg.cli", "train", study, "--out", tmp_path / "run", "--method", f"{path}:Mine", *SPLIT, *TINY)
    subprocess.run(list(map(str, (*start, *words))), check=True)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["method"]["name"] == "Mine"
