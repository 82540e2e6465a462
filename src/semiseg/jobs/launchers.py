"""Where independent jobs run: on this machine, on SLURM, or on dask. A job is a command line; dask alone pickles it."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from semiseg.errors import UserError
from semiseg.jobs.job import Ended, Job, Launcher, run_job
from semiseg.processes import default_workers

NAMES = ("local", "slurm", "dask")


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


def visible_gpus() -> list[str]:
    """Names that CUDA_VISIBLE_DEVICES takes."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


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
        from semiseg.jobs.slurm import Slurm, SlurmSettings

        return Slurm(folder, SlurmSettings.parse(slurm or {}, where="slurm"), jobs)
    if name == "dask":
        from semiseg.jobs.dask import Dask

        return Dask(scheduler, jobs)
    return Local(jobs, device)
