"""Memory stays below what is stated, however many scans there are; a process that is killed for memory is one message.

Peaks are of processes of their own, as the kernel counted them, in MB. The ceilings are those of docs/promises.md.
"""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.bench_grid import write_balls
from support.command_line import TINY, semiseg
from support.scans import write_nifti

from semiseg.data.batches import Batches

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel tells of the peak")

MEASURED = """
import sys
from semiseg.cli import main
sys.argv[0] = "semiseg"
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print("PEAK", int(peak) // 1024)
"""
TRAINED = ("--labelled", "1", "--test", "1", "--steps", "2", "--precision", "32", "--set", "training.tensorboard=false")
SMALL = (
    *("--set", "plan.network={widths: [2, 4], strides: [[2, 2, 2]]}", "--dims", "3", "--method", "roam"),
    *("--set", "plan.batch=1", "--set", "plan.unlabelled_batch=1", "--set", "plan.overlap=0"),
)
BYTES_A_VOXEL = 80
"""Of prediction and of evaluation, with two classes."""


def peak_mb(*words, cache):
    """Of a command that succeeds, in a process of its own with one thread and no worker."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SEMISEG_WORKERS": "1", "SEMISEG_DEVICE": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, words)],
        env={**environment, "SEMISEG_CACHE": str(cache)}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split("PEAK ")[1])


def write_scans(root, shape, count):
    """Ellipsoids in noise, uncompressed."""
    generator = np.random.default_rng(0)
    axes = np.indices(shape, dtype=np.float32, sparse=True)
    distance = sum(((axis - side / 2) / (side / 3)) ** 2 for axis, side in zip(axes, shape, strict=True))
    for index in range(count):
        noise = generator.standard_normal(shape, dtype=np.float32)
        write_nifti(root / "images" / f"case{index:02d}.nii", 100 * (distance < 1) + 20 + 5 * noise)
        write_nifti(root / "labels" / f"case{index:02d}.nii", (distance < 1).astype(np.uint8))
    return root


def peaks_of(root, out, patch):
    """Of training with a small network, of predicting every scan, of evaluation."""
    run, predictions, cache = out / "run", out / "predictions", out / "cache"
    return (
        peak_mb("train", root, "--out", run, *TRAINED, *SMALL, "--set", f"plan.patch={patch}", cache=cache),
        peak_mb("predict", run, root, "--out", predictions, cache=cache),
        peak_mb("evaluate", predictions, root, "--out", out / "scores", cache=cache),
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What the three commands take with three scans that are next to nothing."""
    place = tmp_path_factory.mktemp("alone")
    return peaks_of(write_scans(place / "scans", (48, 48, 48), 3), place, [16, 16, 16])


LARGE = (192, 192, 144)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return write_scans(tmp_path_factory.mktemp("large"), LARGE, 2)


@linux
@pytest.mark.slow
def test_training_takes_no_more_than_its_budget(alone, large, tmp_path):
    words = ("train", large, "--out", tmp_path / "run", *TRAINED, "--memory-gb", "1")
    assert peak_mb(*words, cache=tmp_path / "cache") - alone[0] <= 1000


@linux
@pytest.mark.slow
def test_prediction_and_evaluation_take_no_more_than_their_bytes_a_voxel(alone, large, tmp_path):
    _, predicting, evaluating = peaks_of(large, tmp_path, [96, 96, 72])
    most = BYTES_A_VOXEL * np.prod(LARGE) / 1e6
    assert predicting - alone[1] <= most
    assert evaluating - alone[2] <= most


@linux
@pytest.mark.slow
def test_a_larger_cohort_takes_no_more(alone, tmp_path):
    """Eight times the scans, of 110 000 voxels each: kept in memory they would be 10 MB for each array of them."""
    for few, many in zip(
        alone, peaks_of(write_scans(tmp_path / "scans", (48, 48, 48), 24), tmp_path, [16] * 3), strict=True
    ):
        assert many <= few + 10


class Deadly(Batches):
    """Whoever reads the third batch is killed, as the kernel does where memory ends."""

    def __getitem__(self, number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(number)


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_a_loader_that_is_killed_is_one_message_and_training_goes_on_after_it(tmp_path, monkeypatch):
    root = write_balls(tmp_path / "balls", labelled=4)
    longer = ("--steps", "6", "--set", "training.validate_every=1", "--quiet")
    words = ("train", root, "--out", tmp_path / "run", *TINY, *longer)
    with monkeypatch.context() as patched:
        patched.setattr("semiseg.training.stages.Batches", Deadly)
        patched.setattr("semiseg.experiments.experiment.loader_workers", lambda _: 2)
        started = time.monotonic()
        code, _, err = semiseg(*words)
    assert time.monotonic() - started < 120
    assert code == 6
    assert err == (
        "error: training: got a process that reads patches killed (usually for memory), expected it to live; "
        "lower plan.batch or patch, or leave more memory free, and go on with --resume\n"
    )
    code, _, err = semiseg(*words, "--resume")
    assert code == 0, err
