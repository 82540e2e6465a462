"""Simulated T1-weighted brain scans: one template, with another shape and contrast for every subject.

Each subject is an affine and a random smooth invertible deformation of the MNI152 (ICBM 2009a symmetric)
template with the subject's own tissue intensities, texture, resolution, bias field and Rician noise. The
label is the tissue that fills most of a voxel in the same deformed tissue maps, so it is exact. Scores on
such scans say that a program works and how methods compare on them; they say nothing about real scans.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter, map_coordinates

from semiseg.errors import InputError, MissingExtra, UserError
from semiseg.files import replacing, write_json

CLASSES = {"background": 0, "grey matter": 1, "white matter": 2, "cerebrospinal fluid": 3}
"""Name to value in the label files; fluid is that inside the brain: ventricles, cisterns, wide sulci."""

MARGIN_MM = 18.0  # air around the template's brain, so that a subject 8 % larger still fits
RIM_MM = 5.0  # fluid this close to the brain mask's edge is thinner than a voxel, and is left out
GRID_MM = 6.0  # of the coarse grid that deformation and bias field are drawn on


@dataclass(frozen=True, eq=False)
class Template:
    """Shares of grey, white and fluid (0 to 1) and the T1 texture that they do not explain, at 1 mm."""

    tissues: Float[np.ndarray, "3 x y z"]
    texture: Float[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    low_mm: Float[np.ndarray, " axis"]
    """Corner of the box around the brain with its margin, in template millimetres; `high_mm` is opposite."""
    high_mm: Float[np.ndarray, " axis"]


@dataclass(frozen=True, eq=False)
class Scan:
    """One simulated subject: image in arbitrary scanner units, label values as in `CLASSES`, RAS affine."""

    image: Int[np.ndarray, "x y z"]
    label: Int[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]


def simulate_brains(out: Path, *, subjects: int, test: int, spacing_mm: float = 3.0, seed: int = 0) -> Path:
    """Write a simulated cohort in nnU-Net's raw layout and return its folder.

    subjects: scans for training (`imagesTr`, every one with its label in `labelsTr`, so that any number of
    labels can be hidden later). test: held-out scans (`imagesTs`, `labelsTs`). Subject n is a function of
    seed, n and spacing alone: a larger cohort contains the smaller one. A cohort already there is kept.

    Raises MissingExtra without nilearn (whose wheel holds the template), InputError if `out` holds another
    dataset.
    """
    if subjects < 1 or test < 0 or seed < 0 or not 1 <= spacing_mm <= 10:
        raise UserError(
            f"simulate: got {subjects} subjects, {test} for test, seed {seed}, spacing {spacing_mm} mm, "
            "expected at least 1 subject, none negative and 1 to 10 mm; change the number that is outside"
        )
    out = Path(out)
    declared = _declaration(subjects, test, spacing_mm, seed)
    if _already_there(out, declared):
        return out
    for split, folder, count in ((0, "Tr", subjects), (1, "Ts", test)):
        for number in range(1, count + 1):
            name = f"{('brain', 'test')[split]}_{number:03d}"
            scan = simulate_brain(split, number, spacing_mm=spacing_mm, seed=seed)
            _save(scan.image, scan.affine, out / f"images{folder}" / f"{name}_0000.nii.gz")
            _save(scan.label, scan.affine, out / f"labels{folder}" / f"{name}.nii.gz")
    write_json(out / "dataset.json", declared)  # last: its presence says that the cohort is complete
    return out


def simulate_brain(split: int, number: int, *, spacing_mm: float = 3.0, seed: int = 0) -> Scan:
    """Draw one subject. (seed, split, number) name the draw; split is 0 for training and 1 for test scans."""
    rng = np.random.default_rng([seed, split, number])
    template = load_template(spacing_mm)
    shape = tuple(int(n) for n in np.ceil((template.high_mm - template.low_mm) / spacing_mm))
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = template.low_mm
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij"))
    deformed = deform(grid * spacing_mm, template.high_mm - template.low_mm, rng)
    voxels = deformed + (template.low_mm - template.affine[:3, 3])[:, None, None, None]
    *tissues, texture = (map_coordinates(volume, voxels, order=1) for volume in (*template.tissues, template.texture))
    shares = np.stack([1 - sum(tissues), *tissues])
    image = _acquire(shares, texture, spacing_mm, rng)
    return Scan(image, shares.argmax(axis=0).astype(np.uint8), affine)


@lru_cache(maxsize=1)
def load_template(spacing_mm: float) -> Template:
    """Read the template from nilearn's files (not importing it) and blur it to voxels of `spacing_mm`."""
    t1, grey, white = (read_map(name) for name in ("t1", "gm", "wm"))
    affine = t1.affine
    image = np.asarray(t1.dataobj, dtype=np.float32) / 255
    brain = image > 0
    grey, white = (np.asarray(part.dataobj, dtype=np.float32) / 255 * brain for part in (grey, white))
    # Blurred mask above .999: a cheap erosion by about RIM_MM.
    deep = gaussian_filter(brain.astype(np.float32), RIM_MM / 3) > 0.999
    fluid = (brain - grey - white) * deep
    tissues = np.stack([grey, white, fluid])
    means = [float((image * part**2).sum() / (part**2).sum()) for part in tissues]
    texture = (image - sum(mean * part for mean, part in zip(means, tissues, strict=True))) * deep
    corners = np.argwhere(brain)
    low, high = corners.min(axis=0) + affine[:3, 3], corners.max(axis=0) + affine[:3, 3]
    sigma = spacing_mm / 2.355  # full width at half maximum = one voxel
    return Template(
        tissues=np.stack([gaussian_filter(part, sigma) for part in tissues]),
        texture=gaussian_filter(texture, sigma),
        affine=affine,
        low_mm=low - MARGIN_MM,
        high_mm=high + MARGIN_MM,
    )


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], sigma_mm: float, peak: float
) -> Float[np.ndarray, "x y z"]:
    """Gaussian noise on the coarse grid, blurred by `sigma_mm`, of largest magnitude `peak`."""
    noise: np.ndarray = gaussian_filter(rng.standard_normal(shape), sigma_mm / GRID_MM, mode="wrap")
    return noise * (peak / float(np.abs(noise).max()))


