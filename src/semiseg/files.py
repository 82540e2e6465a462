"""Writing files so that nothing half-written is ever left under its final name."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semiseg.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` (with its suffixes); move it over `path` when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(path.suffixes[-2:])  # nibabel and matplotlib choose the format by the ending
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp{suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that appears under its name whole or not at all.

    Another process may have been faster; it wrote the same.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if not target.is_dir():
            temporary.rename(target)
    except OSError as error:
        if not target.is_dir():
            if error.errno is None:  # numpy's words for a write that was cut short
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from None
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, expected: str, action: str) -> Any:
    """What a JSON file holds. Raises InputError, naming the file, for whatever is wrong with it."""
    return _read(path, json.loads, expected, action)


def read_yaml(path: Path, expected: str, action: str) -> Any:
    """What a YAML file holds; nothing in it can run code. Raises InputError for whatever is wrong with it."""
    import yaml

    return _read(path, yaml.safe_load, expected, action)


def _read(path: Path, parse: Callable[[str], Any], expected: str, action: str) -> Any:
    try:
        return parse(Path(path).read_text(encoding="utf-8-sig"))
    except RecursionError:
        found = "values that are nested too deeply"
    except UnicodeDecodeError:
        found = "text that is not UTF-8"
    except OSError as error:
        found = str(error.strerror or error)
    except Exception as error:  # yaml raises errors of its own, and ValueError for a date of the 99th of a month
        found = " ".join(str(error).split())[:300] or type(error).__name__
    raise InputError(f"{path}: got {found}, expected {expected}; {action}")


def cache_folder() -> Path:
    """`SEMISEG_CACHE`, else `semiseg` in the XDG cache folder."""
    given = os.environ.get("SEMISEG_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semiseg"
