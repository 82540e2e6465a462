"""What is left when a command is killed at any moment, or finds the disk full, and whether the next one makes it good.

A moment is when the layer of files is about to rename or remove something, or has just opened a file to write to it.
At each of them the process is killed, and at each write the disk is full: from there on everything that is written to
that file meets ENOSPC, from the kernel itself.
"""

from __future__ import annotations

import builtins
import functools
import io
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.child import Ended, forked, run
from campaign.judge import half_written
from campaign.world import World, bench_in_process, words

FULL = 2
"""The exit code of a full disk."""


@dataclass(frozen=True)
class Work:
    """A command that is disturbed."""

    line: str
    exact: str = ""
    """Files in `out` that two undisturbed runs must have made the same to the last bit, so that they are compared."""
    resume: bool = False
    """Afterwards it is called with --resume; else as it was."""
    times: str = r"env\.json$"
    """Files that hold times or the command line: they must be there."""
    fresh: bool = False
    """With an empty cache."""
    within: str = ""
    """Only moments whose path matches this."""
    every: int = 1
    """Only each third moment, or such."""
    before: Callable[[], object] | None = None

    @property
    def words(self) -> tuple[str, ...]:
        return words(self.line)

    @property
    def out(self) -> str:
        return self.words[-1]


def small_demo() -> None:
    """In a child: few scans, two steps."""
    import semiseg.demo

    small = {"steps": 2, "unlabelled": 1, "test": 1, "spacing_mm": 6.0}
    semiseg.demo.run_demo = functools.partial(semiseg.demo.run_demo, **small)


WEIGHTS = "model/model.safetensors model/model.json checkpoints/last.safetensors checkpoints/best.safetensors"
WORKS = {
    "check": Work("check D", fresh=True),
    "plan": Work("@plan out", fresh=True),
    "prepare": Work("@prepare", fresh=True),
    "train": Work("@train --out out", WEIGHTS, resume=True),
    "train --resume": Work("@train --resume --out HALF", WEIGHTS),
    "train --score": Work(
        "@train --score --out out", f"{WEIGHTS} scores/metrics.csv", resume=True, within="out/(predictions|scores)"
    ),
    "train --rounds": Work(
        "@train --rounds 1 --set student.lowest_dice=0 --set student.largest_z=null --out out",
        "model/model.safetensors checkpoints/last.safetensors rounds/0/pseudo/pseudo_labels.csv",
        resume=True,
        within="out/[^/]*$|out/(model|checkpoints)/|out/rounds/0/(pseudo|ranking|threshold)",  # a round is a `train`
    ),
    "predict": Work("predict RUN @scan --probabilities --overlay --out out", "case5.nii.gz case5_prob.nii.gz"),
    "predict --overwrite": Work("predict RUN D/images --overwrite --out PRED", "case5.nii.gz"),
    "predict --shard": Work("predict RUN D/images --shard 2/2 --out PART", "case1.nii.gz"),
    "predict, put together": Work("predict RUN D/images --out PART", "case1.nii.gz"),
    "evaluate": Work("evaluate PRED D --out out", "metrics.csv"),
    "evaluate --shard": Work("evaluate PRED D --shard 2/2 --out SCORED-PART"),
    "evaluate, put together": Work("evaluate PRED D --out SCORED-PART", "metrics.csv"),
    "rank": Work("rank RUN @scan --out out", "ranking.csv"),
    "review": Work("review RUN D --ranking RANK --out out", "review.csv review.json"),
    "report": Work("report RUN --out out.html"),
    "export": Work("export RUN --out out", "model.safetensors model.json README.md"),
    "simulate brats": Work("simulate brats --subjects 1 --spacing-mm 6 --out out"),
    "simulate covid": Work("simulate covid --subjects 2 --size 32 --out out"),
    "simulate wholebrain": Work("simulate wholebrain --subjects 1 --spacing-mm 4 --out out"),
    "bench": Work(
        "@bench --out out",
        "plan.json",
        times=r"env\.json$|bench\.json$|(results|summary)\.csv$|progress\.png$",
        within="out/[^/]*$|out/logs|out/runs/[^/]*$",  # the runs are those of `train --score`
        before=bench_in_process,
    ),
    "demo": Work(
        "demo --out out", "roam/model/model.safetensors", times=r"env\.json$|\.html$", every=15, before=small_demo
    ),
}


@dataclass(frozen=True)
class Moment:
    """what: kill or full. kind: rename, write or remove."""

    work: str
    what: str
    number: int
    kind: str
    path: str

    def __str__(self) -> str:
        return f"{self.work}/{self.what}-{self.number} ({self.kind} {self.path})"


