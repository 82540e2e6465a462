"""A run folder: configuration, splits, log, checkpoints, exported model."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from semiseg.errors import InputError, UserError
from semiseg.files import write_json, write_text
from semiseg.runs.checkpoint import Checkpoint, read_checkpoint


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
        self.model = self.path / "model"
        self.pictures = self.path / "pictures"
        self.progress = self.path / "progress.png"
        self.last = self.path / "checkpoints" / "last.safetensors"
        self.previous = self.path / "checkpoints" / "previous.safetensors"
        self.best = self.path / "checkpoints" / "best.safetensors"

    def write_config(self, settings: dict[str, Any]) -> None:
        write_text(self.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    def read_config(self) -> dict[str, Any]:
        try:
            values = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            values = None
        if not isinstance(values, dict):
            raise InputError(
                f"{self.config}: got no settings, expected those of a run; restore the file or choose another --out"
            )
        return values

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
        """Every whole line of the log; a line cut off by a crash is left out."""
        if not self.log.exists():
            return []
        lines = []
        for text in self.log.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
        return lines

    def cut_log(self, step: int) -> None:
        """Drop what was logged after `step` steps: those steps will be taken again."""
        kept = [json.dumps(line) + "\n" for line in self.read_log() if line["step"] <= step]
        write_text(self.log, "".join(kept))

    def rotate_checkpoint(self) -> None:
        """Keep the last checkpoint as the previous one; a kill at any moment leaves at least one of them whole."""
        if self.last.exists():
            self.last.replace(self.previous)

    def drop_damaged_checkpoint(self) -> None:
        """If only the previous checkpoint is whole, make it the last one: the next rotation must not lose it."""
        if self.last.exists():
            try:
                read_checkpoint(self.last)
            except InputError:
                self.previous.replace(self.last)

    def newest_checkpoint(self) -> Checkpoint | None:
        """The last checkpoint, else the previous one; None if there is none. A damaged one is passed over."""
        damaged = []
        for path in (self.last, self.previous):
            if path.exists():
                try:
                    return read_checkpoint(path)
                except InputError as error:
                    damaged.append(str(error))
        if damaged:
            raise UserError("; ".join(damaged) + f"; remove {self.path} and train again")
        return None
