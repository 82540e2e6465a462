"""Self-training from settings to a model: rounds are runs, the last one's model is the run's, and nothing leaks."""

import json
import os
import shutil
import signal

import pytest
import yaml
from support.bench_grid import write_balls
from support.command_line import TINY, rows_of, semiseg
from support.runs import settings_of
from support.watched import needs_inotify, opened_in

from semiseg.data.batches import Batches
from semiseg.data.plan import Plan
from semiseg.errors import Preempted, UserError
from semiseg.experiments.experiment import train_run
from semiseg.models.model import load_model
from semiseg.rounds import guesses, rounds
from semiseg.rounds.rounds import steps_of_rounds, train_rounds
from semiseg.runs.folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_core")
OPEN = {"lowest_dice": 0.0, "largest_z": None}


def settings_on(root, steps=8, **more):
    values = {"rounds": 2, "student": OPEN, "data": {"val": "1", "test": "1"}, **more}
    return settings_of(root, values.pop("method", "supervised"), steps=steps, **values)


def trained(settings, out, **more):
    return train_rounds(settings, out, device="cpu", workers=1, **more)


def bits(run):
    """Of the exported model and the last checkpoint."""
    return {
        (which, name): tensor.numpy().tobytes()
        for which in (None, "last")
        for name, tensor in load_model(run.path, which).network.state_dict().items()
    }


def of_round(run, number):
    return RunFolder(run.path / "rounds" / str(number))


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return write_balls(tmp_path_factory.mktemp("balls") / "data", labelled=5, unlabelled=2)


