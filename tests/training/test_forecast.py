"""The line that says when training will end: from timed steps alone, once, and not where it is of no use."""

import re
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import torch
from support.runs import settings_of

from semiseg.experiments import experiment
from semiseg.experiments.experiment import train_run
from semiseg.progress import set_quiet
from semiseg.runs.folder import RunFolder
from semiseg.training import fit as train
from semiseg.training import forecast
from semiseg.training.forecast import Forecast, ending

CHECKPOINT = {"weights": torch.zeros(5_600_000), "moments": torch.zeros(11_200_000, dtype=torch.bfloat16)}
FASTER = "`--size small` takes a smaller network and batch"


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def told(monkeypatch, capsys):
    """Seconds of each step -> what is said while it is trained."""
    monkeypatch.setattr(forecast, "peak_memory_gb", lambda: 3.14)

    def lines(steps_s, total, faster=""):
        one = Forecast(lambda: CHECKPOINT, faster)
        for done, step_s in enumerate(steps_s, 1):
            one.step(step_s, total - done)
        return capsys.readouterr().err.splitlines()

    return lines


def test_one_line_of_the_steps_after_the_first_three(told):
    (line,) = told([60, 9, 9, *[1.9] * 7, 30, 1.9, 1.9, *[50] * 9], 5000)
    assert re.fullmatch(
        r"1\.9 s a step: 4989 steps until about \d\d:\d\d( tomorrow)? \(2 h 37 min without validation\), "
        r"3\.1 GB of memory, checkpoints of 45 MB",
        line,
    )


@pytest.mark.parametrize(("step_s", "after"), [(0.5, 13), (1.9, 13), (2.0, 13), (2.5, 11), (12, 5), (90, 4)])
def test_it_comes_after_ten_steps_or_twenty_seconds(told, step_s, after):
    assert not told([step_s] * (after - 1), 10_000)
    assert f" {10_000 - after} steps until" in told([step_s] * after, 10_000)[0]


def test_what_ends_within_a_minute_and_quiet_say_nothing(told):
    assert not told([1.0] * 60, 13 + 59)
    assert told([1.0] * 60, 13 + 60)
    set_quiet(True)
    assert not told([1.0] * 60, 1000)


def test_a_faster_way_is_told_from_an_hour_on(told):
    assert FASTER not in told([1.0] * 20, 13 + 3600, FASTER)[0]
    assert told([1.0] * 20, 13 + 3601, FASTER)[0].endswith(f"; {FASTER}")


def test_without_a_measure_of_memory_it_is_left_out(told, monkeypatch):
    monkeypatch.setattr(forecast, "peak_memory_gb", lambda: None)
    assert told([1.0] * 20, 1000)[0].endswith("without validation), checkpoints of 45 MB")


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("left_s", "when"),
    [
        (3 * 3600, "17:05 (3 h 0 min"),
        (9 * 3600, "23:05 (9 h"),
        (10 * 3600, "00:05 tomorrow (10 h"),
        (34 * 3600, "00:05 on Saturday 24 October (34 h"),
        (72 * 3600, "13:05 on Sunday 25 October (72 h"),  # clocks went back that night
        (800 * 24 * 3600, "2028 (19200 h"),
        (1e15, "31690114 (277777777777 h 46 min"),
    ],
)
def test_the_end_is_told_in_local_time(left_s, when):
    now = datetime(2026, 10, 22, 12, 5, tzinfo=UTC)  # 14:05 in Berlin
    assert ending(left_s / 100, 100, now).partition(" until about ")[2].startswith(when)


@pytest.mark.parametrize(("step_s", "words"), [(0.0123, "0.012 s"), (1.93, "1.9 s"), (47.2, "47 s"), (1234, "1234 s")])
def test_how_a_step_is_told(step_s, words):
    assert ending(step_s, 100, datetime.now(UTC)).startswith(f"{words} a step: 100 steps until about ")


def slow_clock(monkeypatch):
    """Five seconds pass at every look, ten in a step."""
    looks = iter(range(0, 10**6, 5))
    monkeypatch.setattr(train, "time", SimpleNamespace(perf_counter=lambda: float(next(looks))))


def test_a_run_tells_its_end_and_a_resumed_one_that_of_the_steps_left(plain_cohort, tmp_path, monkeypatch, capsys):
    slow_clock(monkeypatch)
    monkeypatch.setattr(forecast, "LONG_S", 60.0)
    settings = settings_of(plain_cohort(), "supervised", steps=24)
    append = RunFolder.append

    def interrupted(self, **values):
        append(self, **values)
        if values["step"] == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_run(settings, tmp_path / "run", device="cpu", workers=1)
    monkeypatch.setattr(RunFolder, "append", append)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "a step" in line)
    assert line.startswith("10 s a step: 19 steps until about ")
    assert "(3 min 10 s without validation)" in line
    assert line.endswith("checkpoints of less than 1 MB")  # and no faster way: network and batch were chosen
    train_run(settings, tmp_path / "run", resume=True, device="cpu", workers=1)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "a step" in line)
    assert line.startswith("10 s a step: 11 steps until about ")  # from the checkpoint of step 8


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({}, "cpu", FASTER),
        ({"plan": {"patch": [8, 8]}}, "cpu", FASTER),
        ({"size": "medium"}, "cpu", ""),
        ({"plan": {"batch": 2}}, "cpu", ""),
        ({"plan": {"network": {"widths": [4, 8]}}}, "cpu", ""),
        ({}, "meta", ""),  # stands for a GPU
    ],
    ids=str,
)
def test_who_is_told_of_a_smaller_size(plain_cohort, tmp_path, monkeypatch, changes, kind, expected):
    asked = []

    def noted(*_, faster, **__):
        asked.append(faster)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "fit", noted)
    monkeypatch.setattr(experiment, "chosen_device", lambda _: torch.device(kind))
    settings = settings_of(plain_cohort(), "supervised").model_copy(update={"plan": {}, **changes})
    with pytest.raises(KeyboardInterrupt):
        train_run(settings, tmp_path / "run", device="cpu", workers=1)
    assert asked == [expected]
