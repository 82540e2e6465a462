"""What is scored: every class, and every region that unites several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from semiseg.data.plan import Plan

Regions = Mapping[str, tuple[int, ...]]
"""Name to the values in label files that a region unites."""


@dataclass(frozen=True)
class Structure:
    """A class, or a region that unites several."""

    name: str
    kind: Literal["class", "region"]
    values: tuple[int, ...]
    """In label files."""

    @property
    def value(self) -> str:
        """For tables: the values, joined by +."""
        return "+".join(map(str, self.values))

    def mask(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Where a label map has one of the values."""
        return np.isin(array, self.values) if len(self.values) > 1 else array == self.values[0]

    def members(self, plan: Plan) -> tuple[int, ...]:
        """Class indices of the network."""
        index = {value: order for order, value in enumerate(plan.classes.values())}
        return tuple(index[value] for value in self.values)


def structures(classes: Mapping[str, int], regions: Regions) -> tuple[Structure, ...]:
    """The classes, of which none is the background, then the regions."""
    named = tuple(Structure(name, "class", (value,)) for name, value in classes.items())
    return named + tuple(Structure(name, "region", tuple(values)) for name, values in regions.items())


def structures_of(plan: Plan) -> tuple[Structure, ...]:
    """Every class but the first (the background), then the regions."""
    return structures(dict(list(plan.classes.items())[1:]), plan.regions)
