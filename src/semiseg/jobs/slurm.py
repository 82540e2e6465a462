"""Jobs on SLURM: one array, whose tasks start the command lines of a list in a file.

`sbatch` is called directly: what submitit adds is pickled functions and results, and it takes SIGTERM away from the
command, which saves a checkpoint on it. Exit statuses come back as files, so nothing but a shared folder is needed (no
accounting database). A task that is preempted, or near its time limit, is requeued and goes on from its checkpoint.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from semiseg.errors import Preempted, UserError
from semiseg.files import write_json, write_text
from semiseg.jobs.job import Ended, Job, run_job
from semiseg.settings import Settings

POLL_S = 2.0
ASK_EVERY = 15
"""Polls between questions to SLURM, which serves many."""
NOTICE_S = 120
"""Before the time limit: enough to save a checkpoint."""
LOST = -1
"""Exit status of a job that SLURM ended without one: cancelled, out of memory, a node that went down."""

SHORTEST_S = 600
"""Of time limits: loading and saving take some of it, and the notice comes before it."""


class SlurmSettings(Settings):
    """What is asked of SLURM for each job. What is not said is up to the cluster, or to sbatch's SBATCH_ variables."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: str | None = None
    """Limit, as sbatch takes it: 4:00:00. A job that reaches it is requeued and goes on."""
    cpus: int = Field(default=1, ge=1)
    gpus: int | None = Field(default=None, ge=1)
    memory: str | None = None
    """As sbatch takes it: 8G."""

    @field_validator("time", mode="before")
    @classmethod
    def _time_for_some_steps(cls, given: Any) -> Any:
        if isinstance(given, int):
            raise ValueError(f"{given}: expected quotes around it, as in '4:00:00', which YAML would take for a number")
        if isinstance(given, str) and 0 < seconds(given) < SHORTEST_S:
            raise ValueError(f"{given!r}: expected at least 10 minutes: a job that never gets on would start for ever")
        return given

    def flags(self) -> list[str]:
        named = {"cpus": "cpus-per-task", "memory": "mem"}
        given = self.model_dump(mode="json", exclude_none=True)
        return [f"--{named.get(key, key)}={value}" for key, value in given.items()]


def seconds(limit: str) -> int:
    """Of a time limit as sbatch takes it: minutes[:seconds], hours:minutes:seconds or days-hours[:minutes[:seconds]].
    0 for what is none of these, such as `UNLIMITED`: sbatch says what it does not understand."""
    days, dash, rest = limit.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in (*parts, days or "0")) or len(parts) > 3:
        return 0
    units = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    return int(days or 0) * 86400 + sum(int(part) * unit for part, unit in zip(parts, units, strict=False))


class Slurm:
    """folder: where lists of jobs, their logs and exit statuses lie, on a disk that the nodes see too. at_once: largest
    number of jobs at the same time."""

    def __init__(self, folder: Path, settings: SlurmSettings, at_once: int | None = None) -> None:
        if shutil.which("sbatch") is None:
            raise UserError(
                "--launcher slurm: got no sbatch command, expected SLURM; use a login node, or another launcher"
            )
        self._folder, self._settings, self.at_once = Path(folder).absolute(), settings, at_once

    def run(self, jobs: Sequence[Job]) -> Ended:
        self._cancel_earlier()
        batch = self._folder / secrets.token_hex(4)
        (batch / "status").mkdir(parents=True)
        self._folder.chmod(0o700)  # what nodes execute
        write_json(batch / "jobs.json", [[job.command, str(job.log.absolute()), str(job.folder)] for job in jobs])
        number = self._submit(batch, len(jobs))
        write_text(batch / "job", number)
        waiting, polls, gone = dict(enumerate(jobs)), 0, set[int]()
        try:
            while waiting:
                time.sleep(POLL_S)
                polls += 1
                # asked before the files are looked at: what has ended by now has left its file, unless it was lost
                queued = _queued(number) if polls % ASK_EVERY == 0 else None
                for index, job in list(waiting.items()):
                    status = _status(batch, index)
                    if status is None and queued is not None and index not in queued:
                        gone, again = gone | {index}, index in gone  # twice: a shared disk may be late
                        status = LOST if again else None
                    if status is not None:
                        del waiting[index]
                        yield job, status
        finally:
            if waiting:
                subprocess.run(["scancel", number], check=False)
        shutil.rmtree(batch)

    def _submit(self, batch: Path, count: int) -> str:
        array = f"0-{count - 1}" + (f"%{self.at_once}" if self.at_once else "")
        command = shlex.join([sys.executable, "-m", "semiseg.jobs.slurm", str(batch)])
        words = ["sbatch", "--parsable", "--requeue", f"--array={array}", f"--signal=B:TERM@{NOTICE_S}"]
        words += ["--open-mode=append", f"--output={batch}/%a.log", "--job-name=semiseg", *self._settings.flags()]
        made = subprocess.run([*words, f"--wrap=exec {command}"], capture_output=True, text=True, check=False)
        if made.returncode:
            shutil.rmtree(batch)
            raise UserError(f"--launcher slurm: got {made.stderr.strip()!r} from sbatch; correct --slurm settings")
        return _job_number(made.stdout.partition(";")[0], "sbatch")  # a cluster's name may follow

    def _cancel_earlier(self) -> None:
        """Of a launcher that was killed: its jobs would do the same work. They save a checkpoint."""
        for file in self._folder.glob("*/job"):
            number = _job_number(file.read_text(encoding="utf-8", errors="replace"), str(file))
            subprocess.run(["scancel", "--quiet", number], check=False)
            while _queued(number):
                time.sleep(POLL_S)
            shutil.rmtree(file.parent)


def _job_number(text: str, where: str) -> str:
    """What may become an argument of scancel: the text of a file that somebody sends could be one of its flags."""
    number = text.strip()
    if not re.fullmatch(r"\d{1,12}(_\d{1,9})?", number, re.ASCII):
        raise UserError(
            f"{where}: got {number!r:.80}, expected the number of a SLURM job; remove it, or use another --out"
        )
    return number


def _status(batch: Path, index: int) -> int | None:
    try:
        return int((batch / "status" / str(index)).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _queued(number: str) -> set[int] | None:
    """Array indices that wait, run or are being requeued; None where SLURM does not answer now."""
    words = ["squeue", "--noheader", "--array", f"--jobs={number}", "--format=%K"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    if said.returncode:
        return set() if "Invalid job id" in said.stderr else None
    return {int(word) for word in said.stdout.split() if word.isdigit()}


def run_task(batch: Path) -> None:
    """On a node: run one job of the list, and leave its exit status as a file, unless it will be started again."""
    number = os.environ["SLURM_JOB_ID"]
    command, log, folder = json.loads((batch / "jobs.json").read_text(encoding="utf-8"))[
        int(os.environ["SLURM_ARRAY_TASK_ID"])
    ]
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    status = run_job(Job(tuple(command), Path(log), Path(folder)), stopping=stopping)
    if not stopping.is_set() and status != Preempted.exit_code:
        write_text(batch / "status" / os.environ["SLURM_ARRAY_TASK_ID"], str(status))
        return
    # preempted jobs are requeued by SLURM, and cancelled ones must not be; running ones are near their time limit
    state = subprocess.run(["squeue", "-h", "-j", number, "-o", "%T"], capture_output=True, text=True, check=False)
    if state.stdout.strip() == "RUNNING":
        subprocess.run(["scontrol", "requeue", number], check=False)


if __name__ == "__main__":
    run_task(Path(sys.argv[1]))
