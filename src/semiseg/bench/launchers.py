"""Where independent jobs run: on this machine, on SLURM, or on dask. A job is a command line, nothing pickled."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from semiseg.errors import Preempted, UserError
from semiseg.processes import default_workers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAMES = ("local", "slurm", "dask")
POLL_S = 0.2


@dataclass(frozen=True)
class Job:
    """A command that may be started again after it was killed."""

    command: tuple[str, ...]
    log: Path
    """Its output is added here."""
    folder: Path
    """Where it runs: relative paths in the command start here."""


Ended = Generator[tuple[Job, int], None, None]


class Launcher(Protocol):
    """Runs jobs, as many at a time as it has room for."""

    @property
    def at_once(self) -> int | None:
        """Jobs that run at the same time; None where somebody else decides."""

    def run(self, jobs: Sequence[Job]) -> Ended:
        """Start all; yield each job and its exit status when it has ended. Closing the generator stops what it can."""


class Local:
    """Processes on this machine: one a GPU, else one a core, each with one thread."""

    def __init__(self, jobs: int | None = None, device: str = "auto") -> None:
        self._gpus = visible_gpus() if device in ("auto", "cuda") else []
        cores = default_workers() if device in ("auto", "cuda", "cpu") else 1  # cuda:N or mps: that one
        self.at_once: int = jobs or len(self._gpus) or cores

    def run(self, jobs: Sequence[Job]) -> Ended:
        places: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
        for index in range(self.at_once):
            gpu = self._gpus and {"CUDA_VISIBLE_DEVICES": self._gpus[index % len(self._gpus)]}
            places.put(gpu or {})
        stopping = threading.Event()

        def one(job: Job) -> int:
            place = places.get()
            try:
                return run_job(job, place, stopping)
            finally:
                places.put(place)

        with ThreadPoolExecutor(self.at_once) as threads:
            futures = {threads.submit(one, job): job for job in jobs}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                stopping.set()
                threads.shutdown(cancel_futures=True)


def run_job(job: Job, environment: Mapping[str, str] | None = None, stopping: threading.Event | None = None) -> int:
    """Run one job to its end; returns its exit status.

    One thread, unless OMP_NUM_THREADS or SLURM says otherwise. When `stopping` is set, the process gets SIGTERM:
    training saves a checkpoint then. A job that is still running somewhere, because whoever started it was killed, is
    waited for first: two processes would write into one run folder.
    """
    stopping = stopping or threading.Event()
    threads = os.environ.get("SLURM_CPUS_PER_TASK", "1")
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log, _alone(job.log.with_suffix(".lock"), stopping) as held:
        if stopping.is_set():
            return Preempted.exit_code
        process = subprocess.Popen(
            job.command,
            cwd=job.folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={"OMP_NUM_THREADS": threads, **os.environ, **(environment or {})},
            pass_fds=held,
        )
        while process.poll() is None:
            if stopping.wait(POLL_S):
                process.terminate()
                break
        return process.wait()


@contextmanager
def _alone(path: Path, stopping: threading.Event) -> Iterator[tuple[int, ...]]:
    """Hold a lock that the job inherits and so holds for as long as it lives, whatever becomes of this process."""
    with path.open("w") as file:
        while fcntl and not stopping.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                stopping.wait(POLL_S)
        yield (file.fileno(),) if fcntl else ()


def visible_gpus() -> list[str]:
    """Names that CUDA_VISIBLE_DEVICES takes."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def last_line(log: Path) -> str:
    """Of a job's log: where a command that fails says why."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")


def launcher_named(
    name: str,
    jobs: int | None,
    folder: Path,
    *,
    device: str = "auto",
    scheduler: str | None = None,
    slurm: Mapping[str, Any] | None = None,
) -> Launcher:
    """`local`, `slurm` (its files in `folder`) or `dask`. Raises UserError for options of another launcher."""
    if name not in NAMES:
        raise UserError(f"--launcher: got {name!r}, expected one of: {', '.join(NAMES)}")
    for flag, given, owner in (("--scheduler", scheduler, "dask"), ("--slurm", slurm, "slurm")):
        if given and name != owner:
            raise UserError(f"{flag}: got {given!r} with --launcher {name}, expected --launcher {owner}; add it")
    if name == "slurm":
        from semiseg.bench.slurm import Slurm, SlurmSettings

        return Slurm(folder, SlurmSettings.parse(slurm or {}, where="slurm"), jobs)
    if name == "dask":
        from semiseg.bench.dask import Dask

        return Dask(scheduler, jobs)
    return Local(jobs, device)
