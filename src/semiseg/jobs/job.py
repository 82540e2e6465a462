"""A command line that may be started again after it was killed, and what runs it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from semiseg.errors import Preempted

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

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


def last_line(log: Path) -> str:
    """Of a job's log: where a command that fails says why."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")
