"""Flags and `--set` into settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semiseg.errors import UserError

_DATA_FLAGS = (
    "layout",
    "classes",
    "unlabelled",
    "labelled",
    "val",
    "test",
    "fold",
    "draw",
    "split_seed",
    "transductive",
    "strict",
)


def settings_of(config: Path | None, assignments: list[str] | None, data: str, flags: dict[str, Any]) -> Any:
    """Flags over --set over --config over a recipe over defaults."""
    from semiseg.experiments.run_settings import RunSettings

    return RunSettings.parse(values_of(config, assignments, data, flags), where="")


def values_of(config: Path | None, assignments: list[str] | None, data: str, flags: dict[str, Any]) -> dict[str, Any]:
    from semiseg.experiments.run_settings import read_settings

    given = values_set(assignments)
    given["data.path"] = str(Path(data))  # without the slash that a shell's completion adds
    targets = {name: f"data.{name}" for name in _DATA_FLAGS}
    targets |= {"method": "method.name", "steps": "training.steps", "precision": "training.precision"}
    targets |= {name: name for name in ("recipe", "seed", "dims", "memory_gb", "init", "score")}
    targets["plan"] = "plan_file"
    if flags.get("corrected"):
        given["data.corrected"] = [str(folder) for folder in flags["corrected"]]
    for flag, key in targets.items():
        if flags.get(flag) is not None:
            given[key] = str(flags[flag]) if isinstance(flags[flag], Path) else flags[flag]
    return read_settings(config, given)


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
    import yaml

    given: dict[str, Any] = {}
    for key, value in assigned(assignments).items():
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {key}: got {value!r}, expected a YAML value, such as 3, true or [1, 2]") from None
    return given


def one_of(value: str | None, flag: str, choices: tuple[str, ...]) -> Any:
    if value is not None and value not in choices:
        raise UserError(f"{flag}: got {value!r}, expected one of: {', '.join(choices)}")
    return value
