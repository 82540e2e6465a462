"""Simulated T1 heads with the 28 structures of ROAM, in the layouts of the MALC files and of QuickNAT's HDF5 files.

Each subject is a random affine and smooth deformation (see `brain`) of one labelled head (see `anatomy`). Every
voxel is sampled at eight points: the image is their mean intensity, the label what most of them hit, so it is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter

from semiseg.data.label_tables import CHALLENGE, QUICKNAT_28
from semiseg.errors import MissingExtra
from semiseg.files import replacing
from semiseg.simulate.anatomy import FLUID, SCALP, SKULL, Anatomy, load_anatomy
from semiseg.simulate.brain import bias_field, deform
from semiseg.simulate.cohort import check_range, cohort, save_nifti, write_subjects

FIELD_MM = 256.0  # along every axis, as scans are conformed for QuickNAT
FOLDERS = ("train", "test", "unlabel", "val", "test", "unlabel", "test", "unlabel", "test", "test")
"""Of ten subjects in order: thirty are 3 labelled, 9 unlabelled, 3 for validation and 15 for testing, as published."""
PARCELS = (100, 102, 104, 106, 108, 112, 114, 116, 118, 120, 122, 124)
"""Right cortical parcels of the 2012 challenge (left: one more) that the cortex is cut into."""
SHADES = {
    "cortical WM": 1.0, "cerebellar WM": 0.95, "brain stem": 0.82, "ventral DC": 0.72, "pallidum": 0.75,
    "thalamus": 0.58, "putamen": 0.28, "caudate": 0.12, "hippocampus": 0.03, "cortical GM": 0.0, "amygdala": -0.03,
    "cerebellar GM": -0.08,
}  # fmt: skip
"""How far each structure's intensity is from grey towards white matter; what is not named here is fluid."""


@dataclass(frozen=True, eq=False)
class Head:
    """One subject: image in arbitrary units, label values of `QUICKNAT_28`, RAS affine with the field's centre at 0."""

    image: Int[np.ndarray, "x y z"]
    label: Int[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]


def simulate_wholebrain(
    out: Path, *, subjects: int = 30, seed: int = 0, spacing_mm: float = 2.0, workers: int | None = None
) -> Path:
    """Write `malc/` (NIfTI) and `quicknat/` (HDF5) of the same subjects and return the folder.

    spacing_mm: side of a voxel; the field of view stays 256 mm (1 mm: 256 voxels along each axis, as the real files).
    Subject n is a function of seed, n and spacing alone. A cohort already there is kept.

    Raises UserError for impossible numbers, InputError if `out` holds something else, MissingExtra without nilearn
    or h5py.
    """
    check_range("--spacing-mm", spacing_mm, 1, 4)
    try:
        import h5py  # noqa: F401  before minutes of work
    except ImportError:
        raise MissingExtra(
            "simulate wholebrain: got no h5py, expected it for HDF5 files; run `pip install 'semiseg[hdf5]'`"
        ) from None
    with cohort(out, "wholebrain", subjects=subjects, seed=seed, spacing_mm=spacing_mm) as needed:
        if needed:
            write_subjects(partial(_write_head, Path(out), spacing_mm, seed), subjects, workers)
    return Path(out)


def simulate_head(number: int, *, spacing_mm: float = 2.0, seed: int = 0) -> Head:
    """Draw one subject."""
    shape_rng, scan_rng = (np.random.default_rng([seed, number, part]) for part in range(2))
    anatomy = load_anatomy()
    count = round(FIELD_MM / spacing_mm)
    steps = (np.arange(count, dtype=np.float32) - (count - 1) / 2) * np.float32(spacing_mm)
    points = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"))
    hits = _sample(anatomy, points, spacing_mm, shape_rng)
    classes = np.arange(SCALP + 1, dtype=np.uint8)
    classes[FLUID:] = 0
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = steps[0]
    return Head(_scan(hits, spacing_mm, scan_rng), _majority(classes[hits]), affine)


def _sample(
    anatomy: Anatomy, points: Float[np.ndarray, "3 x y z"], spacing_mm: float, rng: np.random.Generator
) -> Int[np.ndarray, "8 x y z"]:
    """What is at the centres of the eight octants of each voxel."""
    extent = anatomy.high_mm - anatomy.low_mm
    source = deform(points + extent[:, None, None, None] / 2, extent, rng)
    voxels = source + (anatomy.low_mm - anatomy.origin_mm)[:, None, None, None]
    padded = np.pad(anatomy.values, 1)  # whatever lies outside hits the air around it
    hits = np.empty((8, *points.shape[1:]), np.uint8)
    for octant in range(8):
        corner = np.array([octant >> axis & 1 for axis in range(3)]) - 0.5
        at = np.rint(voxels + corner[:, None, None, None] * spacing_mm / 2).astype(np.int32) + 1
        hits[octant] = padded[tuple(np.clip(part, 0, n - 1) for part, n in zip(at, padded.shape, strict=True))]
    return hits


