"""Command lines: every flag of every command with values that make no sense, none, twice; and the environment."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import typer

from campaign.case import Case
from campaign.world import words
from semiseg.cli import app

COMMANDS = {
    "check": "check D",
    "plan": "@plan out",
    "prepare": "@prepare",
    "train": "@train --out out",
    "predict": "predict RUN @scan --out out",
    "evaluate": "evaluate PRED D --out out",
    "bench": "@bench --out BENCH",
    "rank": "rank RUN @scan --out out",
    "review": "review RUN @scan --out out",
    "report": "report RUN --out out.html",
    "simulate": "simulate brats --subjects 1 --spacing-mm 6 --out out",
    "export": "export RUN --out out",
    "layers": "layers RUN",
    "demo": "demo --out out",
}
TEXTS = {"long": "x" * 5000, "nowhere": "nowhere/☃", "device": "/dev/null", "lines": "a\nb"}
EMPTY, NOT_UTF8 = "", os.fsdecode(b"caf\xe9")
"""No flag may have either: each command is tried with one flag, and the program refuses them before it looks at any."""
NO_NUMBERS = {"word": "x", "nan": "nan"}
NO_COUNTS = {**NO_NUMBERS, "part": "1.5", "inf": "inf"}
COUNTS = {"0": "0", "-1": "-1", "2-to-the-63": str(2**63), "-2-to-the-70": str(-(2**70)), "digits": "9" * 5000}
NO_SIZES = {**NO_NUMBERS, "inf": "inf", "-inf": "-inf", "-1": "-1", "beyond": "1e999"}
SIZES = {"0": "0", "1e308": "1e308", "1e-308": "1e-308"}
AT_LEAST_1 = {"--count", "--runs", "--jobs", "--workers", "--steps", "--subjects", "--size"}
ENDLESS = {("train", "--steps"), ("bench", "--steps"), ("bench", "--runs"), ("bench", "--upper-runs")}
"""What may be asked for in any number, and is done."""
TAKEN = {
    "--licence": {*TEXTS},
    "--description": {*TEXTS},
    "--out": {"lines", "nowhere"},
    "--config": {"device"},  # an empty file
    "bench --device": {*TEXTS},  # all its runs are there already
}
"""Flag to the texts that may be meant."""
BELONG_TO = {
    **dict.fromkeys(("--truth", "--beside", "--overlay-channel", "--overlay-window"), "--overlay"),
    "--scheduler": "--launcher",
    "--size": "brats",
    "--workers": "processes",
}
"""Flag to what a message may speak of instead."""
SLOW = {"demo", "simulate"}
"""What only values that are refused are given to."""


@dataclass(frozen=True)
class Flag:
    command: str
    name: str
    """Of an argument in capitals, as it has no flag."""
    kind: Any


def flags() -> Iterator[Flag]:
    """Every flag and argument of the application itself."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for registered in app.registered_commands:
        name = registered.name or registered.callback.__name__
        hints = typing.get_type_hints(registered.callback)
        for parameter in commands[name].params:
            kind = hints[parameter.name]
            kinds = [one for one in typing.get_args(kind) if one is not type(None)] or [kind]
            kind = typing.get_args(kinds[0])[0] if typing.get_origin(kinds[0]) is list else kinds[0]
            argument = parameter.param_type_name == "argument"
            yield Flag(name, parameter.name.upper() if argument else parameter.opts[0], kind)


def cases() -> Iterator[Case]:
    for flag in flags():
        if flag.name.startswith("--"):
            yield from _of_a_flag(flag)
        else:
            yield from _of_an_argument(flag)
    for command, line in COMMANDS.items():
        yield from _of_a_command(command, words(line))
    yield Case("flag/unknown-command", ("trian",), (2,), ("trian",), writes=())
    yield from _environment()


def _of_a_flag(flag: Flag) -> Iterator[Case]:
    refused, maybe = _values(flag)
    if flag.command in SLOW:
        maybe = {}
    for values, exits in ((refused, (2, 3)), (maybe, (0, 2, 3, 4, 6))):
        for label, value in values.items():
            given = flag.name if flag.kind is bool else f"{flag.name}={value}"
            line = (*words(COMMANDS[flag.command]), given)
            names = (flag.name, flag.name[2:].replace("-", "_"), *_shown(value), BELONG_TO.get(flag.name, flag.name))
            writes = (value,) if flag.name == "--out" else (line[-2],)
            yield Case(f"flag/{flag.command}/{flag.name[2:]}/{label}", line, exits, names, writes=(*writes, "nowhere"))