def disturb_everything(world: World, chosen: Sequence[str], at_once: int) -> tuple[int, int]:
    """Print what went badly and a table; returns how much was tried, and how much of it went badly."""
    expected, moments = {}, []
    works = [name for name in WORKS if not chosen or name in chosen]
    for name, answer in forked(lambda name: _undisturbed(world, name), works, at_once):
        if "complaints" in answer:
            raise AssertionError(f"{name}: {answer['complaints']}")
        expected[name] = answer["left"]
        moments += [Moment(name, what, *rest) for what, *rest in answer["moments"]]
    badly: dict[str, list[Moment]] = {}
    for moment, answer in forked(lambda moment: _disturbed(world, moment, expected[moment.work]), moments, at_once):
        if answer["complaints"]:
            badly.setdefault(moment.work, []).append(moment)
            print(f"BADLY {moment}: {'; '.join(answer['complaints'])}", flush=True)
    print("\n".join(_table(works, moments, badly)))
    return len(moments), sum(map(len, badly.values()))


def _table(works: list[str], moments: list[Moment], badly: Mapping[str, list[Moment]]) -> Iterator[str]:
    yield "| command | killed at a rename | at a write | at a removal | full disks | all survived |"
    yield "|---|---|---|---|---|---|"
    for name in works:
        mine = [moment for moment in moments if moment.work == name]
        kills = [sum(one.what == "kill" and one.kind == kind for one in mine) for kind in ("rename", "write", "remove")]
        full = sum(one.what == "full" for one in mine)
        survived = f"no: {len(badly[name])}" if name in badly else "yes"
        yield f"| `{name}` | {' | '.join(map(str, kills))} | {full} | {survived} |"


def _undisturbed(world: World, name: str) -> dict[str, Any]:
    """What a work leaves, twice; where the two differ (times), only the name counts."""
    left = []
    for turn in ("first", "second"):
        place = _place(world, name, turn)
        ended = run(WORKS[name].words, place, lambda: _begin(name, Disturbance(name)))
        assert ended.code == 0, f"{name}: {ended}"
        left.append(_left(place, WORKS[name].out))
        seen = [json.loads(line) for line in (place / "tmp" / "moments").read_text().splitlines()]
        shutil.rmtree(place)
    first, second = left
    assert first.keys() == second.keys(), first.keys() ^ second.keys()
    times = re.compile(WORKS[name].times)
    same = {path: text if text == second[path] and not times.search(path) else "" for path, text in first.items()}
    for path in WORKS[name].exact.split():
        assert same[path], f"{name}: {path} differs between two undisturbed runs"
    chosen = [(number, kind, path) for number, (kind, path) in enumerate(seen) if re.search(WORKS[name].within, path)]
    chosen = chosen[:: WORKS[name].every]
    moments = [("kill", *one) for one in chosen] + [("full", *one) for one in chosen if one[1] == "write"]
    return {"left": same, "moments": moments}


def _disturbed(world: World, moment: Moment, expected: Mapping[str, str]) -> dict[str, Any]:
    work = WORKS[moment.work]
    place = _place(world, moment.work, f"{moment.what}-{moment.number}")
    ended = run(work.words, place, lambda: _begin(moment.work, Disturbance(moment.work, moment.what, moment.number)))
    complaints = _about_the_end(moment, ended, _left(place, work.out), expected)
    for path in (place / "here" / work.out, place / "cache"):
        for file in [path, *path.rglob("*")] if path.exists() else []:
            hidden = any(part.startswith(".") for part in file.relative_to(place).parts)
            if (problem := half_written(file)) and (not hidden or moment.what == "full"):
                complaints.append(f"left {problem}")
    again = run([*work.words, *["--resume"] * work.resume], place, lambda: _begin(moment.work, None))
    if again.code != 0:
        complaints.append(f"afterwards exit {again.code}: {again.err[-400:]}")
    else:
        complaints += _differences(_left(place, work.out), expected)
    shutil.rmtree(place, ignore_errors=True)
    return {"complaints": complaints[:4]}


