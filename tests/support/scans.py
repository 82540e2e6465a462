"""Scans of balls, written as NIfTI files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def ball(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image of a ball and its label (0 and 1)."""
    rng = np.random.default_rng(seed)
    centre = np.array(shape) / 2 + rng.uniform(-1, 1, 3)
    distance = np.linalg.norm(np.indices(shape).T - centre, axis=-1).T
    label = (distance < min(shape) / 3).astype(np.uint8)
    image = 100 * label + 20 + rng.normal(0, 5, shape)
    return image.astype(np.float32), label
