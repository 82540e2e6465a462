"""Writing files so that nothing half-written is ever left under its final name.

What is not finished lies under a temporary name. A process that is killed leaves it behind; the next one that writes
to the same folder removes it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from semiseg.errors import InputError, UserError
from semiseg.settings import unusual

STALE_S = 24 * 3600
"""Unchanged for so long, a temporary file is nobody's: clocks of machines that share a disk differ by less."""
_TEMPORARY = re.compile(r"\.semiseg-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp")
"""Begins a temporary name: where its process runs, the number of the process, chance."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` (with its suffixes); move it over `path` when the block succeeds."""
    path = Path(path)
    temporary = _beside(path, "".join(path.suffixes[-2:]))  # nibabel and matplotlib choose the format by the ending
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path, *, same: bool = True) -> Iterator[Path]:
    """A folder that appears under its name whole or not at all.

    same: another process may have been faster; it wrote the same, which stays. Else a folder that is not empty is an
    OSError.
    """
    temporary = _beside(target)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if not (same and target.is_dir()):
            temporary.rename(target)
    except OSError as error:
        if not (same and target.is_dir()):
            if error.errno is None:  # numpy's words for a write that was cut short
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from None
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path, suffix: str = "") -> Path:
    """A temporary name beside `path`, whose folder is made, and cleared of what earlier processes left there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # in /proc, whatever its parents
        raise UserError(
            f"{path.parent}: got a place where no folder can be made, expected another; choose one"
        ) from None
    _remove_stale_once(path.parent)
    return path.with_name(f".semiseg-{_where()}-{os.getpid()}-{secrets.token_hex(4)}.tmp{suffix}")


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is one that is being written, or was when its process was killed."""
    return _TEMPORARY.match(name) is not None


def remove_stale(folder: Path, *, alone: bool = False) -> None:
    """Remove the temporary files and folders of processes that have ended.

    Those of this machine go by the number of the process. The disk may be shared and the process run elsewhere, where
    nothing is known of it: such files are removed when they are a day old. alone: nobody else writes to `folder`, so
    all are. What cannot be removed stays.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if is_temporary(entry.name)]:
            path = folder / name
            with suppress(OSError):
                if alone or _has_ended(name) or time.time() - _last_change(path) > STALE_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


@cache
def _remove_stale_once(folder: Path) -> None:
    """Once a process: a cache may hold many thousands of files."""
    remove_stale(folder)


def _has_ended(name: str) -> bool:
    """Whether the process that a temporary name tells of has ended for certain."""
    found = _TEMPORARY.match(name)
    if found is None or found[1] != _where() or os.name != "posix":  # Windows would end the process that it asks about
        return False
    try:
        os.kill(int(found[2]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, which lives
        pass
    return False


def _last_change(path: Path) -> float:
    """Of a file, or of a folder and what is in it."""
    changes: list[float] = [file.lstat().st_mtime for file in (path, *path.glob("*"))]
    return max(changes)


@cache
def _where() -> str:
    """What the numbers of processes are unique in: a machine from start to start, and a container of its own on it."""
    marks = [platform.node()]
    with suppress(OSError):  # elsewhere than on Linux
        marks += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.blake2b("\n".join(marks).encode(), digest_size=4).hexdigest()


def is_there(path: Path) -> bool:
    """`Path.exists`, which raises for names that nothing can have, such as one that is too long."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, expected: str, action: str) -> Any:
    """What a JSON file holds. Raises InputError, naming the file, for whatever is wrong with it."""
    return _read(path, lambda text: _parsed(text, json.loads), expected, action)


def read_yaml(path: Path, expected: str, action: str) -> Any:
    """What a YAML file holds; nothing in it can run code. Raises InputError for whatever is wrong with it."""
    return _read(path, parse_yaml, expected, action)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text; nothing in it can run code. Raises ValueError for whatever is wrong with it."""
    import yaml

    return _parsed(text, yaml.safe_load)


def _read(path: Path, parse: Callable[[str], Any], expected: str, action: str) -> Any:
    try:
        return parse(Path(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        found = "text that is not UTF-8"
    except OSError as error:
        found = str(error.strerror or error)
    except ValueError as error:
        found = str(error)
    raise InputError(f"{path}: got {found}, expected {expected}; {action}")


def _parsed(text: str, parse: Callable[[str], Any]) -> Any:
    try:
        values = parse(text)
    except RecursionError:
        found = "values that are nested too deeply"
    except Exception as error:  # yaml raises errors of its own, and ValueError for a date of the 99th of a month
        found = " ".join(str(error).split())[:300] or type(error).__name__
    else:
        found = unusual(values)
        if not found:
            return values
    raise ValueError(found)


def cache_folder() -> Path:
    """`SEMISEG_CACHE`, else `semiseg` in the XDG cache folder; made where it can be, for nobody but its user.

    What lies there is taken for what this program made. Raises UserError if anybody could have put it there.
    """
    given = os.environ.get("SEMISEG_CACHE")
    folder = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semiseg"
    _require_private(folder)
    return folder


@cache
def _require_private(folder: Path) -> None:
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name != "posix" or not folder.is_dir():
        return
    steps = [step for path in (folder.absolute(), folder.resolve()) for step in (path, *path.parents)]  # a link, too
    planted = [step for step in steps if _open_to_all(step.parent) and step.lstat().st_uid not in (0, os.getuid())]
    if _open_to_all(folder):
        got = "a folder that every user may write to"
    elif planted:
        got = f"{planted[0]} of user {planted[0].lstat().st_uid}, who made it where everybody may"
    else:
        return
    raise UserError(
        f"{folder}: got {got}, expected a cache that only you can fill: scans are taken from there; "
        "set SEMISEG_CACHE to a folder of your own"
    )


def _open_to_all(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IWOTH)