def _about_the_end(moment: Moment, ended: Ended, left: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    if moment.what == "kill":
        return (
            [] if ended.code == -signal.SIGKILL else [f"exit {ended.code}, expected to be killed: {ended.err[-300:]}"]
        )
    if ended.code == 0:  # what is only remembered need not be written, and nothing needs no room
        return [f"exit 0, though the disk was full, {problem}" for problem in _differences(left, expected)]
    found = []
    if ended.code != FULL or "Traceback" in ended.err:
        found.append(f"exit {ended.code}, expected {FULL}: {ended.err[-300:]}")
    if len(re.findall("^error:", ended.err, re.MULTILINE)) != 1 or "No space left on device" not in ended.err:
        found.append(f"no message about the full disk: {ended.err[-300:]}")
    return found


def _differences(left: Mapping[str, str], expected: Mapping[str, str]) -> Iterator[str]:
    for path in sorted(left.keys() | expected.keys()):
        if path not in left:
            yield f"afterwards without {path}"
        elif path not in expected:
            yield f"afterwards with {path}"
        elif expected[path] and left[path] != expected[path]:
            yield f"afterwards with another {path}"


def _place(world: World, name: str, turn: str) -> Path:
    place = world.copy(f"{name} {turn}", WORKS[name].words)
    if WORKS[name].fresh:
        shutil.rmtree(place / "cache")
        (place / "cache").mkdir()
    return place


def _left(place: Path, out: str) -> dict[str, str]:
    """File to a hash of what it holds, without times and without where it lies."""
    import hashlib

    root = place / "here" / out
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        if path.is_file() and path.suffix not in (".lock", ".log") and "tensorboard" not in path.parts:
            text = path.read_bytes().replace(os.fsencode(place), b"PLACE")
            if path.suffix == ".safetensors":  # without the length of its header, padded, in which times are
                text = re.sub(rb"} +", b"}", text[8:])
            text = re.sub(rb'(\\?"(duration_s|memory_gb)\\?": )[^,\n}]+', rb"\1 0", text).rstrip()
            name = str(path.relative_to(root)) if path != root else path.name
            found[name] = hashlib.sha256(text).hexdigest()
    return found


# in the child


@dataclass
class Disturbance:
    """Notes every moment, and at the one with this number kills the process, or makes the disk full."""

    work: str
    what: str = "nothing"
    number: int = -1
    seen: int = 0

    def at(self, kind: str, path: Any) -> bool:
        """Whether the disk is full now."""
        here = self.seen
        self.seen += 1
        os.write(self.log, f"{json.dumps([kind, os.path.relpath(path)])}\n".encode())
        if here == self.number and self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return here == self.number and self.what == "full"

    def install(self) -> None:
        self.log = os.open(f"{os.environ['TMPDIR']}/moments", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.root = os.path.dirname(os.getcwd())  # noqa: PTH120, PTH109
        for name in ("rename", "replace", "unlink", "remove", "rmdir"):
            setattr(os, name, self._noted(getattr(os, name), "rename" if name in ("rename", "replace") else "remove"))
        builtins.open = io.open = self._opening(open)  # type: ignore[assignment]
        import safetensors.torch

        import semiseg.runs.checkpoint as checkpoint

        checkpoint.save_file = self._saving(safetensors.torch.save)

    def _ours(self, path: Any) -> bool:
        return isinstance(path, str | Path) and os.path.abspath(path).startswith(self.root)  # noqa: PTH100

    def _noted(self, function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def noted(path: Any, *args: Any, **kwargs: Any) -> Any:
            there = kwargs.get("dir_fd") is not None or os.path.lexists(path)
            if there and (kwargs.get("dir_fd") is not None or self._ours(path)):
                self.at(kind, args[0] if kind == "rename" else path)
            return function(path, *args, **kwargs)

        return noted

    def _opening(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def opening(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            file = function(path, mode, *args, **kwargs)
            # locks are opened for both; what is opened to be flushed is not written to
            if "+" not in mode and set(mode) & set("wax") and self._ours(path) and self.at("write", path):
                full = os.open("/dev/full", os.O_WRONLY)
                os.dup2(full, file.fileno())
            return file

        return opening

    def _saving(self, save: Callable[..., bytes]) -> Callable[..., None]:
        """In the place of a function that writes by other means than Python's: its errors are these."""
        from safetensors import SafetensorError

        def saving(tensors: Any, path: Path, metadata: Any = None) -> None:
            content = save(tensors, metadata)
            Path(path).write_bytes(content[: len(content) // 2])  # its own moment
            Path(path).write_bytes(content)

        def saving_safely(tensors: Any, path: Path, metadata: Any = None) -> None:
            try:
                saving(tensors, path, metadata)
            except OSError as error:
                raise SafetensorError(
                    f"Error while serializing: I/O error: {error.strerror} (os error {error.errno})"
                ) from None

        return saving_safely


def _begin(name: str, disturbance: Disturbance | None) -> None:
    if work := WORKS[name].before:
        work()
    if disturbance:
        disturbance.install()
