"""`export` killed at each of its steps on the disk, and called again: `python -m support.killed_export RUN FOLDER`.

A program of its own, with one thread, for it forks. Prints the number of kills into a folder that is not there, into an
empty one, and into one with an earlier bundle.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from semiseg.models.bundle import FILES, export_bundle
from semiseg.models.model import load_model, model_facts

STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


def main(run: Path, folder: Path) -> None:
    for before in ("nothing", "empty", "earlier"):
        kills = 0
        while True:
            place = folder / f"{before}-{kills}"
            place.mkdir()
            out = place / "ball"
            if before == "empty":
                out.mkdir()
            elif before == "earlier":
                export_bundle(run, out, half=True, description="earlier")
            again = before == "earlier"
            status = forked(lambda: exported(run, out, again, kills))  # noqa: B023 - it has ended before the next round
            if status == 0:
                break
            assert status == -signal.SIGKILL, status
            if (out / "model.json").exists():
                whole(out)
            assert forked(lambda: export_bundle(run, out, overwrite=again)) == 0, (before, kills)  # noqa: B023
            assert whole(out) == torch.float32
            assert names(place) == ["ball"]
            assert names(out) == sorted(FILES)
            kills += 1
        print(before, kills)


def exported(run: Path, out: Path, again: bool, step: int) -> None:
    """Killed just before something is done to a file there for the step-th time."""
    left = step

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in STEPS and any(str(out.parent) in str(argument) for argument in arguments):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    export_bundle(run, out, overwrite=again)


def whole(out: Path) -> torch.dtype:
    """The type of the weights of a bundle of which every file belongs to the same call."""
    load_model(out)
    earlier = model_facts(out)["description"] == "earlier"
    assert (out / "README.md").read_text().startswith("# ball\n\nearlier\n" if earlier else "# ball\n\nSegments ")
    kinds = {value.dtype for value in load_file(out / "model.safetensors").values()}
    assert kinds == {torch.float16 if earlier else torch.float32}
    return kinds.pop()


def forked(function: Callable[[], object]) -> int:
    """Exit status of a process that calls a function; negative for a signal."""
    process = os.fork()
    if not process:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
