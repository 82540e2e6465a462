"""Flags and `--set` into settings.

Flags that several commands have travel in groups: a field for each flag, None where it was not given. No field has a
default, so that a command that forgets one, or misspells it, does not pass the type checker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semiseg.errors import UserError

if TYPE_CHECKING:
    from semiseg.experiments.run_settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class ScanFlags:
    """Which scans, and what part each plays: the fields of `DataConfig` that have a flag."""

    path: str
    layout: str | None
    classes: str | None
    unlabelled: str | None
    corrected: list[Path] | None
    labelled: str | None
    val: str | None
    test: str | None
    fold: str | None
    draw: int | None
    split_seed: int | None
    transductive: bool | None
    strict: bool | None

    def settings(self) -> dict[str, Any]:
        given = {f"data.{name}": value for name, value in vars(self).items()}
        given["data.path"] = str(Path(self.path))  # without the slash that a shell's completion adds
        given["data.corrected"] = [str(folder) for folder in self.corrected or ()] or None
        return given


@dataclass(frozen=True, kw_only=True)
class PlanFlags:
    """What the plan is made from."""

    file: Path | None
    dims: str | None
    size: str | None
    memory_gb: float | None

    def settings(self) -> dict[str, Any]:
        file = None if self.file is None else str(self.file)
        return {"plan_file": file, "dims": self.dims, "size": self.size, "memory_gb": self.memory_gb}


@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """What is trained, and how. method: of `train`; a bench has several."""

    method: str | None
    steps: int | None
    precision: str | None
    seed: int | None
    init: str | None
    score: bool | None
    rounds: int | None

    def settings(self) -> dict[str, Any]:
        training = {"training.steps": self.steps, "training.precision": self.precision}
        return {**training, "seed": self.seed, "init": self.init, "score": self.score, "rounds": self.rounds}


@dataclass(frozen=True, kw_only=True)
class SettingsFlags:
    """Where every other setting comes from."""

    recipe: str | None
    config: Path | None
    assignments: list[str] | None
    """Of `--set`."""


def settings_of(
    sources: SettingsFlags, scans: ScanFlags, plan: PlanFlags, training: TrainingFlags | None = None
) -> RunSettings:
    """Flags over --set over --config over a recipe over defaults. A file that --method names is imported."""
    from semiseg.experiments.run_settings import RunSettings

    return RunSettings.parse(values_of(sources, scans, plan, training), where="")


def values_of(
    sources: SettingsFlags, scans: ScanFlags, plan: PlanFlags, training: TrainingFlags | None = None
) -> dict[str, Any]:
    from semiseg.experiments.run_settings import read_settings

    flags = {"recipe": sources.recipe, **scans.settings(), **plan.settings()}
    own = None
    if training is not None:
        from semiseg.methods.own import MethodFile, names_a_file

        flags |= training.settings()
        if training.method is not None and names_a_file(training.method):
            own = MethodFile.read(training.method, "--method")
        flags["method.name"] = own.name if own else training.method
    given = values_set(sources.assignments) | {key: value for key, value in flags.items() if value is not None}
    values = read_settings(sources.config, given)
    if own:
        values["method"]["file_sha256"] = own.load(values["method"].get("file_sha256"))
    return values


def compared(methods: str | None, values: Mapping[str, Any]) -> tuple[list[str] | None, dict[str, Any]]:
    """The names in `--methods`, and `values` with those that are classes in files, which are imported."""
    from semiseg.methods.own import BUILT_IN, MethodFile, names_a_file

    described = values.get("methods") or {}
    names = []
    for word in listed(methods) or ():
        name, equals, text = word.partition("=")
        names.append(name)
        if not equals and not names_a_file(word):
            continue
        if not equals or name in BUILT_IN:
            raise UserError(f"--methods: got {word!r}, expected NAME=FILE:CLASS; choose a NAME of your own")
        if not isinstance(described, Mapping):  # what it is instead, bench_settings tells
            continue
        file = MethodFile.read(text, f"--methods {name}=")
        settings = described.get(name) or {}
        if settings.get("name", file.name) != file.name:
            raise UserError(
                f"--methods {word}: got class {file.name}, expected {settings['name']}, as methods.{name}.name says; "
                "choose another NAME"
            )
        loaded = {**settings, "name": file.name, "file_sha256": file.load(settings.get("file_sha256"))}
        described = {**described, name: loaded}
    return names or None, {**values, "methods": described}


def listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def assigned(assignments: list[str] | None, flag: str = "--set") -> dict[str, str]:
    """`key: text` of every KEY=TEXT."""
    given = {}
    for text in assignments or []:
        key, equals, value = text.partition("=")
        if not equals:
            example = {"--set": "method.alpha=0.3", "--slurm": "partition=gpu"}[flag]
            raise UserError(f"{flag}: got {text!r}, expected key=value, such as {example}")
        given[key.strip()] = value
    return given


def values_set(assignments: list[str] | None) -> dict[str, Any]:
    """`dotted.key: value` of every --set, whose values are YAML."""
    from semiseg.files import parse_yaml

    given: dict[str, Any] = {}
    for key, value in assigned(assignments).items():
        try:
            given[key] = parse_yaml(value)
        except ValueError:
            raise UserError(
                f"--set {key}: got {value!r:.200}, expected a YAML value, such as 3, true or [1, 2]"
            ) from None
    return given


def one_of(value: str | None, flag: str, choices: tuple[str, ...]) -> Any:
    if value is not None and value not in choices:
        raise UserError(f"{flag}: got {value!r}, expected one of: {', '.join(choices)}")
    return value
