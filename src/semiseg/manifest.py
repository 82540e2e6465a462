"""What made a folder of results: `manifest.json` with version, inputs and their hashes, outputs, seconds.

And which folders a command may write to: a folder is a command's own if its manifest says so or, where it was
interrupted, the mark that it left when it began.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field

from semiseg.errors import InputError, UserError
from semiseg.files import read_json, write_json
from semiseg.settings import ReadBack

MANIFEST = "manifest.json"
BEGUN = "begun.json"
"""In the folder of a command that has not ended."""


def file_hash(path: Path) -> str:
    """128-bit BLAKE2b of the file's bytes, as 32 hexadecimal digits; the file is streamed."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def json_hash(value: Any) -> str:
    """128-bit BLAKE2b of a value that JSON can hold, as 32 hexadecimal digits; the order of keys counts."""
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """With a hash of what is in it, so that `unsealed` notices a change."""
    return {**values, "hash": json_hash(values)}


def unsealed(values: Any) -> dict[str, Any]:
    """What was given to `sealed`. Raises ValueError for anything else."""
    if not isinstance(values, dict) or values.get("hash") != json_hash(
        {k: v for k, v in values.items() if k != "hash"}
    ):
        raise ValueError("values that were changed")
    return {key: value for key, value in values.items() if key != "hash"}


def file_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Absolute path to hash, in the order given. A file that cannot be read is left out: whoever needs it says so."""
    hashes = {}
    for path in map(Path, paths):
        with suppress(OSError):
            if path.is_file():  # a pipe would have no end
                hashes[str(path.absolute())] = file_hash(path)
    return hashes


class Made(ReadBack):
    """What a manifest says of how a folder was made."""

    command: str = ""
    inputs: dict[str, str] = Field(default_factory=dict)
    """File to hash."""
    models: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    """Hashes of the models' weights."""


def read_manifest(folder: Path) -> Made | None:
    """None where there is none. Raises InputError for a damaged one."""
    path = Path(folder) / MANIFEST
    if not path.exists():
        return None
    expected, action = "what semiseg left there", "restore it, or make the folder anew"
    return Made.of(read_json(path, expected, action), str(path), expected, action)


def claim(out: Path, command: str, writes: Iterable[str], *, inputs: Iterable[Path] = (), owned: bool = False) -> None:
    """Let `command` write to `out`, and mark the folder as its own until `write_manifest`.

    writes: names of files that it will write there. inputs: files that are read. owned: the folder is known to be the
    command's. Raises UserError, before anything is touched, for a file, for a folder that holds an input, for the
    results of another command, and for one of `writes` that semiseg did not write.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: got a file, expected a folder to write to; choose another --out")
    beside = next((path for path in inputs if Path(path).parent.resolve() == out.resolve()), None)
    if beside is not None:
        raise UserError(f"{out}: got a folder of the input, which holds {beside.name}, expected another --out")
    owner = command if owned else _owner(out)
    if owner not in (None, command):
        raise UserError(
            f"{out}: got the results of `semiseg {owner}`, expected an empty folder or an earlier `semiseg {command}`; "
            "choose another --out"
        )
    if owner is None:
        foreign = next((name for name in writes if (out / name).exists()), None)
        if foreign is not None:
            raise UserError(
                f"{out}: it holds {foreign}, which semiseg did not write here; choose another --out, or move it away"
            )
    if not owned:
        write_json(out / BEGUN, {"command": command, "version": version("semiseg")})


def begin_anew(out: Path, command: str) -> None:
    """Mark a folder of the command as unfinished, and take its manifest away: it would speak for files of earlier."""
    write_json(out / BEGUN, {"command": command, "version": version("semiseg")})
    (out / MANIFEST).unlink(missing_ok=True)


def settle(out: Path) -> None:
    """Take the mark of an unfinished command from a folder that is complete: its process was killed in between."""
    (out / BEGUN).unlink(missing_ok=True)


def _owner(out: Path) -> str | None:
    """The command that wrote, or began to write, to a folder; None where nothing says so.

    Raises InputError for a damaged manifest or mark.
    """
    for path in (out / MANIFEST, out / BEGUN):
        if path.is_file():
            found = read_json(path, "what semiseg left there", "choose another --out")
            if not isinstance(found, dict) or not isinstance(found.get("command"), str):
                raise InputError(f"{path}: got no command, expected what semiseg left there; choose another --out")
            return str(found["command"])
    return None


def write_manifest(
    folder: Path,
    command: str,
    inputs: Iterable[Path],
    outputs: Iterable[Path],
    duration_s: float,
    **extra: Any,
) -> None:
    """Write `folder/manifest.json`, last of all: where there is one, the folder is complete.

    inputs: files that were read; they are hashed now. outputs: files that were written in `folder`, with or
    without it in front. extra: further JSON values that belong to the command, such as its settings.
    """
    folder = Path(folder)
    paths = [Path(output) for output in outputs]
    names = [(path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix() for path in paths]
    write_json(
        folder / MANIFEST,
        {
            "command": command,
            "version": version("semiseg"),
            "inputs": file_hashes(inputs),
            "outputs": names,
            "duration_s": round(duration_s, 3),
            **extra,
        },
    )
    settle(folder)
