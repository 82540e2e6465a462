"""Sharing work out over processes."""

from __future__ import annotations

import os

import pytest

from semiseg.errors import OutOfMemory, UserError
from semiseg.processes import default_workers, each


def test_results_keep_the_order_and_processes_have_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert list(each(abs, [-3, -1, -2], "working", workers=1)) == [3, 1, 2]
    assert list(each(os.getenv, ["OMP_NUM_THREADS"] * 3, "working", workers=2)) == ["1"] * 3
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_killed_process_is_reported_as_lack_of_memory() -> None:
    with pytest.raises(OutOfMemory, match=r"workers: got 2 processes, of which one was killed.*; lower --workers"):
        list(each(os._exit, [1, 1], "dying", workers=2))


def test_workers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMISEG_WORKERS", "3")
    assert default_workers() == 3
    monkeypatch.setenv("SEMISEG_WORKERS", "many")
    with pytest.raises(UserError, match="SEMISEG_WORKERS: got 'many', expected a whole number"):
        default_workers()
    monkeypatch.delenv("SEMISEG_WORKERS")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert 1 <= default_workers() <= 8
