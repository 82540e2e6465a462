"""Where independent jobs run: on this machine, on SLURM, or on dask. A job is a command line, nothing pickled."""

from __future__ import annotations

import os
import queue
import subprocess
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from semiseg.errors import UserError
from semiseg.processes import default_workers


@dataclass(frozen=True)
class Job:
    """A command that may be started again after it was killed, and the file that its output is added to."""

    command: tuple[str, ...]
    log: Path


class Outcome(Protocol):
    """A job's exit status, to be waited for."""

    def result(self) -> int: ...


class Launcher(Protocol):
    """Runs jobs, as many at a time as it has room for."""

    @property
    def at_once(self) -> int:
        """Jobs that run at the same time, as far as that is known."""

    def submit(self, job: Job) -> Outcome: ...

    def close(self) -> None:
        """Give up what has not begun, and wait for nothing."""


class Local:
    """Processes on this machine: one a GPU, else one a core, each with one thread."""

    def __init__(self, jobs: int | None = None) -> None:
        gpus = visible_gpus()
        self.at_once = count = jobs or len(gpus) or default_workers()
        self._places: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for index in range(count):
            self._places.put(gpus[index % len(gpus)] if gpus else None)
        self._threads = ThreadPoolExecutor(count)
        self._running: set[subprocess.Popen[bytes]] = set()

    def submit(self, job: Job) -> Future[int]:
        return self._threads.submit(self._run, job)

    def _run(self, job: Job) -> int:
        place = self._places.get()
        try:
            return run_job(job, {} if place is None else {"CUDA_VISIBLE_DEVICES": place}, self._running)
        finally:
            self._places.put(place)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in tuple(self._running):
            process.terminate()  # training saves a checkpoint and stops


def run_job(job: Job, environment: dict[str, str], running: set[subprocess.Popen[bytes]] | None = None) -> int:
    """Run one job to its end; returns its exit status. One thread, unless OMP_NUM_THREADS says otherwise."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            job.command, stdout=log, stderr=log, env={"OMP_NUM_THREADS": "1", **os.environ, **environment}
        )
        if running is not None:
            running.add(process)
        try:
            return process.wait()
        finally:
            if running is not None:
                running.discard(process)


def visible_gpus() -> list[str]:
    """Names that CUDA_VISIBLE_DEVICES takes."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def launcher_named(name: str, jobs: int | None, options: Sequence[str] = ()) -> Launcher:
    """`local`; others are refused with what there is."""
    del options
    if name != "local":
        raise UserError(f"--launcher: got {name!r}, expected local")
    return Local(jobs)
