"""A command line in a process of its own: forked from this one, which has imported everything, and within limits."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

LIMIT_S = 30
"""Of a core; on an idle machine every case ends within five."""
PATIENCE_S = 240
"""For what waits for ever without computing, and for machines that have much else to do."""
MEMORY = 3 * 2**30
"""Bytes beyond what this process has mapped already."""
LARGEST_FILE = 2**28

T = TypeVar("T")


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: negative for a signal, as in `subprocess`; None where it was stopped for its time."""

    code: int | None
    out: str
    err: str
    computed_s: float = 0.0
    """Seconds of a core."""


def run(words: Sequence[str], place: Path, before: Callable[[], object] | None = None) -> Ended:
    """Run `semiseg WORDS` in `place/here`, with the cache, home and temporary folder in `place`.

    before: called in the child just before the command, to change something there.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before_s = _of_children_s()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            _be_command(words, place, out.fileno(), err.fileno(), before)
        code = _waited_for(child, time.monotonic() + PATIENCE_S)
        said = [_text(file) for file in (out, err)]
    return Ended(None if code == -signal.SIGXCPU else code, *said, _of_children_s() - before_s)


def _be_command(words: Sequence[str], place: Path, out: int, err: int, before: Callable[[], object] | None) -> None:
    code = 1
    try:
        os.setsid()
        faulthandler.disable()  # of pytest
        os.chdir(place / "here")
        temporary = str(place / "tmp")
        os.environ |= {"HOME": str(place / "home"), "TMPDIR": temporary, "MPLCONFIGDIR": temporary}
        os.environ["SEMISEG_CACHE"] = str(place / "cache")
        tempfile.tempdir = None
        for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(file, number)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
        sys.argv = ["semiseg", *words]
        _be_an_ordinary_user()
        _limit()
        if before:
            before()
        from semiseg.__main__ import main

        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _limit() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_AS, mapped + MEMORY),
        (resource.RLIMIT_CPU, LIMIT_S),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most + (what == resource.RLIMIT_CPU)))  # SIGXCPU first, then SIGKILL


def _be_an_ordinary_user() -> None:
    """Root reads what nobody may read. Without two of its capabilities permissions bind it as they bind others."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for index in range(3):
        sets[index] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


def _waited_for(child: int, deadline: float) -> int | None:
    try:
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        return None
    finally:
        try:
            os.killpg(child, signal.SIGKILL)  # what it has started too
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError, PermissionError):
            pass


def _of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read(2**22).decode("utf-8", "backslashreplace"))


def forked(function: Callable[[T], Any], items: Sequence[T], at_once: int) -> Iterator[tuple[T, Any]]:
    """Each item with what the function returns for it (JSON), computed in a process of its own, `at_once` at a time."""
    waiting, running = list(reversed(items)), {}
    while waiting or running:
        while waiting and len(running) < at_once:
            item = waiting.pop()
            read, write = os.pipe()
            child = os.fork()
            if not child:
                _answer(function, item, write)
            os.close(write)
            running[read] = (child, item)
        for read in select.select(list(running), [], [])[0]:
            child, item = running.pop(read)
            with open(read, "rb") as answer:  # noqa: PTH123
                text = answer.read()
            os.waitpid(child, 0)
            yield item, json.loads(text)


def _answer(function: Callable[[T], Any], item: T, write: int) -> None:
    try:
        text = json.dumps(function(item))
    except BaseException:
        text = json.dumps({"complaints": [f"the campaign itself: {traceback.format_exc()}"]})
    with open(write, "w", encoding="utf-8") as answer:
        answer.write(text)
    os._exit(0)
