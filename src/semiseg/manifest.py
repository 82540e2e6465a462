"""What made a folder of results: `manifest.json` with version, inputs and their hashes, outputs, seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from semiseg.files import write_json

MANIFEST = "manifest.json"


def file_hash(path: Path) -> str:
    """128-bit BLAKE2b of the file's bytes, as 32 hexadecimal digits; the file is streamed."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def file_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Absolute path to hash, in the order given."""
    return {str(Path(path).absolute()): file_hash(path) for path in paths}


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
