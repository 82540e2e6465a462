"""The same small comparison on other launchers, killed, and preempted: the same numbers to the last digit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import pytest
from support import slurm_cluster
from support.bench_grid import FLAGS, InProcess, write_balls
from support.command_line import semiseg

SMALL = (*FLAGS, "--labelled", "2", "--runs", "1", "--upper-runs", "0", "--steps", "40")
CHECKPOINTS = ("--set", "training.checkpoint_every=2", "--set", "training.validate_every=20")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return write_balls(tmp_path_factory.mktemp("balls") / "data")


@pytest.fixture(scope="module")
def undisturbed(balls, tmp_path_factory):
    """results.csv of a bench that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed")
    with (
        patch("semiseg.jobs.launchers.launcher_named", lambda *_, **__: InProcess()),
        patch.dict("os.environ", SEMISEG_CACHE=str(out / "cache"), SEMISEG_WORKERS="1"),
    ):
        code, _, err = semiseg("bench", balls, "--out", out / "bench", *SMALL, *CHECKPOINTS)
    assert code == 0, err
    text = (out / "bench" / "results.csv").read_text()
    assert len(text.splitlines()) > 20
    return text


def start(balls: Path, out: Path, *more: object, **environment: str) -> subprocess.Popen[bytes]:
    """The real command, in a process group of its own; its output goes to OUT.log."""
    words = (sys.executable, "-m", "semiseg.cli", "bench", balls, "--out", out, *SMALL, *CHECKPOINTS, *more)
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            list(map(str, words)),
            start_new_session=True,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "SEMISEG_WORKERS": "1", **environment},
        )


def finish(process, out):
    assert process.wait(600) == 0, out.with_suffix(".log").read_text()
    return (out / "results.csv").read_text()


@pytest.mark.parametrize("launcher", [("--launcher", "local", "--jobs", "2"), ("--launcher", "dask", "--jobs", "2")])
def test_processes_and_dask_give_the_same_numbers(launcher, balls, undisturbed, tmp_path):
    if "dask" in launcher:
        pytest.importorskip("distributed")
    assert finish(start(balls, tmp_path / "out", *launcher), tmp_path / "out") == undisturbed


def test_a_bench_killed_twice_ends_with_the_same_numbers(balls, undisturbed, tmp_path):
    """SIGKILL to everything that it started, at random moments after its runs have begun."""
    out, moments = tmp_path / "out", random.Random(3)
    for _ in range(2):
        process = start(balls, out)
        deadline = time.monotonic() + 300
        wanted = len(logged(out)) + 1
        while len(logged(out)) < wanted and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(moments.uniform(0, 2))
        assert process.poll() is None, "it ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert finish(start(balls, out), out) == undisturbed


def logged(out: Path) -> list[str]:
    """Lines in the logs of the runs: they grow while there is training."""
    return [line for path in out.glob("runs/*/metrics.jsonl") for line in path.read_text().splitlines()]


def test_a_bench_that_is_told_to_stop_tells_its_runs(balls, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = start(balls, out)
    while not list(out.glob("runs/*/checkpoints/last.safetensors")) and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(120) == 75
    said = out.with_suffix(".log").read_text()
    assert said.splitlines()[-1] == f"error: {out}: stopped; the same command goes on"
    assert (out / "results.csv").exists()
    with pytest.raises(ProcessLookupError):  # the group is empty: no run was left behind
        os.killpg(process.pid, 0)
    assert finish(start(balls, out), out) == undisturbed


@pytest.mark.slurm
@pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing())
def test_slurm_preempts_a_run_and_the_numbers_are_the_same(balls, undisturbed, tmp_path):
    out = tmp_path / "out"
    with slurm_cluster.cluster(tmp_path / "slurm") as environment:

        def asked(*words: str) -> str:
            return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout

        process = start(balls, out, "--launcher", "slurm", "--jobs", "1", "--slurm", "partition=low", **environment)
        while not list(out.glob("runs/*/checkpoints/last.safetensors")) and process.poll() is None:
            time.sleep(0.05)
        (number,) = {line.split("_")[0] for line in asked("squeue", "-h", "-p", "low", "-o", "%i").split()}
        asked("sbatch", "-p", "high", "-n", "2", "--output=/dev/null", "--wrap", "sleep 2")
        until = time.monotonic() + 60
        while "Restarts=1" not in asked("scontrol", "show", "job", number):
            assert time.monotonic() < until, asked("scontrol", "show", "job", number)
            time.sleep(0.2)
        assert finish(process, out) == undisturbed
    logs = "".join(path.read_text() for path in (out / "logs").glob("*.log"))
    assert "stopped at step" in logs  # it was training, and saved a checkpoint
    assert json.loads((out / "bench.json").read_text())["failed"] == {}
