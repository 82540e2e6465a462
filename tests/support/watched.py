"""What happens while a block runs: files that are opened, by the kernel's word; events, by the interpreter's."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

Event = tuple[str, tuple[Any, ...]]

_OPEN, _OVERFLOW, _FOLDER = 0x20, 0x4000, 0x40000000  # of <sys/inotify.h>
_HEADER = struct.Struct("iIII")

needs_inotify = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel tells of opened files")


@contextmanager
def opened_in(*folders: Path) -> Iterator[set[Path]]:
    """Files directly in these folders that any process opens in the block, by whatever library; known at its end."""
    libc = ctypes.CDLL(None, use_errno=True)
    file = libc.inotify_init1(os.O_NONBLOCK)
    opened: set[Path] = set()
    try:
        places = {}
        for folder in folders:
            number = libc.inotify_add_watch(file, os.fsencode(folder), _OPEN)
            if file < 0 or number < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
            places[number] = folder
        yield opened
        for number, kind, name in _events(file):
            assert not kind & _OVERFLOW, "more files were opened than the kernel could tell of"
            if not kind & _FOLDER:
                opened.add(places[number] / name)
    finally:
        os.close(file)


def _events(file: int) -> Iterator[tuple[int, int, str]]:
    while True:
        try:
            block = os.read(file, 1 << 20)
        except BlockingIOError:
            return
        while block:
            number, kind, _, length = _HEADER.unpack_from(block)
            name = block[_HEADER.size : _HEADER.size + length].rstrip(b"\0")
            block = block[_HEADER.size + length :]
            yield number, kind, os.fsdecode(name)


_LISTENERS: list[tuple[tuple[str, ...], bool, list[Event]]] = []
_HOOKED: list[bool] = []


@contextmanager
def heard(*beginnings: str, refuse: bool = False) -> Iterator[list[Event]]:
    """The audit events of this process whose names begin so (https://docs.python.org/3/library/audit_events.html).

    refuse: what would cause one raises PermissionError instead; the event is kept all the same.
    """
    if not _HOOKED:  # a hook stays until the process ends
        sys.addaudithook(_hear)
        _HOOKED.append(True)
    events: list[Event] = []
    entry = (beginnings, refuse, events)
    _LISTENERS.append(entry)
    try:
        yield events
    finally:
        _LISTENERS.remove(entry)


def _hear(name: str, arguments: tuple[Any, ...]) -> None:
    for beginnings, refuse, events in _LISTENERS:
        if name.startswith(beginnings):
            events.append((name, arguments))
            if refuse:
                raise PermissionError(f"{name} while it is forbidden")
