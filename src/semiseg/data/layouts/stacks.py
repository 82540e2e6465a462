"""Files that hold many cases, unpacked into the cache once, a file a case."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from semiseg.data.images import Scan, write_like
from semiseg.data.layouts.listing import scan_files
from semiseg.files import cache_folder, new_folder
from semiseg.progress import say

_VERSION = 2  # of what unpacking writes: raise it when that changes


def unpacked(
    sources: Sequence[Path], make: Callable[[], Sequence[Scan]], what: str = "slice", counts: Sequence[int] = ()
) -> list[Path]:
    """The files of the scans that `make` makes of `sources`, written unless they are there from before.

    what: a scan is, in the names of the files. counts: slices of each scan, where the sources do not say. The files
    are made anew when one of these, or a source, changes. Raises what `make` raises; nothing is left behind then.
    """
    states = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    key = hashlib.blake2b(json.dumps([_VERSION, what, list(counts), states]).encode(), digest_size=16).hexdigest()
    target = cache_folder() / "unpacked" / key
    if not target.is_dir():
        say(f"{sources[0].parent}: unpacking the {what}s of {names(sources)} into {target}")
        scans = make()
        with new_folder(target) as folder:
            for index, scan in enumerate(scans):
                write_like(folder / f"{what}_{index:03d}.nii.gz", scan.array, scan)
    return [target / f"{what}_{index:03d}.nii.gz" for index in range(len(scan_files(target)))]


def origin(files: Sequence[Path], sources: Sequence[Path], what: str = "slice") -> str:
    """Where the cases of `unpacked` came from, as a note."""
    return f"{len(files)} {what}s of {names(sources)}, unpacked in {files[0].parent.parent}"


def names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)
