"""All inputs, and a sample of them."""

from __future__ import annotations

from collections.abc import Sequence

from campaign import documents, flags, folders, pictures, scans, settings, tables, weights
from campaign.case import Case, refuse_twice

KINDS = (scans, pictures, folders, tables, documents, weights, settings, flags)
"""Modules, each with the cases of one kind of input."""


def every_case() -> list[Case]:
    return refuse_twice(case for kind in KINDS for case in kind.cases())


def sample(cases: Sequence[Case], count: int) -> list[Case]:
    """So many cases, each command and kind in turn, those in the middle of their kind first."""
    kinds: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        kinds.setdefault((case.name.partition("/")[0], case.words[0]), []).append(case)
    order = [sorted(kind, key=lambda case: hash_of(case.name)) for kind in kinds.values()]
    turns = [kind[turn] for turn in range(max(map(len, order), default=0)) for kind in order if turn < len(kind)]
    return turns[:count]


def hash_of(name: str) -> int:
    """The same in every process."""
    import zlib

    return zlib.crc32(name.encode())
