"""From the values in label files to class values: declared ones stay, relabelled ones change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
from jaxtyping import Int


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
