"""One function on many items, in several processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from semiseg.errors import OutOfMemory, Preempted, UserError
from semiseg.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """`SEMISEG_WORKERS`, else the cores that this process may use, 8 at most."""
    given = os.environ.get("SEMISEG_WORKERS")
    if given:
        if not given.isdecimal():
            raise UserError(f"SEMISEG_WORKERS: got {given!r}, expected a whole number; correct the variable")
        return int(given)
    # macOS and Windows do not say which cores a process may use
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


@contextmanager
def preempted_by_sigterm(message: str) -> Iterator[None]:
    """SIGTERM, which schedulers send before they kill, raises Preempted with this message in the block.

    In the main thread only: whoever runs another handles signals.
    """

    def stop(*_: object) -> None:
        raise Preempted(message)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def each(function: Callable[[Item], Result], items: Sequence[Item], description: str, workers: int) -> Iterator[Result]:
    """Results in the order of the items, with progress; in this process if there is one worker or one item.

    Raises what `function` raises, and OutOfMemory if a process was killed.
    """
    if workers <= 1 or len(items) <= 1:
        yield from track(map(function, items), description, total=len(items))
        return
    # spawn: a forked process would inherit torch's threads and locks in an unknown state
    context = get_context("spawn")
    try:
        with ProcessPoolExecutor(min(workers, len(items)), mp_context=context, initializer=_one_thread) as pool:
            yield from track(pool.map(function, items), description, total=len(items))
    except BrokenProcessPool:
        raise OutOfMemory(
            f"workers: got {workers} processes, of which one was killed (usually for memory), "
            "expected them to finish; lower --workers"
        ) from None


def _one_thread() -> None:
    """The processes share the cores; before torch is imported, which reads this once."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
