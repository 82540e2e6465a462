"""Simulated pictures like the unlabelled ones of `semiseg simulate covid`, of other subjects, with their labels.

    python benchmarks/covid_pictures.py --size 256 --out runs/covid_pictures

Real pictures of this kind have no labels; simulated ones show how a model does where its unlabelled data come from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from semiseg.simulate.chest import COVID, simulate_picture

FIRST = 1001
"""No cohort is as large, so these subjects are nobody's training data."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--count", type=int, default=40)
    arguments = parser.parse_args()
    for folder in ("images", "labels"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    for number in range(FIRST, FIRST + arguments.count):
        picture, part = simulate_picture(COVID, number, size=arguments.size)
        # values as training reads MedSeg's files with lung masks: lung, then the lesions
        label = np.where(part.label > 0, part.label + 1, part.lung > 0).astype(np.uint8)
        picture.save(arguments.out / "images" / f"{number}.png")
        resized = Image.fromarray(label).resize(picture.size, Image.Resampling.NEAREST)
        resized.save(arguments.out / "labels" / f"{number}.png")


if __name__ == "__main__":
    main()
