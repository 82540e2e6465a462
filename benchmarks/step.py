"""Seconds a training step takes in bf16 and in 32-bit, through `semiseg train`, run by turns.

    python benchmarks/step.py roam --rounds 3

Writes a few noise volumes with labels to a temporary folder, trains on them for some steps, and reads the log.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np

CASES = {
    "roam": {"size": 256, "channels": 1, "classes": 28, "settings": ["method.preset=2020", "network.name=roam-unet"]},
    "roam-default": {"size": 256, "channels": 1, "classes": 28, "settings": ["network.name=roam-unet"]},
    "fcdensenet103": {"size": 224, "channels": 4, "classes": 4, "settings": ["network.name=fcdensenet"]},
}
"""Sizes and networks of the two publications: ROAM with the published step, and as it is by default; EquiReg."""
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


def step_seconds(data: Path, out: Path, name: str, precision: str, steps: int) -> list[float]:
    """Of each step after the first ones."""
    case = CASES[name]
    method = "equireg" if name.startswith("fc") else "roam"
    given = [f"plan.{text}" if text.startswith("network") else text for text in case["settings"]]
    given += ["plan.batch=1", "plan.unlabelled_batch=1", f"plan.patch=[{case['size']},{case['size']}]"]
    given += ["training.log_every=1", "training.tensorboard=false"]
    words = [sys.executable, "-m", "semiseg.cli", "train", data, "--out", out, "--method", method, "--dims", "2"]
    words += ["--steps", steps + WARM_UP, "--precision", precision, "--device", "cpu", "--quiet", "--workers", "1"]
    words += [part for text in given for part in ("--set", text)]
    subprocess.run([str(word) for word in words], check=True)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    ends = [line["duration_s"] for line in lines if line["kind"] == "train"]
    return [after - before for before, after in pairwise(ends)][WARM_UP - 1 :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CASES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    arguments = parser.parse_args()
    case = CASES[arguments.name]
    seconds: dict[str, list[float]] = {"bf16": [], "32": []}
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEMISEG_CACHE"] = f"{folder}/cache"
        data = Path(folder) / "scans"
        write_scans(data, case["size"], case["channels"], case["classes"])
        for turn in range(arguments.rounds):
            new = {
                precision: step_seconds(
                    data, Path(folder) / f"{precision}-{turn}", arguments.name, precision, arguments.steps
                )
                for precision in seconds
            }
            ratios += [slow / fast for fast, slow in zip(new["bf16"], new["32"], strict=True)]
            for precision, values in new.items():
                seconds[precision] += values
            print({precision: [round(s, 3) for s in values] for precision, values in new.items()}, file=sys.stderr)
    fast, slow = (statistics.median(seconds[precision]) for precision in ("bf16", "32"))
    print(f"| {arguments.name} | {fast:.2f} | {slow:.2f} | {statistics.median(ratios):.1f} |")


if __name__ == "__main__":
    main()
