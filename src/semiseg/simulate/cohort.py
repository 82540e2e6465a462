"""A folder for a simulated cohort: what was asked for is checked and noted, a finished one is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float

from semiseg.errors import InputError, UserError
from semiseg.files import is_temporary, read_json, replacing, write_json
from semiseg.processes import default_workers, each

MARKER = "simulated.json"
"""In the folder of every cohort: how it was made, and that it was not made from people."""


@contextmanager
def cohort(out: Path, world: str, *, subjects: int, seed: int, **settings: float) -> Iterator[bool]:
    """Yield whether the cohort has to be made; when the block succeeds, note that it is complete.

    Raises UserError for impossible numbers, InputError if `out` holds anything else than (part of) this cohort.
    """
    if subjects < 1 or seed < 0:
        raise UserError(
            f"simulate: got {subjects} subjects and seed {seed}, expected at least 1 subject and no negative seed; "
            "change --subjects or --seed"
        )
    made = {"world": world, "subjects": subjects, "seed": seed, **settings}
    note = {"simulated": made, "remark": "Simulated, not scans of people; scores do not carry over to real scans."}
    marker = Path(out) / MARKER
    found = read_json(marker, "what simulating left there", "choose another --out") if marker.is_file() else None
    if found != note | {"complete": True}:
        unfinished = found == note | {"complete": False}
        there = marker.parent.iterdir() if marker.parent.is_dir() else ()
        if not unfinished and not all(is_temporary(path.name) for path in there):
            other = found.get("simulated") if isinstance(found, dict) else None
            got = f"the cohort {json.dumps(other)}" if other else "a folder with other files"
            raise InputError(f"{out}: got {got}, expected an empty folder or {json.dumps(made)}; choose another --out")
        write_json(marker, note | {"complete": False})
        yield True
        write_json(marker, note | {"complete": True})
    else:
        yield False


def write_subjects(write: Callable[[int], object], subjects: int, workers: int | None) -> None:
    """Call `write` with 1 to `subjects`, in several processes if there are many."""
    for _ in each(write, range(1, subjects + 1), "simulate", workers or default_workers()):
        pass


def check_range(flag: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"{flag}: got {value:g}, expected {low:g} to {high:g}; change it")


def save_nifti(path: Path, array: np.ndarray, affine: Float[np.ndarray, "4 4"]) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)
