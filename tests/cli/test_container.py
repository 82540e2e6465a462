"""The Dockerfile: a linter has nothing to say, and what it copies is not ignored.

Nothing is built here: what `make build` and `make connect` ask of docker or podman is recorded by a stand-in.
"""

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from semiseg.experiments.recipes import recipe_names

ROOT = Path(__file__).resolve().parents[2]


def test_the_linter_finds_nothing():
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_everything_that_is_copied_is_sent_to_the_build():
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    sources = {source for line in copied for source in line.split()}
    assert sources == {"constraints.txt", "pyproject.toml", "README.md", "LICENSE", "src"}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert sources == {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_runs_the_command_as_nobody_special():
    text = (ROOT / "Dockerfile").read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    assert 'ENTRYPOINT ["semiseg"]' in last_stage
    assert re.search(r"^USER (\d+)$", last_stage, re.M)[1] != "0"
    assert 'VOLUME ["/data", "/runs", "/cache"]' in last_stage


def test_the_cache_is_private():
    text = (ROOT / "Dockerfile").read_text()
    assert "mkdir --mode=0700 /cache" in text
    assert "chmod" not in text


def test_the_versions_are_those_that_were_tested():
    text = (ROOT / "Dockerfile").read_text()
    installs = re.findall(r"^RUN pip install (.*)$", text, re.M)
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in words for words in installs)


def test_there_is_a_line_for_every_recipe():
    page = (ROOT / "docs" / "container.md").read_text()
    for name in recipe_names():
        assert f"--recipe {name} " in page, name


@pytest.fixture
def made(tmp_path):
    """Runs `make` with nothing but stand-ins for some engines on PATH; the engine, its arguments, and what was said."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "mkdir", "realpath", "id"):
        (folder / tool).symlink_to(shutil.which(tool))
    record = tmp_path / "record"

    def run(*words, engines=("docker",)):
        for name in ("docker", "podman"):
            (folder / name).unlink(missing_ok=True)
        for name in engines:
            (folder / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" > "{record}"\n')
            (folder / name).chmod(0o755)
        record.unlink(missing_ok=True)
        command = [shutil.which("make"), "-C", ROOT, *words]
        environment = {"PATH": str(folder), "HOME": str(tmp_path / "my home")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, record.read_text().splitlines() if record.exists() else [], done.stderr

    return run


def test_make_build(made):
    assert made("build")[:2] == (0, ["docker", "build", "--tag=semiseg", "."])
    wheels_with_cuda = "--build-arg=TORCH_INDEX=https://pypi.org/simple"
    assert made("build", "GPU=0")[1] == ["docker", "build", "--tag=semiseg", wheels_with_cuda, "."]
    assert made("build", "IMAGE=mine:2", engines=["podman"])[1] == ["podman", "build", "--tag=mine:2", "."]
    assert made("build", engines=["podman", "docker"])[1][0] == "docker"
    assert made("build", "ENGINE=podman", engines=["podman", "docker"])[1][0] == "podman"


@pytest.mark.parametrize(
    ("engine", "gpu", "expected"),
    [
        ("docker", "", []),
        ("docker", "0", ["--gpus", '"device=0"', "--ipc", "host"]),
        ("docker", "0,2", ["--gpus", '"device=0,2"', "--ipc", "host"]),
        ("docker", "all", ["--gpus", "all", "--ipc", "host"]),
        ("podman", "", []),
        ("podman", "1", ["--device", "nvidia.com/gpu=1", "--ipc", "host"]),
        ("podman", "0,2", ["--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=2", "--ipc", "host"]),
        ("podman", "all", ["--device", "nvidia.com/gpu=all", "--ipc", "host"]),
    ],
)
def test_make_connect(made, tmp_path, engine, gpu, expected):
    data, runs = tmp_path / "my scans", tmp_path / "my runs"
    data.mkdir()
    code, words, said = made("connect", f"GPU={gpu}", f"DATA={data}", f"RUNS={runs}", engines=[engine])
    assert code == 0, said
    user = ["--user", f"{os.getuid()}:{os.getgid()}"] if engine == "docker" else ["--userns=keep-id"]
    assert words == [
        engine, "run", "--pull", "never", "--rm", "--interactive", "--tty", *user, *expected,
        "-v", f"{data}:/data:ro", "-v", f"{runs}:/runs", "-v", f"{tmp_path}/my home/.cache/semiseg:/cache",
        "--entrypoint", "bash", "semiseg",
    ]  # fmt: skip
    assert runs.is_dir()


@pytest.mark.parametrize("target", ["build", "connect"])
def test_make_says_what_is_missing(made, target):
    code, words, said = made(target, engines=[])
    assert code
    assert not words
    assert "make: got neither docker nor podman on PATH, expected one of them; install one, or name it" in said


def test_make_connect_wants_a_folder_of_scans(made, tmp_path):
    code, words, said = made("connect", f"DATA={tmp_path}/none", f"RUNS={tmp_path}/runs")
    assert code
    assert not words
    assert f"make: got no folder {tmp_path}/none, expected one with scans; name it as DATA=..." in said
