"""The loop: exact resume, termination, divergence, two processes. Tiny networks on simulated balls."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from support.runs import PLAN, settings_of
from support.scans import ball, write_nifti

from semiseg.data.batches import Batches
from semiseg.data.plan import Plan
from semiseg.devices import chosen_precision
from semiseg.errors import Diverged, Preempted, UserError
from semiseg.experiments.experiment import prepare_dataset, train_run
from semiseg.experiments.run_settings import RunSettings
from semiseg.models.model import load_model
from semiseg.runs.checkpoint import read_checkpoint
from semiseg.runs.folder import RunFolder
from semiseg.training import fit as train


def weights(folder):
    return {k: v for k, v in read_checkpoint(RunFolder(folder).last).tensors.items() if k.startswith("method.")}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_a_run_leaves_everything_it_promises(plain_cohort, tmp_path):
    data = plain_cohort(labelled=5, unlabelled=2)
    run = train_run(settings_of(data, data={"val": "1", "test": "1"}), tmp_path / "run", device="cpu", workers=1)
    log = run.read_log()
    assert [line["step"] for line in log if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in log if line["kind"] == "validation"] == [3, 6]
    assert {"supervised", "consistency"} == log[0]["terms"].keys()
    assert log[1]["lr"] > 0
    result = json.loads(run.result.read_text())
    assert result["labels_used"] == "2 + 1 labelled"
    assert result["unlabelled"] == 3  # two without labels and one whose label is hidden
    assert result["passes_per_step"] == 3  # labelled, guess and strong view, two patches each; validation is none
    assert result["checkpoint"] == "best"
    assert result["last"]["validation_dice"] == log[-1]["dice_mean"]
    for path in (
        run.config,
        run.splits,
        run.plan,
        run.environment,
        run.best,
        run.pictures / "step-000006.png",
        run.progress,
    ):
        assert path.exists(), path
    split = json.loads(run.splits.read_text())[0]
    assert [len(split[k]) for k in ("train", "val", "test", "unlabelled")] == [2, 1, 1, 3]
    description = json.loads((run.model / "model.json").read_text())
    assert description["classes"] == {"background": 0, "ball": 1}
    assert description["settings"]["method"]["name"] == "equireg"
    best = read_checkpoint(run.best).part("predictor")
    assert_same(best, dict(load_model(run.path).network.state_dict()))
    average = read_checkpoint(run.last).part("method.average")
    assert_same(average, dict(load_model(run.path, "last").network.state_dict()))
    assert list(tmp_path.rglob("*.tmp*")) == []


def test_without_validation_the_last_checkpoint_is_used_and_said_so(plain_cohort, tmp_path):
    run = train_run(settings_of(plain_cohort(), "supervised"), tmp_path / "run", device="cpu", workers=1)
    result = json.loads(run.result.read_text())
    assert result["note"] == "no validation scans: the last checkpoint"
    assert result["unlabelled"] == 0


@pytest.mark.parametrize("method", ["supervised", "roam", "equireg"])
def test_stopping_and_resuming_changes_nothing(plain_cohort, tmp_path, monkeypatch, method):
    """A run that is cut after any number of steps ends with bit-identical weights and the same log."""
    data = plain_cohort(labelled=5)
    settings = settings_of(data, method, data={"val": "1"})
    straight = train_run(settings, tmp_path / "straight", device="cpu", workers=1)
    log = RunFolder.append
    for stop in (3, 5):
        cut = tmp_path / f"cut{stop}"

        def append(self, stop=stop, **values):
            log(self, **values)
            if values["step"] == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(RunFolder, "append", append)
        with pytest.raises(KeyboardInterrupt):
            train_run(settings, cut, device="cpu", workers=1)
        monkeypatch.setattr(RunFolder, "append", log)
        with pytest.raises(UserError, match="unfinished run; go on with --resume"):
            train_run(settings, cut, device="cpu", workers=1)
        resumed = train_run(settings, cut, resume=True, device="cpu", workers=1)
        assert_same(weights(straight.path), weights(cut))
        keep = [{k: v for k, v in line.items() if k != "duration_s"} for line in straight.read_log()]
        assert [{k: v for k, v in line.items() if k != "duration_s"} for line in resumed.read_log()] == keep
        assert resumed.read_result().passes_per_step == straight.read_result().passes_per_step


def test_a_resumed_run_keeps_its_scans(plain_cohort, tmp_path, monkeypatch):
    """A scan that came later, and ranks first, changes nothing."""
    data = plain_cohort(labelled=3)
    settings = settings_of(data, "supervised", data={"labelled": "2", "val": "1"})
    straight = train_run(settings, tmp_path / "straight", device="cpu", workers=1)

    def stop(*_, **__):
        raise KeyboardInterrupt

    append = RunFolder.append
    monkeypatch.setattr(RunFolder, "append", stop)
    with pytest.raises(KeyboardInterrupt):
        train_run(settings, tmp_path / "cut", device="cpu", workers=1)
    monkeypatch.setattr(RunFolder, "append", append)
    for index in range(3, 8):
        write_nifti(data / "images" / f"case{index}.nii.gz", ball((12, 14, 10), index)[0])
        write_nifti(data / "labels" / f"case{index}.nii.gz", ball((12, 14, 10), index)[1])
    with pytest.raises(UserError, match="unfinished run"):
        train_run(settings, tmp_path / "cut", device="cpu", workers=1)
    resumed = train_run(settings, tmp_path / "cut", resume=True, device="cpu", workers=1)
    assert resumed.splits.read_text() == straight.splits.read_text()
    assert_same(weights(straight.path), weights(resumed.path))


def test_sixteen_bits_need_a_gpu():
    with pytest.raises(UserError, match=r"training.precision: got 16 on a processor, expected 32 or bf16"):
        chosen_precision("16", "cpu")
    assert chosen_precision("16", "cuda") == "16"


def test_a_loss_that_is_not_finite_stops_and_names_step_and_cases(plain_cohort, tmp_path, monkeypatch):
    from semiseg import losses

    calls = iter(range(100))
    whole = losses.soft_dice

    def broken(*args):
        return whole(*args) * (float("nan") if next(calls) == 4 else 1.0)

    monkeypatch.setattr(losses, "soft_dice", broken)
    settings = settings_of(plain_cohort(), "supervised")
    with pytest.raises(Diverged, match=r"supervised nan at step 4 \(cases case\d, case\d\).*last\.safetensors"):
        train_run(settings, tmp_path / "run", device="cpu", workers=1)
    for name, value in weights(tmp_path / "run").items():
        assert torch.isfinite(value).all(), name


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(plain_cohort, tmp_path, monkeypatch):
    from semiseg import losses

    calls = iter(range(100))
    whole = losses.soft_dice

    def broken(*args):
        value = whole(*args)
        return value + torch.sqrt(value * 0) if next(calls) == 5 else value  # 0, of infinite slope

    monkeypatch.setattr(losses, "soft_dice", broken)
    with pytest.raises(Diverged, match=r"gradient norm nan at step 5 \(cases case\d, case\d\)"):
        train_run(settings_of(plain_cohort(), "supervised"), tmp_path / "run", device="cpu", workers=1)
    for name, value in weights(tmp_path / "run").items():
        assert torch.isfinite(value).all(), name


def patient(**more):
    """A rate too small to change any score: the first validation, at step 2, stays the best."""
    return {"lr": 1e-12, "validate_every": 2, "checkpoint_every": 1, "patience": 3, **more}


def test_training_stops_when_validation_gets_no_better(plain_cohort, tmp_path):
    data = plain_cohort(labelled=5)
    settings = settings_of(data, "supervised", steps=20, data={"val": "1"}, training=patient())
    run = train_run(settings, tmp_path / "run", device="cpu", workers=1)
    result = json.loads(run.result.read_text())
    assert result["stopped_early"]
    assert result["steps"] == result["last"]["step"] == 6  # at 4 it had waited for 2 steps only
    assert result["best"]["step"] == 2
    assert [line["step"] for line in run.read_log()][-1] == 6
    waiting = settings_of(data, "supervised", steps=6, data={"val": "1"}, training=patient(patience=4))
    run = train_run(waiting, tmp_path / "waiting", device="cpu", workers=1)
    result = json.loads(run.result.read_text())
    assert (result["steps"], result["stopped_early"]) == (6, False)  # it was the last step


@pytest.mark.parametrize("stop", [3, 6])
def test_stopping_early_is_the_same_after_resuming(plain_cohort, tmp_path, monkeypatch, stop):
    """Killed while it trains, and just after it has stopped."""
    data = plain_cohort(labelled=5)
    settings = settings_of(data, "equireg", steps=20, data={"val": "1"}, training=patient())
    straight = train_run(settings, tmp_path / "straight", device="cpu", workers=1)
    save = train.save

    def cut(*arguments):
        save(*arguments)
        if arguments[-1].step == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        train_run(settings, tmp_path / "cut", device="cpu", workers=1)
    monkeypatch.setattr(train, "save", save)
    resumed = train_run(settings, tmp_path / "cut", resume=True, device="cpu", workers=1)
    results = [json.loads(run.result.read_text()) for run in (straight, resumed)]
    for result in results:
        del result["duration_s"], result["memory_gb"]
    assert results[0] == results[1]
    assert results[0]["steps"] == 6
    assert_same(weights(straight.path), weights(resumed.path))


def test_three_dimensions(plain_cohort, tmp_path):
    data = plain_cohort(labelled=5, unlabelled=1)
    plan = {"patch": [8, 8, 8], "network": {"widths": [4, 8], "strides": [[2, 2, 2]]}}
    values = settings_of(data, "roam", steps=2, data={"val": "1"}, plan=plan).model_dump(mode="json")
    run = train_run(RunSettings.parse({**values, "dims": "3"}, where=""), tmp_path / "run", device="cpu", workers=1)
    assert json.loads(run.result.read_text())["last"]["validation_dice"] is not None


def command(data, out, *more):
    sets = [f"plan.{k}={json.dumps(v)}" for k, v in PLAN.items()] + [
        "training.tensorboard=false",
        "method.ema=0.9",
    ]
    flags = [part for text in sets for part in ("--set", text)]
    return [
        *(sys.executable, "-m", "semiseg.cli", "train", str(data), "--out", str(out), "--labelled", "2"),
        *("--method", "equireg", "--dims", "2"),
        *("--precision", "32", "--device", "cpu", "--workers", "1", *flags, *more),
    ]  # fmt: skip


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_kill_at_any_moment_then_resume_is_bit_identical(plain_cohort, tmp_path):
    """SIGKILL by the clock, again and again, in the real command."""
    data = plain_cohort(labelled=6)
    more = (
        "--val",
        "1",
        "--steps",
        "120",
        "--set",
        "training.checkpoint_every=7",
        "--set",
        "training.validate_every=40",
    )
    subprocess.run(command(data, tmp_path / "straight", *more), check=True, env=environment())
    kills, delay = 0, 4.0
    while True:
        resume = ["--resume"] if (tmp_path / "cut" / "config.yaml").exists() else []
        process = subprocess.Popen(command(data, tmp_path / "cut", *more, *resume), env=environment())
        try:
            assert process.wait(timeout=delay) == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            delay += 0.7
            assert kills < 60
    assert kills >= 2
    assert_same(weights(tmp_path / "straight"), weights(tmp_path / "cut"))


@pytest.mark.slow
def test_sigterm_saves_and_exits_75(plain_cohort, tmp_path):
    data = plain_cohort(labelled=4)
    out = tmp_path / "run"
    process = subprocess.Popen(command(data, out, "--steps", "5000"), env=environment())
    while not (out / "metrics.jsonl").exists() or not RunFolder(out).read_log():
        assert process.poll() is None
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=60) == 75
    saved = read_checkpoint(RunFolder(out).last).facts["progress"]["step"]
    assert saved >= RunFolder(out).read_log()[-1]["step"] > 0


def launch(kind, count, data, out, *more):
    """The same training in `count` processes."""
    line = command(data, out, *more)
    if kind == "torchrun":
        start = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            str(count),
            "--master-port",
            "29517",
        ]
        subprocess.run([*start, *line[1:]], check=True, env=environment())
        return
    processes = []
    for rank in range(count):
        slurm = {
            "SLURM_STEP_NUM_TASKS": str(count), "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
            "SLURM_JOB_ID": "4711", "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
        }  # fmt: skip
        processes.append(subprocess.Popen(line, env={**environment(), **slurm}))
    assert [process.wait(timeout=120) for process in processes] == [0] * count


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torchrun", "srun"])
def test_two_processes_equal_one_with_accumulation_two(plain_cohort, tmp_path, kind):
    data = plain_cohort(labelled=5, unlabelled=3)
    more = ("--steps", "5", "--val", "1", "--set", "training.log_every=1")
    launch(kind, 2, data, tmp_path / "two", *more)
    accumulated = (*more, "--set", "training.accumulation=2")
    subprocess.run(command(data, tmp_path / "one", *accumulated), check=True, env=environment())
    two, one = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=2e-5, rtol=1e-3, msg=name)
    scores = [json.loads((tmp_path / which / "result.json").read_text())["last"] for which in ("two", "one")]
    assert scores[0]["validation_dice"] == pytest.approx(scores[1]["validation_dice"], abs=0.02)


@pytest.mark.slow
def test_two_processes_stop_early_together(plain_cohort, tmp_path):
    data = plain_cohort(labelled=5, unlabelled=3)
    sets = ("lr=1e-12", "patience=3", "validate_every=2")
    more = (part for text in sets for part in ("--set", f"training.{text}"))
    launch("torchrun", 2, data, tmp_path / "two", "--steps", "50", "--val", "2", *more)
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert (result["steps"], result["stopped_early"]) == (6, True)


def test_sigterm_saves_a_checkpoint_at_once_and_the_run_goes_on_to_the_same_weights(
    plain_cohort, tmp_path, monkeypatch
):
    """In this process; the real command is killed in the slow lane."""
    settings = settings_of(plain_cohort(labelled=4), "equireg", training={"checkpoint_every": 100})
    straight = train_run(settings, tmp_path / "straight", device="cpu", workers=1)
    append = RunFolder.append

    def told(self, **values):
        append(self, **values)
        if values["step"] in (2, 6):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunFolder, "append", told)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match=r"run: stopped at step 2 with a checkpoint; go on with --resume"):
        train_run(settings, tmp_path / "run", device="cpu", workers=1)
    assert signal.getsignal(signal.SIGTERM) is before
    assert read_checkpoint(RunFolder(tmp_path / "run").last).facts["progress"]["step"] == 2
    resumed = train_run(settings, tmp_path / "run", resume=True, device="cpu", workers=1)  # told again at its end
    assert resumed.finished
    assert_same(weights(straight.path), weights(resumed.path))


def test_the_cases_of_a_divergence_are_those_of_its_own_batch(plain_cohort, tmp_path, monkeypatch):
    """The third batch is the first one of step 1 with two batches a step."""
    from semiseg import losses

    calls = iter(range(100))
    whole = losses.soft_dice
    monkeypatch.setattr(losses, "soft_dice", lambda *args: whole(*args) * (float("nan") if next(calls) == 3 else 1.0))
    settings = settings_of(plain_cohort(labelled=6), "supervised", data={"labelled": "6"}, training={"accumulation": 2})
    with pytest.raises(Diverged, match=r"at step 1 \(cases (case\d), (case\d)\)") as told:
        train_run(settings, tmp_path / "run", device="cpu", workers=1)
    run = RunFolder(tmp_path / "run")
    labelled = [case for case in prepare_dataset(settings, 1) if case.name in run.read_splits().train]
    batches = Batches(labelled, (), Plan.load(run.plan), 0)
    assert ", ".join(batches.names(3)) in str(told.value)
    assert batches.names(3) != batches.names(1)


@pytest.mark.parametrize("wanted", [True, False])
def test_tensorboard_is_written_in_the_run_folder_where_it_is_wanted(plain_cohort, tmp_path, wanted):
    settings = settings_of(plain_cohort(), "supervised", steps=1, training={"tensorboard": wanted})
    run = train_run(settings, tmp_path / "run", device="cpu", workers=1)
    assert bool(list((run.path / "tensorboard").glob("events*"))) == wanted


def test_without_tensorboard_the_log_is_the_same(plain_cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    settings = settings_of(plain_cohort(), "supervised", steps=2, training={"tensorboard": True})
    run = train_run(settings, tmp_path / "run", device="cpu", workers=1)
    assert [line.step for line in run.train_lines()] == [1, 2]
    assert not (run.path / "tensorboard").exists()
