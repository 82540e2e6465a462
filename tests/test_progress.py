"""Progress: every item passes, and lines come seldom, with the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from semiseg import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(clock: list[float], seconds: float, count: int = 5, total: int | None = None) -> None:
    items: Iterator[int] = iter(range(count)) if total else range(count)  # type: ignore[assignment]
    for index, item in enumerate(progress.track(items, "Reading", total)):
        assert item == index
        clock[0] += seconds


@pytest.mark.parametrize("total", [None, 5])
def test_lines_at_most_every_ten_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str], total: int | None
) -> None:
    run(clock, 6, total=total)
    captured = capsys.readouterr()
    assert captured.err == "Reading: 2/5, about 18 s left\nReading: 4/5, about 6 s left\n"
    assert captured.out == ""


def test_units_of_the_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, 1800)
    assert capsys.readouterr().err.splitlines()[::3] == [
        "Reading: 1/5, about 2 h 0 min left",
        "Reading: 4/5, about 30 min 0 s left",
    ]


def test_short_work_and_quiet_write_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    run(clock, 1)
    progress.set_quiet(True)
    try:
        run(clock, 100)
    finally:
        progress.set_quiet(False)
    assert capsys.readouterr().err == ""


def test_unknown_total(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress.track(iter("abc"), "Reading"):
        clock[0] += 11
    assert capsys.readouterr().err == "Reading: 1\nReading: 2\n"


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert list(progress.track("abc", "Reading")) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert "Reading" in captured.err
    assert "3/3" in captured.err
    assert captured.out == ""