def displacement(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "3 x y z"]:
    """A smooth displacement in mm on the coarse grid, up to about 10 mm, that folds nowhere.

    x + u(x) is invertible where u changes by less than one millimetre per millimetre in every direction.
    """
    field = np.stack([smooth_field(rng, shape, 18.0, 7.0) + smooth_field(rng, shape, 9.0, 2.0) for _ in range(3)])
    slopes = np.stack([np.stack(np.gradient(part, GRID_MM)) for part in field])
    steepest = float(np.linalg.norm(slopes, axis=(0, 1)).max())
    return field * min(1.0, 0.7 / steepest)


def deform(
    points_mm: Float[np.ndarray, "3 x y z"], extent: Float[np.ndarray, " axis"], rng: np.random.Generator
) -> Float[np.ndarray, "3 x y z"]:
    """Where each point of the subject comes from; both in millimetres from the low corner of a box of that extent."""
    centre = (extent / 2)[:, None, None, None]
    matrix, shift = _affine(rng)
    coarse = displacement(rng, tuple(int(n) for n in np.ceil(extent / GRID_MM) + 1))
    moved = np.stack([map_coordinates(part, points_mm / GRID_MM, order=1, mode="nearest") for part in coarse])
    turned = np.tensordot(matrix, points_mm - centre, axes=1)
    source: np.ndarray = turned + centre + shift[:, None, None, None] + moved
    return source


def _affine(rng: np.random.Generator) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, " axis"]]:
    """Rotation by up to 8 degrees about each axis, scaling by up to 8 % along each, shift by up to 4 mm."""
    matrix = np.diag(1 + rng.uniform(-0.08, 0.08, 3))
    for axis, angle in enumerate(np.radians(rng.uniform(-8, 8, 3))):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix, rng.uniform(-4, 4, 3)


def _acquire(
    shares: Float[np.ndarray, "4 x y z"],
    texture: Float[np.ndarray, "x y z"],
    spacing_mm: float,
    rng: np.random.Generator,
) -> Int[np.ndarray, "x y z"]:
    """What a scanner of its own settings makes of the tissues: white matter is brightest, fluid darkest."""
    white = 1.0
    fluid, grey = rng.uniform(0.10, 0.50), rng.uniform(0.56, 0.84)
    image = np.tensordot([0.0, grey, white, fluid], shares, axes=1) + rng.uniform(0.5, 1.3) * texture
    image = np.clip(image, 0, None) ** rng.uniform(0.75, 1.35)
    image = gaussian_filter(image, rng.uniform(0.0, 0.4, 3))  # in voxels: another resolution along each axis
    image = image * np.exp(bias_field(image.shape, spacing_mm, rng.uniform(0.1, 0.5), rng))
    noise = rng.uniform(0.01, 0.05)
    real, imaginary = noise * rng.standard_normal((2, *image.shape))
    magnitude = np.hypot(image + real, imaginary)
    units: np.ndarray = np.rint(magnitude * rng.uniform(200, 2000)).astype(np.int16)
    return units


def bias_field(
    shape: tuple[int, ...], spacing_mm: float, peak: float, rng: np.random.Generator
) -> Float[np.ndarray, "x y z"]:
    """Logarithm of the coil's sensitivity: varies over several centimetres, by up to `peak`."""
    coarse = tuple(int(np.ceil(n * spacing_mm / GRID_MM)) + 1 for n in shape)
    field = smooth_field(rng, coarse, 40.0, peak)
    points = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")) * (spacing_mm / GRID_MM)
    log_sensitivity: np.ndarray = map_coordinates(field, points, order=1, mode="nearest")
    return log_sensitivity


def read_map(name: str) -> nib.Nifti1Image:
    package = importlib.util.find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise MissingExtra(
            "nilearn: got no installed package, expected the one whose files hold the MNI152 template; "
            "run `pip install 'semiseg[demo]'`"
        )
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    path = folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.is_file():
        raise MissingExtra(f"{path}: got no such file, expected the MNI152 template; run `pip install 'nilearn>=0.11'`")
    return nib.load(path)


def _save(array: np.ndarray, affine: Float[np.ndarray, "4 4"], path: Path) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)


def _declaration(subjects: int, test: int, spacing_mm: float, seed: int) -> dict[str, object]:
    return {
        "name": "Simulated brains",
        "description": "Simulated: random deformations of the MNI152 template with made-up contrast, bias "
        "field and noise. Not scans of people; scores on them do not carry over to real scans.",
        "reference": "ICBM 2009a nonlinear symmetric template, as distributed with nilearn",
        "channel_names": {"0": "MRI"},
        "labels": CLASSES,
        "numTraining": subjects,
        "numTest": test,
        "file_ending": ".nii.gz",
        "simulated": {"spacing_mm": spacing_mm, "seed": seed},
    }


def _already_there(out: Path, declared: dict[str, object]) -> bool:
    path = out / "dataset.json"
    if not path.is_file():
        return False
    if json.loads(path.read_text(encoding="utf-8")) != declared:
        raise InputError(f"{path}: got another dataset, expected none or the same simulated one; choose another folder")
    return True
