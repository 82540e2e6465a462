"""How far something is and how long it still takes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

_LINE_EVERY_S = 10.0
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Show nothing from now on (or show it again)."""
    global _quiet
    _quiet = quiet


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show progress on stderr.

    On a terminal that is a bar with the time left; elsewhere at most a line every 10 s, so that short work
    writes nothing. total: how many items there are, where `items` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if _quiet:
        return iter(items)
    return _bar(items, description, total) if sys.stderr.isatty() else _lines(items, description, total)


def _bar(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=description)


def _lines(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    start = written = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - written >= _LINE_EVERY_S:
            written = now
            print(_line(description, done, total, now - start), file=sys.stderr, flush=True)
        yield item


def _line(description: str, done: int, total: int | None, elapsed_s: float) -> str:
    if not total:
        return f"{description}: {done}"
    return f"{description}: {done}/{total}{time_left(done, total, elapsed_s)}"


def time_left(done: int, total: int, elapsed_s: float) -> str:
    """Words to put after how far something is, if that can be told."""
    return f", about {duration(elapsed_s * (total - done) / done)} left" if 0 < done < total else ""


def duration(seconds: float) -> str:
    """In words, such as `2 h 38 min` or `5 min 3 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def say(line: str) -> None:
    """One line to the user on stderr, where it does not mix with results; nothing when quiet."""
    if not _quiet:
        print(line, file=sys.stderr, flush=True)
