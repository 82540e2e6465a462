"""Seconds a training step takes in several precisions and layouts, through `semiseg train`, run by turns.

    python benchmarks/step.py roam --rounds 3
    python benchmarks/step.py roam-small --variants bf16/contiguous bf16/channels_last 32/contiguous 32/channels_last

Writes a few noise volumes with labels to a temporary folder and trains on them for some steps. Prints a row for each
variant: the median seconds a step, and how many times as long as the first variant's the same step took (median over
steps); by the clock, then in processor time, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import nibabel
import numpy as np

from semiseg.cli import main
from semiseg.runs.folder import RunFolder

SMALL = "network.widths=[16,32,64,128,256]"
CASES = {
    "roam": {"size": 256, "channels": 1, "classes": 28, "settings": ["method.preset=2020", "network.name=roam-unet"]},
    "roam-small": {
        "size": 128,
        "channels": 1,
        "classes": 28,
        "settings": [SMALL, "plan.batch=4", "plan.unlabelled_batch=4"],
    },
    "roam-default": {"size": 256, "channels": 1, "classes": 28, "settings": ["network.name=roam-unet"]},
    "fcdensenet103": {"size": 224, "channels": 4, "classes": 4, "settings": ["network.name=fcdensenet"]},
}
"""Sizes and networks of the two publications: ROAM with the published step, and as it is by default; EquiReg. Small:
network and batch of `benchmarks/bench-wholebrain.yaml`."""
WARM_UP = 2


def write_scans(folder: Path, size: int, channels: int, classes: int) -> None:
    """Two labelled and two unlabelled volumes of eight slices: blocks of every class under noise."""
    random = np.random.default_rng(0)
    label = np.kron(random.integers(classes, size=(16, 16, 8)), np.ones((size // 16, size // 16, 1)))
    label.flat[:classes] = np.arange(classes)  # whatever was drawn, every class is there
    names = [f"channel{k}" for k in range(channels)]
    values = {str(k) if k else "background": k for k in range(classes)}
    description = {"channel_names": dict(enumerate(names)), "labels": values, "file_ending": ".nii.gz"}
    for place in ("imagesTr", "labelsTr", "imagesUn"):
        (folder / place).mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": 2}))
    for case in range(4):
        for channel in range(channels):
            image = label + random.normal(size=label.shape)
            place = "imagesTr" if case < 2 else "imagesUn"
            write(folder / place / f"case{case}_{channel:04d}.nii.gz", image.astype(np.float32))
        if case < 2:
            write(folder / "labelsTr" / f"case{case}.nii.gz", label.astype(np.uint8))


def write(path: Path, array: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 4, 1.0])), path)


def train_words(data: Path, out: Path, name: str, variant: str, steps: int) -> list[str]:
    """The command line, without `semiseg`."""
    case = CASES[name]
    method = "equireg" if name.startswith("fc") else "roam"
    given = [f"plan.{text}" if text.startswith("network") else text for text in case["settings"]]
    given = ["plan.batch=1", "plan.unlabelled_batch=1", *given, f"plan.patch=[{case['size']},{case['size']}]"]
    precision, _, layout = variant.partition("/")
    given += [f"training.layout={layout or 'auto'}"]
    # validation and checkpoints, a tenth of all steps apart by default, are no part of a step
    given += ["training.log_every=1", "training.validate_every=1000", "training.tensorboard=false"]
    words = ["train", data, "--out", out, "--method", method, "--dims", "2", "--steps", steps + WARM_UP]
    words += ["--precision", precision, "--device", "cpu", "--quiet", "--workers", "1"]
    return [str(word) for word in words] + [part for text in given for part in ("--set", text)]


def step_seconds(words: list[str]) -> list[tuple[float, float]]:
    """Run the command in this process: wall-clock and processor seconds of each step after the first ones."""
    marks = []
    append = RunFolder.append

    def noting(self: RunFolder, **line: object) -> None:
        if line["kind"] == "train":
            marks.append((time.perf_counter(), time.process_time()))
        append(self, **line)

    with patch.object(RunFolder, "append", noting), patch.object(sys, "argv", ["semiseg", *words]):
        try:
            main()
        except SystemExit as stop:
            if stop.code:
                raise RuntimeError(f"semiseg {' '.join(words)} ended with {stop.code}") from None
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(marks)][WARM_UP - 1 :]


def compare() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CASES)
    parser.add_argument("--variants", nargs="+", default=["bf16", "32"], help="PRECISION or PRECISION/LAYOUT.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    case = CASES[arguments.name]
    steps: dict[str, list[tuple[float, float]]] = {variant: [] for variant in arguments.variants}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEMISEG_CACHE"] = f"{folder}/cache"
        data = Path(folder) / "scans"
        write_scans(data, case["size"], case["channels"], case["classes"])
        for turn in range(arguments.rounds):
            for variant, taken in steps.items():
                out = Path(folder) / f"{variant.replace('/', '-')}-{turn}"
                words = train_words(data, out, arguments.name, variant, arguments.steps)
                # a process for each run, so that none inherits another's memory
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    taken += pool.submit(step_seconds, words).result()
                print(variant, [f"{wall:.2f} ({cpu:.2f})" for wall, cpu in taken], file=sys.stderr)
    first = steps[arguments.variants[0]]
    for variant, taken in steps.items():
        cells = [arguments.name, variant]
        for kind in (0, 1):
            ratios = [b[kind] / a[kind] for a, b in zip(first, taken, strict=True)]  # with the same random draws
            cells += [f"{statistics.median(step[kind] for step in taken):.2f}", f"{statistics.median(ratios):.2f}"]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    compare()