def _majority(labels: Int[np.ndarray, "8 x y z"]) -> Int[np.ndarray, "x y z"]:
    """The most frequent of the eight, the first of them in a tie."""
    votes = np.stack([(labels == one).sum(axis=0, dtype=np.uint8) for one in labels])
    winner: np.ndarray = np.take_along_axis(labels, votes.argmax(axis=0)[None], axis=0)[0]
    return winner


def _intensities(rng: np.random.Generator) -> Float[np.ndarray, " values"]:
    """Mean intensity of everything that is drawn, for one subject; white matter is about 1."""
    grey, fluid = rng.uniform(0.58, 0.8), rng.uniform(0.15, 0.4)
    means = np.zeros(SCALP + 1)
    for name, index in QUICKNAT_28.items():
        shade = SHADES.get(name.removeprefix("left ").removeprefix("right "))
        means[index] = (fluid if shade is None else grey + shade * (1 - grey)) * rng.normal(1, 0.02)
    means[0] = 0
    means[FLUID], means[SKULL], means[SCALP] = fluid, rng.uniform(0.05, 0.2), rng.uniform(0.6, 1.2)
    return means


def _scan(hits: Int[np.ndarray, "8 x y z"], spacing_mm: float, rng: np.random.Generator) -> Int[np.ndarray, "x y z"]:
    """Partial volume, texture, a resolution along each axis, bias field and Rician noise."""
    means = _intensities(rng)
    image = np.zeros(hits.shape[1:])
    for one in hits:
        image += means[one] / len(hits)
    image *= 1 + 0.05 * bias_field(image.shape, spacing_mm, 1.0, rng)
    image *= 1 + rng.uniform(0.02, 0.05) * gaussian_filter(rng.standard_normal(image.shape), 0.7)
    image = gaussian_filter(image, rng.uniform(0.0, 0.5, 3))
    image *= np.exp(bias_field(image.shape, spacing_mm, rng.uniform(0.1, 0.4), rng))
    real, imaginary = rng.uniform(0.01, 0.04) * rng.standard_normal((2, *image.shape))
    units: np.ndarray = np.rint(np.hypot(image + real, imaginary) * rng.uniform(200, 1500)).astype(np.int16)
    return units


def _write_head(out: Path, spacing_mm: float, seed: int, number: int) -> None:
    head = simulate_head(number, spacing_mm=spacing_mm, seed=seed)
    name = str(999 + number)
    save_nifti(out / "malc" / "images" / f"{name}_3.nii.gz", head.image, head.affine)
    save_nifti(out / "malc" / "labels" / f"{name}_3_glm.nii.gz", challenge_numbers(head.label), head.affine)
    folder = out / "quicknat" / FOLDERS[(number - 1) % len(FOLDERS)]
    _save_hdf5(folder / f"Data_{name}.h5", "data", (head.image / head.image.max()).astype(np.float32))
    if folder.name != "unlabel":
        _save_hdf5(folder / f"Label_{name}.h5", "label", head.label)


def challenge_numbers(label: Int[np.ndarray, "x y z"]) -> Int[np.ndarray, "x y z"]:
    """The 2012 challenge's number of every class; the cortex is cut into twelve blocks a side, as it has parcels."""
    numbers: np.ndarray = np.array([CHALLENGE[name][0] for name in QUICKNAT_28], np.uint8)[label]
    _, y, z = label.shape
    along, up = np.clip(np.arange(y) * 8 // y - 1, 0, 5), np.arange(z) * 2 // z  # no brain in the outer eighths
    block = np.array(PARCELS, np.uint8)[along[:, None] + 6 * up]
    for side, name in enumerate(("right cortical GM", "left cortical GM")):
        cortex = label == QUICKNAT_28[name]
        numbers[cortex] = (np.broadcast_to(block, label.shape) + np.uint8(side))[cortex]
    return numbers


def _save_hdf5(path: Path, dataset: str, array: np.ndarray) -> None:
    """Coronal slices from back to front; rows run from the top down, columns to the patient's left."""
    import h5py

    coronal = array.transpose(1, 2, 0)[:, ::-1, ::-1]
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset(dataset, data=coronal, compression="gzip", compression_opts=4)
