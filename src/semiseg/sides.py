"""Classes that are the same structure on the two sides of the body, known by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORDS = {"left": "left", "l": "left", "lh": "left", "right": "right", "r": "right", "rh": "right"}


def pairs(names: Iterable[str]) -> dict[str, str]:
    """Right structure to left structure, of those names that differ in their side alone.

    A side is a word of its own (`left thalamus`, `Right-Putamen`, `lung_R`, `ctx-lh-insula`), in either case.
    """
    of_side: dict[str, dict[str, str]] = {"left": {}, "right": {}}
    for name in names:
        sides = _sides(name)
        if len(sides) == 1:
            (side,) = sides
            rest = f"{name[: side.start()]}|{name[side.end() :]}".lower()
            of_side[_WORDS[side[0].lower()]].setdefault(rest, name)
    return {right: of_side["left"][rest] for rest, right in of_side["right"].items() if rest in of_side["left"]}


def without_side(name: str) -> str:
    """The structure's name alone."""
    for side in _sides(name):
        name = name[: side.start()] + name[side.end() :]
    return re.sub(r"[\s_-]*\(\s*\)|^[\s_-]+|[\s_-]+$", "", re.sub(r"([\s_-])[\s_-]+", r"\1", name)) or name


def _sides(name: str) -> list[re.Match[str]]:
    return [word for word in re.finditer(r"[^\W_]+", name) if word[0].lower() in _WORDS]
