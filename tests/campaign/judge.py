"""Whether a command took its input well: what it may do, and what a defect of ours is."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from safetensors import safe_open

from campaign.case import Case
from campaign.child import LIMIT_S, Ended, run
from campaign.world import World

LONGEST = 20000
"""Characters on standard error: the longest message, and notes."""
_ERROR = re.compile(r"^(error|Error)\b.*: ", re.MULTILINE)
_WARNING = re.compile(r"^\S*\.py:\d+: \w*Warning", re.MULTILINE)


def try_case(case: Case, world: World, *, keep: bool = False) -> dict[str, Any]:
    """Run a case in a copy of the world; its name, exit code and complaints, none of them where it went well."""
    place = world.copy(case.name, [*case.words, *case.needs])
    case.damage(place / "here")
    before = contents(place)
    ended = run(case.words, place, case.before)
    complaints = judge(case, ended, before, place)
    if not keep:
        remove(place)
    return {
        "name": case.name,
        "code": ended.code,
        "complaints": complaints,
        "err": ended.err[-2000:],
        "s": round(ended.computed_s, 2),
    }


def judge(case: Case, ended: Ended, before: Mapping[str, str], place: Path) -> list[str]:
    """before: of `contents`."""
    allowed = [f"here/{name}" for name in case.writes]
    after = contents(place)
    changed = [path for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)]
    outside = [path for path in changed if not any(path == one or path.startswith(f"{one}/") for one in allowed)]
    made = [place / path for path in changed if path not in outside and path in after]
    complaints = [
        *_about_the_end(case, ended),
        *(f"touched {path}" for path in outside[:5]),
        *(f"left {problem}" for problem in map(half_written, made) if problem),
    ]
    if ended.code == 0 and case.then and (nonsense := case.then(place / "here")):
        complaints.append(nonsense)
    return complaints


def _about_the_end(case: Case, ended: Ended) -> list[str]:
    said = f"{ended.out}\n{ended.err}"
    if ended.code is None:
        return [f"no end within {LIMIT_S} s of computing"]
    found = []
    if "Traceback (most recent call last)" in said:
        found.append(f"a traceback: {ended.err.strip().splitlines()[-1][:300]}")
    if ended.code not in case.exits:
        found.append(f"exit {ended.code}, expected {' or '.join(map(str, case.exits))}")
    if len(ended.err) > LONGEST:
        found.append(f"{len(ended.err)} characters on standard error")
    if warning := _WARNING.search(said):
        found.append(f"a raw warning: {said[warning.start() :].splitlines()[0][:300]}")
    if ended.code and not found:
        told = len(_ERROR.findall(ended.err))
        # findings, which begin a line each, and scans that fail
        listed = ended.code == 4 or (
            ended.code == 3 and case.words[0] in ("check", "plan", "prepare", "train", "bench")
        )
        if told != 1 and not (listed and said.strip()):
            found.append(f"{told} messages")
        if not any(name in said for name in case.names):
            found.append(f"names none of {', '.join(case.names)}")
    return found


def contents(place: Path) -> dict[str, str]:
    """Every path but those in the cache and the temporary folder, and what is there: a hash, a link, a kind."""
    found = {}
    for folder, folders, files in _walk(place):
        for name in (*folders, *files):
            path = folder / name
            found[str(path.relative_to(place))] = _content(path)
    return found


def _walk(place: Path) -> Any:
    import os

    for folder, folders, files in os.walk(place):
        if folder == str(place):
            folders[:] = [name for name in folders if name not in ("cache", "tmp")]
        yield Path(folder), folders, files


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"a link to {path.readlink()}"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return "a folder" if path.is_dir() else "neither file nor folder"


def half_written(path: Path) -> str | None:
    """What is wrong with a file that a command has left; None for a whole one, and for what may be cut off: logs."""
    if re.fullmatch(r"\..*\.tmp(\..*)?|\..*\.[0-9a-f]{8}", path.name):
        return f"the temporary {path.name}"
    if not path.is_file() or path.is_symlink():
        return None
    try:
        _read(path)
    except Exception as error:
        return f"{path.name} half-written ({type(error).__name__}: {error})"[:300]
    return None


def _read(path: Path) -> None:
    if path.name.endswith((".nii", ".nii.gz")):
        image: Any = nib.load(path)
        np.asanyarray(image.dataobj)
    elif path.suffix == ".json":
        text = path.read_text(encoding="utf-8")
        if not re.fullmatch(r"[0-9a-f]{32}", text):  # what the cache remembers of a file is a hash alone
            json.loads(text)
    elif path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118
                file.get_slice(name).get_shape()
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix in (".png", ".gif", ".jpg"):
        Image.open(path).verify()
    elif path.suffix in (".csv", ".html", ".yaml", ".txt", ".md", ".ctbl"):
        text = path.read_text(encoding="utf-8")
        assert text.endswith("\n") or path.suffix == ".html", "no end of the last line"
        assert path.suffix != ".html" or text.rstrip().endswith("</html>"), "no end"


def remove(place: Path) -> None:
    """With folders that may not be opened, too."""
    for folder, _, _ in _walk(place):
        folder.chmod(0o700)
    shutil.rmtree(place, ignore_errors=True)
