"""One input: what is wrong with it, the command line that meets it, and how that may end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

REFUSED = (2, 3)
ANY = (0, 2, 3, 4, 6, 7)
"""Where a change may be harmless, or not: every documented end but a missing package and signals."""

T = TypeVar("T")


def nothing(_: Path) -> None:
    """An input whose command line is all that is wrong with it."""


@dataclass(frozen=True)
class Case:
    """damage: called with the copy of the world that the command will see as its current folder."""

    name: str
    words: tuple[str, ...]
    exits: tuple[int, ...]
    """Those that are well. A case that must be refused has no 0 here."""
    names: tuple[str, ...]
    """What a refusal has to speak of: one of these."""
    damage: Callable[[Path], object] = nothing
    writes: tuple[str, ...] = ("out",)
    """Where the command may write, in its current folder."""
    needs: tuple[str, ...] = ()
    """What it finds of the world, beside the study and what its words name."""
    then: Callable[[Path], str | None] | None = None
    """Called after exit 0: what is nonsense about the result, if anything is."""
    before: Callable[[], object] | None = None
    """Called in the process of the command, before it."""


def drawn(strategy: SearchStrategy[T], count: int, number: int) -> list[T]:
    """The same `count` values (or fewer, where there are no more) every time; number: the seed."""
    found: list[T] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    return found


def refuse_twice(cases: Iterable[Case]) -> list[Case]:
    """The cases by name; a name that comes twice could not be run alone."""
    named = {}
    for case in cases:
        assert case.name not in named, f"two cases {case.name}"
        named[case.name] = case
    return list(named.values())