def _values(flag: Flag) -> tuple[dict[str, str], dict[str, str]]:
    """What must be refused, and what may be taken; of every value its name."""
    if flag.kind is bool:
        return {}, {"given": "yes"} if flag.name != "--resume" else {}
    if flag.kind is float:
        return NO_SIZES, SIZES
    if flag.kind is int:
        endless = (flag.command, flag.name) in ENDLESS
        low = ("0", "-1", "-2-to-the-70") if flag.name in AT_LEAST_1 else ()
        refused = NO_COUNTS | {label: COUNTS[label] for label in low}
        return refused, {} if endless else {label: text for label, text in COUNTS.items() if label not in low}
    taken = TAKEN.get(flag.name, set()) | TAKEN.get(f"{flag.command} {flag.name}", set())
    return ({label: text for label, text in TEXTS.items() if (label in taken) is may} for may in (False, True))  # type: ignore[return-value]


def _shown(value: str) -> tuple[str, str]:
    """As messages show it: as it is, or as Python writes it."""
    return value[:40] or "''", ascii(value[:40])[1:-1]


def _of_an_argument(flag: Flag) -> Iterator[Case]:
    command, *rest = words(COMMANDS[flag.command])
    at = 1 if flag.name == "LABELS" else 0
    for label, value in TEXTS.items():
        line = (command, *rest[:at], value, *rest[at + 1 :])
        names = (*_shown(value), flag.name)
        yield Case(f"flag/{command}/{flag.name}/{label}", line, (2, 3), names, writes=())


def _of_a_command(command: str, line: tuple[str, ...]) -> Iterator[Case]:
    many = command in ("predict", "rank", "review", "report")  # take as many paths as are given
    more: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "unknown": ((*line, "--no-such-flag"), ("no-such-flag",)),
        "abbreviated": ((*line, "--ou", "x"), ("--ou",)),
        "no-value": ((*line, "--out"), ("--out",)),
        "empty-value": ((*line, "--out", EMPTY), ("--out",)),
        "empty-argument": ((line[0], EMPTY, *line[1:]), (command,)),
        "not-utf-8": ((*line, "--out", NOT_UTF8), ("caf",)),
        "one-argument-more": ((*line, "more", "and", "more"), ("more",)),
        "alone": ((command, "--out", "out"), ("argument", "Usage", "--labelled")),
    }
    for label, (words_given, names) in more.items():
        if (label, command) != ("alone", "demo"):
            exits = (2, 3) if many or label == "not-utf-8" else (2,)
            yield Case(f"flag/{command}/{label}", words_given, exits, names, writes=())


# the environment

VARIABLES = {
    "SEMISEG_WORKERS": ("0", "-1", "many", "1.5", "9" * 30, " "),
    "SEMISEG_DEVICE": ("gpu", "cuda:99", "cuda:-1", "meta", " ", "cpu:7"),
    "SEMISEG_CACHE": ("/dev/null", "/dev/null/x", "/proc/nowhere", "D/images/case0.nii.gz", "x" * 5000),
    "nnUNet_raw": ("/dev/null", "x" * 5000, "\n"),
    "COLUMNS": ("0", "-1", "x"),
    "HOME": ("", "/dev/null"),
    "LC_ALL": ("C", "nowhere"),
    "MPLBACKEND": ("nonsense", "TkAgg"),
}


def _environment() -> Iterator[Case]:
    for variable, values in VARIABLES.items():
        for index, value in enumerate(values):
            for command in ("check", "train", "predict"):
                name = f"environment/{variable}/{index}/{command}"
                names = (variable, *_shown(value), "--device", "--workers")
                yield Case(name, words(COMMANDS[command]), (0, 2, 3), names, before=partial(_set, variable, value))


def _set(variable: str, value: str) -> None:
    os.environ[variable] = value
