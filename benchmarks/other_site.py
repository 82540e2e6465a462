"""Copies of T1 scans with another contrast: a stand-in for scans of another site.

    python benchmarks/other_site.py ../shared/data/wholebrain/images --out runs/other_site

Each scan gets a gamma (brighter or darker mid-tones), a smooth bias field, blur and noise, drawn from its name. Shapes
and positions are untouched, so the labels of the originals are those of the copies.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from semiseg.data.images import case_name, read_image, write_like
from semiseg.data.layouts.listing import scan_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for path in scan_files(arguments.images).values():
        scan = read_image(path)
        rng = np.random.default_rng(zlib.crc32(case_name(path).encode()))
        write_like(arguments.out / path.name, changed(scan.array, scan.geometry.spacing_mm, rng), scan)


def changed(image: np.ndarray, spacing_mm: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """32-bit intensities in 0 to about 1."""
    low, high = np.percentile(image, (0.5, 99.5))
    scaled = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    gamma = rng.uniform(0.5, 0.7) if rng.random() < 0.5 else rng.uniform(1.5, 2.0)
    field = gaussian_filter(rng.standard_normal(image.shape), [40 / mm for mm in spacing_mm])
    bias = np.exp(0.4 * field / np.abs(field).max())
    blurred = gaussian_filter(scaled**gamma * bias, 0.5)
    noisy: np.ndarray = np.hypot(
        blurred + 0.03 * rng.standard_normal(image.shape), 0.03 * rng.standard_normal(image.shape)
    )
    return noisy.astype(np.float32)


if __name__ == "__main__":
    main()
