"""Sharing the cases of one command out over jobs. The same command without a shard puts the parts together: it finds
what they did, does what is missing, and writes the files that describe all of it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from semiseg.bench.launchers import Job, Launcher, last_line
from semiseg.errors import SomeCasesFailed, UserError
from semiseg.files import write_json
from semiseg.manifest import MANIFEST, file_hashes
from semiseg.summary import ScoredCase

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Every `count`-th case, from the `index`-th on, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--shard: got {text!r}, expected I/N with I from 1 to N, such as 1/4")
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
        (out / MANIFEST).unlink(missing_ok=True)
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


def refuse_other_predictions(out: Path, made_by: Mapping[str, Any]) -> None:
    """Predictions of two models in one folder would be scored as those of one: UserError names what differs."""
    # none where it was interrupted before its end
    for manifest in (out / MANIFEST, *sorted(shards_folder(out).glob(f"*/{MANIFEST}"))):
        try:
            before = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
            changed = [key for key, value in made_by.items() if before.get(key, value) != value]
        except (ValueError, AttributeError) as error:
            wanted = "expected the manifest of earlier predictions; choose another --out"
            raise UserError(f"{manifest}: got {error!r}, {wanted}") from None
        if changed:
            raise UserError(
                f"{out}: got predictions made with other {', '.join(changed)}, expected the same for all; "
                "pass --overwrite to replace them, or choose another --out"
            )


def write_part(
    out: Path, shard: Shard, settings: Mapping[str, Any], scored: Sequence[ScoredCase], inputs: Mapping[str, list[Path]]
) -> None:
    """Scored cases for `read_parts`. inputs: case to the files that its scores were made from."""
    cases = [
        {
            **asdict(case),
            "unknown_truth": sorted(case.unknown_truth),
            "unknown_prediction": sorted(case.unknown_prediction),
            "inputs": file_hashes(inputs[case.case]),
        }
        for case in scored
    ]
    values = {"version": version("semiseg"), "settings": dict(settings), "cases": cases}
    write_json(shard.folder(out) / "scores.json", values)


def read_parts(out: Path, settings: Mapping[str, Any], inputs: Mapping[str, list[Path]]) -> dict[str, ScoredCase]:
    """Cases that shards scored with these settings, from files that are still the same."""
    return {case.case: case for case in _parts(out, settings, inputs)}


def _parts(out: Path, settings: Mapping[str, Any], inputs: Mapping[str, list[Path]]) -> Iterator[ScoredCase]:
    for path in sorted(shards_folder(out).glob("*/scores.json")):
        part = json.loads(path.read_text(encoding="utf-8"))
        if part["version"] != version("semiseg") or part["settings"] != json.loads(json.dumps(settings)):
            continue
        for values in part["cases"]:
            if values.pop("inputs") == file_hashes(inputs.get(values["case"], [])):
                for name in ("unknown_truth", "unknown_prediction"):
                    values[name] = frozenset(values[name])
                yield ScoredCase(**values)
