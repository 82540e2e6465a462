"""From the values in label files to class values: declared ones stay, relabelled ones change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Annotated, Any, Protocol

import numpy as np
from jaxtyping import Int
from pydantic import Field

LOWEST, HIGHEST = -(2**31), 2**31 - 1
MOST_IN_A_RANGE = 2**16
LabelValue = Annotated[int, Field(ge=LOWEST, le=HIGHEST)]
"""What label files hold as they are read: 32 bits."""


def is_label_value(value: Any) -> bool:
    return type(value) is int and LOWEST <= value <= HIGHEST


class Declared(Protocol):
    """What a dataset or a plan says about label values."""

    @property
    def classes(self) -> Mapping[str, int] | None: ...
    @property
    def relabel(self) -> Mapping[int, int]: ...
    @property
    def other_is_background(self) -> bool: ...
    @property
    def ignore(self) -> int | None: ...


def class_values(values: Int[np.ndarray, "*any"], declared: Declared) -> Int[np.ndarray, "*any"]:
    """Every value replaced by the class value that it stands for; what is not declared stays as it is."""
    if not declared.relabel and not declared.other_is_background:
        return values
    found, where = np.unique(values, return_inverse=True)
    meant = np.array([class_value(int(value), declared) for value in found], values.dtype)
    return meant[where].reshape(values.shape)


def class_value(value: int, declared: Declared) -> int:
    """The class value, or `ignore`, that one value in a label file stands for."""
    if value in declared.relabel:
        return declared.relabel[value]
    return 0 if declared.other_is_background and not _is_known(value, declared) else value


def undeclared(values: Iterable[int], declared: Declared) -> list[int]:
    """The values that stand for no class, neither by themselves nor relabelled; none where nothing is declared."""
    if declared.classes is None:
        return []
    return [value for value in values if value not in declared.relabel and not _is_known(value, declared)]


def _is_known(value: int, declared: Declared) -> bool:
    return value in (declared.classes or {}).values() or value == declared.ignore


def listed(relabel: Mapping[int, int]) -> dict[str, str]:
    """For people: class value to the further values that stand for it, as in `{"3": "1000-1035, 11100"}`."""
    result = {}
    for meant in sorted(set(relabel.values())):
        values = sorted(value for value, other in relabel.items() if other == meant)
        runs = [[value for _, value in run] for _, run in groupby(enumerate(values), key=lambda at: at[1] - at[0])]
        result[str(meant)] = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return result


def one_by_one(relabel: Any) -> Any:
    """What `listed` made, as further value to class value; entries of that form, and what is no mapping, stay.

    Raises ValueError for what is neither, and for a value that comes twice.
    """
    if not isinstance(relabel, Mapping):
        return relabel
    result: dict[Any, Any] = {}
    for key, value in relabel.items():
        pairs = {key: value} if not isinstance(value, str) else dict.fromkeys(_spread(value), key)
        if twice := sorted(result.keys() & pairs.keys()):
            raise ValueError(f"got {twice[0]} twice, expected each value once; remove one")
        result |= pairs
    return result


def _spread(text: str) -> list[int]:
    values: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(-?[0-9]{1,10})(?:-(-?[0-9]{1,10}))?\s*", part)
        if not match:
            raise ValueError(f"got {text!r:.200}, expected values and ranges, as in '1000-1035, 11100'; correct it")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 <= last - first < MOST_IN_A_RANGE:
            raise ValueError(
                f"got {part.strip()!r}, expected a range that rises, by less than {MOST_IN_A_RANGE}; correct it"
            )
        values += range(first, last + 1)
    return values
