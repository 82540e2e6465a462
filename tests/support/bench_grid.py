"""A comparison small enough for tests: balls, networks of a few weights, a handful of steps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from support.command_line import TINY, semiseg
from support.scans import ball, write_nifti

from semiseg.jobs.job import Ended, Job
from semiseg.progress import set_quiet

FLAGS = (
    *("--methods", "equireg", "--labelled", "2,4", "--runs", "2", "--upper-runs", "1", "--test", "2", "--val", "1"),
    *(*(word for word in TINY if word not in ("--precision", "32")), "--set", "training.precision=32", "--steps", "4"),
    *("--set", "training.validate_every=2", "--workers", "1", "--device", "cpu"),
)


class InProcess:
    """Runs jobs in this process, which has imported everything already; the jobs are the same command lines."""

    at_once = 1

    def __init__(self) -> None:
        self.done: list[str] = []

    def run(self, jobs: Sequence[Job]) -> Ended:
        for job in jobs:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            job.log.with_suffix(".lock").touch()
            code, _, err = semiseg(*job.command[3:])  # after `python -m semiseg.cli`
            set_quiet(False)  # which the run asked for, for its own process
            job.log.write_text(err)
            self.done.append(job.log.stem)
            yield job, code


def write_balls(root: Path, labelled: int = 9, unlabelled: int = 2) -> Path:
    """images/, labels/, unlabelled/; case1 has its ball elsewhere, so that scores differ between cases."""
    for index in range(labelled + unlabelled):
        image, label = ball((12, 14, 10), index)
        folder = "images" if index < labelled else "unlabelled"
        write_nifti(root / folder / f"case{index}.nii.gz", np.roll(image, index, 0))
        if index < labelled:
            write_nifti(root / "labels" / f"case{index}.nii.gz", np.roll(label, index, 0))
    return root