@pytest.fixture(scope="module")
def straight(balls, tmp_path_factory):
    """Three rounds of 2, 2 and 4 steps."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SEMISEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        return trained(settings_on(balls), tmp_path_factory.mktemp("straight") / "run")


@pytest.mark.parametrize(("steps", "count"), [(8, 2), (9, 2), (3, 2), (5000, 3), (7, 0)])
def test_steps_are_shared_out_and_the_rest_is_the_last_students(steps, count):
    shared = steps_of_rounds(steps, count)
    assert (sum(shared), len(shared)) == (steps, count + 1)
    assert set(shared[:-1]) <= {steps // (count + 1)}
    assert shared[-1] >= steps // (count + 1)


def test_every_round_is_an_ordinary_run_and_the_last_ones_model_is_exported(straight):
    runs = [of_round(straight, number) for number in range(3)]
    assert [json.loads(run.result.read_text())["steps"] for run in runs] == [2, 2, 4]
    assert len({run.splits.read_text() for run in (*runs, straight)}) == 1
    assert bits(straight) == bits(runs[-1])
    result = json.loads(straight.result.read_text())
    last = json.loads(runs[-1].result.read_text())
    assert [one["steps"] for one in result.pop("rounds")] == [2, 2, 4]
    of_all = dict.fromkeys(("duration_s", "memory_gb"))
    assert result | of_all == last | of_all
    assert result["passes_per_step"] == 1
    assert (result["labelled"], result["unlabelled"], result["pseudo_labelled"]) == (2, 3, 3)
    assert straight.read_config()["rounds"] == 2
    assert json.loads((straight.model / "model.json").read_text())["settings"]["rounds"] == 2
    assert straight.log.read_text() == runs[-1].log.read_text()


def test_students_are_trained_from_scratch_with_a_stronger_augmentation_of_the_same_plan(straight):
    plans = [Plan.load(of_round(straight, number).plan) for number in range(3)]
    assert plans[0] == Plan.load(straight.plan)
    assert plans[1] == plans[2] != plans[0]
    assert plans[1].augmentation.warp.rotate_deg == 1.5 * plans[0].augmentation.warp.rotate_deg
    assert plans[1].model_copy(update={"augmentation": plans[0].augmentation}) == plans[0]
    configs = [of_round(straight, number).read_config() for number in range(3)]
    assert len({config["seed"] for config in configs}) == 3
    assert [config["pseudo_labels"] and config["pseudo_labels"].split("/")[-2] for config in configs] == [
        None,
        "0",
        "1",
    ]
    assert {config["init"] for config in configs} == {None}


def test_true_labels_stay_and_guesses_are_told_apart_in_the_provenance(straight):
    names = straight.read_splits()
    rows = json.loads(of_round(straight, 1).provenance.read_text())
    told = {row["case"]: row["from"] for row in rows}
    assert told == dict.fromkeys((*names.train, *names.val), "dataset") | dict.fromkeys(
        names.unlabelled, "pseudo-label"
    )
    assert json.loads(straight.provenance.read_text()) == [row for row in rows if row["from"] == "dataset"]


def test_a_student_learns_in_its_last_tenth_from_true_labels_alone(balls, tmp_path, monkeypatch):
    """The scans whose labels were read, by round and step."""
    read = [[]]
    patch, single = Batches._patch, rounds.train_run

    def patched(self, case, first, with_label):
        if with_label:
            read[-1].append(case.name)
        return patch(self, case, first, with_label)

    def run_of_round(*args, **more):
        read.append([])
        return single(*args, **more)

    monkeypatch.setattr(Batches, "_patch", patched)
    monkeypatch.setattr(rounds, "train_run", run_of_round)
    run = trained(settings_on(balls, steps=20, rounds=1, plan={"batch": 4}), tmp_path / "run")
    names = run.read_splits()
    _, teacher, student = read
    assert (len(teacher), len(student)) == (40, 40)
    assert {*teacher} == {*names.train}
    assert {*student[:36]} == {*names.train, *names.unlabelled}
    assert {*student[36:]} <= {*names.train}


STOPS = {
    "in the teacher": lambda p: p.setattr(RunFolder, "append", stop),
    "before guesses": lambda p: p.setattr(guesses, "rank_cases", stop),
    "among guesses": lambda p: p.setattr(guesses, "write_tables", stop),
    "in the first student": lambda p: stop_in_round(p, 1),
    "in the last student": lambda p: stop_in_round(p, 2),
    "before the end": lambda p: p.setattr(rounds, "save_model", stop),
}


def stop(*_, **__):
    raise KeyboardInterrupt


def stop_in_round(patched, number):
    append = RunFolder.append

    def appended(self, **values):
        append(self, **values)
        if self.path.name == str(number):
            raise KeyboardInterrupt

    patched.setattr(RunFolder, "append", appended)


@pytest.mark.parametrize(
    "where", [where if "first" in where else pytest.param(where, marks=pytest.mark.slow) for where in STOPS]
)
def test_killed_anywhere_and_resumed_it_ends_with_the_same_bits(balls, straight, tmp_path, where):
    settings, out = settings_on(balls), tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        STOPS[where](patched)
        with pytest.raises(KeyboardInterrupt):
            trained(settings, out)
    done = {path: path.stat().st_mtime_ns for path in out.glob("rounds/*/result.json")}
    assert not RunFolder(out).result.exists()
    with pytest.raises(UserError, match=r"run: got an unfinished run; go on with --resume"):
        trained(settings, out)
    moved = out.rename(tmp_path / "moved")
    run = trained(settings, moved, resume=True)
    assert bits(run) == bits(straight)
    for path, time_ns in done.items():
        assert (moved / path.relative_to(out)).stat().st_mtime_ns == time_ns  # a finished round is not done again


@pytest.mark.slow
def test_sigterm_between_two_rounds_is_told_and_goes_on(balls, straight, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(guesses, "load_model", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Preempted, match="run: stopped between two rounds; the same command"):
            trained(settings_on(balls), tmp_path / "run")
    assert bits(trained(settings_on(balls), tmp_path / "run", resume=True)) == bits(straight)


def test_a_finished_run_is_left_as_it_is_and_other_settings_are_refused(balls, straight, monkeypatch):
    monkeypatch.setattr(rounds, "begin_run", None)
    assert trained(settings_on(balls), straight.path).path == straight.path
    for more, told in (
        ({"rounds": 1}, "rounds: 2 -> 1"),
        ({"student": {**OPEN, "tta": True}}, "student.tta: False -> True"),
        ({"steps": 9}, "training.steps: 8 -> 9"),
    ):
        with pytest.raises(UserError, match=told):
            trained(settings_on(balls, **more), straight.path, resume=True)


@pytest.mark.slow
def test_pseudo_labels_that_were_changed_are_not_gone_on_with(balls, tmp_path, monkeypatch):
    settings, out = settings_on(balls, rounds=1), tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_in_round(patched, 1)
        with pytest.raises(KeyboardInterrupt):
            trained(settings, out)
    first, second, *_ = sorted((out / "rounds" / "0" / "pseudo").glob("*.nii.gz"))
    shutil.copy(second, first)
    with pytest.raises(UserError, match=rf"{first.name}: got other labels than the run was begun with"):
        trained(settings, out, resume=True)


def test_a_student_of_ones_own_learns_from_a_folder_of_pseudo_labels(balls, straight, tmp_path):
    folder = straight.path / "rounds" / "0" / "pseudo"
    run = trained(settings_on(balls, rounds=0, steps=2, pseudo_labels=str(folder)), tmp_path / "run")
    assert json.loads(run.result.read_text())["pseudo_labelled"] == 3
    assert Plan.load(run.plan).augmentation == Plan.load(straight.plan).augmentation


def test_rounds_of_none_are_ordinary_training_to_the_bit(balls, tmp_path):
    settings = settings_on(balls, steps=3, rounds=0)
    plain = train_run(settings, tmp_path / "plain", device="cpu", workers=1)
    assert bits(trained(settings, tmp_path / "none")) == bits(plain)
    assert not (tmp_path / "none" / "rounds").exists()
    assert "pseudo_labelled" not in json.loads(plain.result.read_text())


def test_methods_with_unlabelled_images_and_no_validation_scans(balls, tmp_path):
    run = trained(settings_on(balls, rounds=1, method="equireg", data={"test": "1"}, steps=4), tmp_path / "run")
    result = json.loads(run.result.read_text())
    assert (result["checkpoint"], result["unlabelled"], result["pseudo_labelled"]) == ("last", 4, 4)
    facts = json.loads((run.path / "rounds" / "0" / "threshold.json").read_text())
    assert (facts["threshold"], facts["why"]) == (0.9, "no validation scans: student.threshold")


def test_a_scan_that_is_left_out_teaches_nobody(balls, tmp_path, monkeypatch):
    monkeypatch.setattr(guesses, "_doubts", lambda _teacher, _model, cases, *_: {cases[0].name: "a reason"})
    run = trained(settings_on(balls, rounds=1), tmp_path / "run")
    left, *used = [row["case"] for row in rows_of(run.path / "rounds" / "0" / "pseudo" / "pseudo_labels.csv")]
    told = {row["case"] for row in json.loads(of_round(run, 1).provenance.read_text()) if row["from"] == "pseudo-label"}
    assert told == {*used}
    assert left not in told


def test_where_every_scan_is_left_out_it_stops_and_says_what_can_be_done(balls, tmp_path):
    settings = settings_on(balls, student={"lowest_dice": 1.0})
    for resume in (False, True):
        with pytest.raises(UserError, match=r"pseudo_labels.csv: got every unlabelled scan left out, .* round 1; use"):
            trained(settings, tmp_path / "run", resume=resume)
    load_model(tmp_path / "run" / "rounds" / "0")  # as it says


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            {"steps": 2},
            "training.steps: got 2 with 2 rounds, expected at least 3, one for the teacher and each student",
        ),
        ({"pseudo_labels": "x"}, "pseudo_labels: got x with 2 rounds that make their own, expected one of them"),
        ({"data": {"labelled": "100%"}}, "rounds: got 2 without unlabelled scans, expected some to guess; give fewer"),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(tmp_path, more, told):
    data = write_balls(tmp_path / "data", labelled=3, unlabelled=0)
    with pytest.raises(UserError, match=told):
        trained(settings_on(data, **{"data": {}, **more}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_mistakes(balls, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="rounds: got -1, input should be greater than or equal to 0"):
        settings_on(balls, rounds=-1)
    with pytest.raises(UserError, match="rounds: got 2, expected 0 where one network is trained; call `train_rounds`"):
        train_run(settings_on(balls), tmp_path / "run", device="cpu", workers=1)
    (tmp_path / "run" / "rounds").mkdir(parents=True)
    with pytest.raises(UserError, match="it holds rounds, which semiseg did not write here"):
        trained(settings_on(balls), tmp_path / "run")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="rounds: got 2 in 2 processes, expected one; start it without torchrun"):
        trained(settings_on(balls), tmp_path / "other")


@needs_inotify
def test_no_hidden_label_and_no_test_label_is_opened(balls, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))
    with opened_in(balls / "labels") as opened:
        run = trained(settings_on(balls, rounds=1, student={**OPEN, "tta": True}), tmp_path / "run")
    names = run.read_splits()
    assert opened == {balls / "labels" / f"{name}.nii.gz" for name in (*names.train, *names.val)}


@pytest.mark.slow
def test_every_command_takes_the_run_like_any_other(balls, tmp_path):
    """Training by flags; then what reads runs."""
    out, parts = tmp_path / "run", ("--labelled", "2", "--val", "1", "--test", "1")
    more = ("--set", "student.lowest_dice=0", "--set", "student.largest_z=null")
    code, _, err = semiseg(
        "train", balls, "--out", out, "--rounds", "1", *parts, *TINY[:2], "--steps", "4", *TINY[4:], *more, "--score"
    )
    assert code == 0, err
    assert yaml.safe_load((out / "config.yaml").read_text())["rounds"] == 1
    assert (out / "scores" / "metrics.csv").exists()
    assert not (out / "rounds" / "1" / "scores").exists()
    scans = balls / "unlabelled"
    for words in (
        ("predict", out, scans, "--checkpoint", "last", "--out", tmp_path / "predicted"),
        ("rank", out, scans, "--out", tmp_path / "ranked"),
        ("review", out, scans, "--count", "1", "--out", tmp_path / "reviewed"),
        ("export", out, "--out", tmp_path / "bundle"),
        ("report", out, "--out", tmp_path / "report.html"),
        ("predict", out / "rounds" / "0", scans, "--out", tmp_path / "teacher"),
        ("predict", out, scans, "--overlay", "--truth", out / "rounds" / "0" / "pseudo", "--out", tmp_path / "drawn"),
    ):
        code, _, err = semiseg(*words)
        assert code == 0, (words, err)
