"""Sharing the cases of one command out over jobs. The same command without a shard puts the parts together: it finds
what they did, does what is missing, and writes the files that describe all of it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from semiseg.errors import SomeCasesFailed, UserError
from semiseg.jobs.job import Job, Launcher, last_line
from semiseg.manifest import begin_anew

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Every `count`-th case, from the `index`-th on, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--shard: got {text!r:.100}, expected I/N with I from 1 to N, such as 1/4")
        return cls(int(found[1]), int(found[2]))

    def of(self, items: Sequence[T]) -> list[T]:
        return list(items[self.index - 1 :: self.count])

    def folder(self, out: Path) -> Path:
        """Where this one describes what it did."""
        return shards_folder(out) / f"{self.index}of{self.count}"


def shards_folder(out: Path) -> Path:
    return Path(out) / "shards"


def run_shards(words: Sequence[str], out: Path, launcher: Launcher, count: int, *, overwrite: bool = False) -> None:
    """Run `semiseg WORDS --shard I/N` for every shard, N being `count`; logs in `out/shards/logs`.

    overwrite: nothing that describes earlier work stays. Raises SomeCasesFailed if a shard did not end as it should;
    cases that failed are left to the command that puts the parts together.
    """
    folder = shards_folder(out)
    if overwrite:
        begin_anew(out, words[0])
        shutil.rmtree(folder, ignore_errors=True)
    start = (sys.executable, "-m", "semiseg.cli", *words, "--quiet", "--shard")
    jobs = [
        Job((*start, f"{index}/{count}"), folder / "logs" / f"{index}of{count}.log", Path.cwd())
        for index in range(1, count + 1)
    ]
    with closing(launcher.run(jobs)) as ended:
        failed = [job for job, status in ended if status not in (0, SomeCasesFailed.exit_code)]
    if failed:
        said = "; ".join(f"{last_line(job.log)} ({job.log})" for job in failed)
        raise SomeCasesFailed(f"{out}: {len(failed)} of {count} jobs failed: {said}; the same command goes on")
