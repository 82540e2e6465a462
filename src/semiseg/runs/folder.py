"""A run folder: configuration, splits, log, checkpoints, exported model. Only here are its files read."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from semiseg.data.splits import SplitNames
from semiseg.errors import InputError, UserError
from semiseg.files import read_json, read_yaml, remove_stale, write_json, write_text
from semiseg.manifest import MANIFEST
from semiseg.progress import say
from semiseg.runs.checkpoint import Checkpoint, read_checkpoint
from semiseg.runs.contents import (
    Environment,
    RunConfig,
    RunResult,
    Score,
    TrainLine,
    ValidationLine,
    read_scores,
)
from semiseg.settings import ReadBack, is_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

METRICS = "metrics.csv"
"""In a folder of scores."""
_KINDS: dict[str, type[ReadBack]] = {"train": TrainLine, "validation": ValidationLine}
_SETTINGS, _RESTORE = "the settings of a run", "restore the file or choose another --out"

T = TypeVar("T")


class RunFolder:
    """Where everything about one run lies. Making one creates nothing."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.splits = self.path / "splits.json"
        self.provenance = self.path / "provenance.json"
        self.plan = self.path / "plan.json"
        self.environment = self.path / "env.json"
        self.log = self.path / "metrics.jsonl"
        self.result = self.path / "result.json"
        self.lock = self.path / "run.lock"
        self.model = self.path / "model"
        self.pictures = self.path / "pictures"
        self.progress = self.path / "progress.png"
        self.last = self.path / "checkpoints" / "last.safetensors"
        self.previous = self.path / "checkpoints" / "previous.safetensors"
        self.best = self.path / "checkpoints" / "best.safetensors"
        self.scores = self.path / "scores"
        self.scores_of_last = self.path / "scores-last"

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that a run leaves in its folder, by its name there."""
        files = (self.splits, self.provenance, self.plan, self.environment, self.log, self.result, self.progress)
        return (*(path.name for path in files), "model", "checkpoints", "pictures")

    @property
    def finished(self) -> bool:
        """Whether training came to its end; the result is written last."""
        return self.result.exists()

    @property
    def scored(self) -> bool:
        """Whether all its test scans have scores."""
        return (self.scores / MANIFEST).exists() and not (self.scores / "failed.csv").exists()

    def read_result(self) -> RunResult:
        """Raises InputError for an unfinished run, or a damaged file."""
        if not self.finished:
            raise InputError(
                f"{self.path}: got no {self.result.name}, expected a finished run; "
                "finish it with `semiseg train --resume`"
            )
        action = "restore the file, or train again with another --out"
        expected = "the result of a run"
        return RunResult.of(read_json(self.result, expected, action), str(self.result), expected, action)

    def read_splits(self) -> SplitNames:
        """Which cases played which part. Raises InputError for a missing or damaged file."""
        return SplitNames.load(self.splits)

    def read_scores(self, checkpoint: Literal["last"] | None = None) -> list[Score]:
        """Of the exported model's predictions, or of the last checkpoint's, which may be the same.

        Raises InputError for a run without scores, or a damaged table.
        """
        of_last = checkpoint == "last" and (self.scores_of_last / METRICS).exists()
        return read_scores((self.scores_of_last if of_last else self.scores) / METRICS)

    def read_environment(self) -> dict[str, Any]:
        """Machine, versions and command line that the run was begun with; empty where they were not kept."""
        if not self.environment.exists():
            return {}
        expected, action = "what a run was begun with", "restore the file, or remove it"
        values = read_json(self.environment, expected, action)
        Environment.of(values, str(self.environment), expected, action)
        return dict(values)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run's lock, which is free again when its holder ends, however it does.

        Checkpoints that an earlier process was writing when it was killed, wherever it ran, are removed. Raises
        UserError, naming host and process, while another process holds it.
        """
        with self.lock.open("a+", encoding="utf-8") as file:
            try:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_stale(self.last.parent, alone=True)
            except BlockingIOError:
                file.seek(0)
                raise UserError(
                    f"{self.path}: got another process that trains here ({file.read(200).strip() or 'unknown'}), "
                    "expected none; wait until it ends, or choose another --out"
                ) from None
            except OSError:  # a shared disk without locks
                say(f"{self.path}: its disk has no locks; see that no other process trains here")
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            yield

    def write_config(self, settings: dict[str, Any]) -> None:
        write_text(self.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    def read_config(self) -> dict[str, Any]:
        """Every setting. Raises InputError for a missing or damaged file."""
        values = read_yaml(self.config, _SETTINGS, _RESTORE)
        RunConfig.of(values, str(self.config), _SETTINGS, _RESTORE)
        return dict(values)

    def config_text(self) -> str:
        """The settings as they are written. Raises InputError where there are none."""
        self.read_config()
        return self.config.read_text(encoding="utf-8")

    def write_environment(self, **more: Any) -> None:
        packages = ("semiseg", "torch", "accelerate", "monai", "numpy", "scipy", "nibabel")
        facts = {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "packages": {name: version(name) for name in packages},
            "command": sys.argv,
            **more,
        }
        write_json(self.environment, facts)

    def append(self, **values: Any) -> None:
        """One line in the log."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Every whole line of the log, as it was written; none without a log. A line has a step and a kind; of training
        steps and validations, what `TrainLine` and `ValidationLine` have.

        The last line may be cut off by a crash and is left out. Any other damaged line is left out too, and the user
        is told once: after `--resume` it is gone.
        """
        if not self.log.exists():
            return []
        lines: list[dict[str, Any]] = []
        *ended, rest = self.log.read_bytes().split(b"\n")
        for number, text in enumerate((*ended, rest), start=1):
            try:
                line = json.loads(text.decode("utf-8"))
                whole = isinstance(line, dict) and type(line.get("step")) is int and type(line.get("kind")) is str
                whole = whole and is_text(json.dumps(line, ensure_ascii=False))
                if whole and line["kind"] in _KINDS:
                    _KINDS[line["kind"]].model_validate(line)
            except (ValueError, RecursionError):
                whole = False
            if whole:
                lines.append(line)
            elif text.strip() and number <= len(ended):
                _tell_damaged(self.log.absolute(), number)
        return lines

    def train_lines(self) -> list[TrainLine]:
        """What was logged of training steps."""
        return [TrainLine.model_validate(line) for line in self.read_log() if line["kind"] == "train"]

    def validations(self) -> list[ValidationLine]:
        """What was logged of validations."""
        return [ValidationLine.model_validate(line) for line in self.read_log() if line["kind"] == "validation"]

    def cut_log(self, step: int) -> None:
        """Drop what was logged after `step` steps: those steps will be taken again."""
        kept = [json.dumps(line) + "\n" for line in self.read_log() if line["step"] <= step]
        write_text(self.log, "".join(kept))

    def rotate_checkpoint(self) -> None:
        """Keep the last checkpoint as the previous one; a kill at any moment leaves at least one of them whole."""
        if self.last.exists():
            self.last.replace(self.previous)

    def newest_checkpoint(self) -> Checkpoint | None:
        """The last checkpoint, else the previous one; None if there is none. A damaged one is passed over."""
        return self.newest_of(read_checkpoint)[0]

    def newest_of(self, read: Callable[[Path], T]) -> tuple[T | None, list[Path]]:
        """What `read` makes of the newest checkpoint that it does not refuse with InputError, and those it did refuse.

        None where there is no checkpoint. The user is told of a damaged one: a disk may be failing. Raises UserError if
        all are damaged.
        """
        damaged: dict[Path, str] = {}
        for path in (self.last, self.previous):
            if path.exists():
                try:
                    found = read(path)
                except InputError as error:
                    damaged[path] = str(error)
                else:
                    for problem in damaged.values():
                        say(f"warning: {problem}; went on with {path.name}, which is older")
                    return found, list(damaged)
        if damaged:
            raise UserError("; ".join(damaged.values()) + f"; remove {self.path} and train again")
        return None, []


@cache
def _tell_damaged(log: Path, line: int) -> None:
    say(f"{log}: line {line} is damaged and left out")
