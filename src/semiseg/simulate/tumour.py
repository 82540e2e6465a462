"""Simulated brain tumours in four MR modalities, in the layout of BraTS 2019.

Each patient is a warped MNI152 template (see `brain`) with a tumour that pushes its surroundings away: an
irregular core with necrosis and an enhancing rim, and oedema that follows the white matter. The label is the
part that fills most of a voxel of the same maps that the images are made of, so it is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter, map_coordinates

from semiseg.simulate.brain import GRID_MM, Template, bias_field, deform, load_template, smooth_field
from semiseg.simulate.cohort import check_range, cohort, save_nifti, write_subjects

LABELS = {"background": 0, "necrotic and non-enhancing core": 1, "oedema": 2, "enhancing": 4}
FIELD_MM = (240.0, 240.0, 155.0)  # of the real files: 240 x 240 x 155 voxels of 1 mm
SCALE = 0.92  # the template is larger than most heads; so reduced, even the largest subject fits the field
LOW_GRADE_EVERY = 4  # every fourth patient: 76 of the 335 real ones have low grade

#            grey, white, fluid, core, oedema, enhancing, texture of the template, bright spots
CONTRAST = {
    "flair": (0.78, 0.64, 0.22, 0.70, 1.15, 1.00, 0.15, 0.50),
    "t1": (0.74, 1.00, 0.32, 0.45, 0.72, 0.70, 0.70, -0.15),
    "t1ce": (0.76, 1.00, 0.34, 0.48, 0.72, 1.45, 0.70, -0.10),
    "t2": (0.78, 0.62, 1.45, 1.15, 1.08, 0.90, -0.35, 0.25),
}
"""Mean intensities on a scale where white matter is 1 on T1."""


@dataclass(frozen=True, eq=False)
class Patient:
    """Four images (int16, 0 outside the brain), labels as in `LABELS`; axes run to left, posterior, superior."""

    images: dict[str, Int[np.ndarray, "x y z"]]
    label: Int[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]


@dataclass(frozen=True)
class Tumour:
    """Sizes in mm and shares that one patient's tumour is made from."""

    radius_mm: float
    oedema_mm: float
    """Mean radius of the oedema around the same centre; white matter widens it."""
    rim: float
    """Thickness of the enhancing part as a share of the core's radius; 0 is none, 1 all of it."""
    push: float
    """Mass effect: share of its distance from the centre by which tissue at the centre was moved."""
    stretch: tuple[float, float, float]


def simulate_brats(
    out: Path, *, subjects: int = 20, seed: int = 0, spacing_mm: float = 1.0, workers: int | None = None
) -> Path:
    """Write `HGG|LGG/PATIENT/PATIENT_{flair,t1,t1ce,t2,seg}.nii.gz` and return the folder.

    spacing_mm: side of a voxel; the field of view stays that of the real files (1 mm: 240 x 240 x 155 voxels,
    2.5 mm: 96 x 96 x 62). Patient n is a function of seed, n and spacing alone. A cohort already there is kept.

    Raises UserError for impossible numbers, InputError if `out` holds something else, MissingExtra without nilearn.
    """
    check_range("--spacing-mm", spacing_mm, 1, 6)
    with cohort(out, "brats", subjects=subjects, seed=seed, spacing_mm=spacing_mm) as needed:
        if needed:
            write_subjects(partial(_write_patient, Path(out), spacing_mm, seed), subjects, workers)
    return Path(out)


def _write_patient(out: Path, spacing_mm: float, seed: int, number: int) -> None:
    patient = simulate_patient(number, spacing_mm=spacing_mm, seed=seed)
    name = f"BraTS19_SIM01_{number:03d}_1"
    folder = out / ("LGG" if is_low_grade(number) else "HGG") / name
    for modality, image in patient.images.items():
        save_nifti(folder / f"{name}_{modality}.nii.gz", image, patient.affine)
    save_nifti(folder / f"{name}_seg.nii.gz", patient.label, patient.affine)


def is_low_grade(number: int) -> bool:
    return number % LOW_GRADE_EVERY == 0


def shape_at(spacing_mm: float) -> tuple[int, ...]:
    """Voxels along each axis that fill the field of view."""
    return tuple(round(length / spacing_mm) for length in FIELD_MM)


def simulate_patient(number: int, *, spacing_mm: float = 1.0, seed: int = 0) -> Patient:
    """Draw one patient; every `LOW_GRADE_EVERY`th has low grade (little oedema, often nothing that enhances)."""
    anatomy, lesion, scanner = ([seed, number, part] for part in range(3))
    template = load_template(spacing_mm / SCALE)
    shape = shape_at(spacing_mm)
    steps = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")).astype(np.float32)
    points = steps * spacing_mm * np.array([-1, -1, 1], np.float32)[:, None, None, None]  # RAS mm from the centre
    rng = np.random.default_rng(lesion)
    tumour = draw_tumour(rng, is_low_grade(number))
    centre = _place(template, points, np.random.default_rng(anatomy), rng)
    away = points - centre[:, None, None, None]
    width = 2 * (1.5 * tumour.radius_mm) ** 2
    pushed = points - tumour.push * away * np.exp(-(away**2).sum(axis=0) / width)
    tissues, texture = _sample(template, pushed, np.random.default_rng(anatomy))
    brain = gaussian_filter(tissues.sum(axis=0), 2.5 / spacing_mm) > 0.5
    tissues[2] = 1 - tissues[:2].sum(axis=0)  # whatever else is in the brain mask is fluid
    parts = _lesions(tumour, away, tissues, spacing_mm, rng)
    healthy = 1 - parts.sum(axis=0)
    label = np.array(list(LABELS.values()), np.uint8)[np.stack([healthy, *parts]).argmax(axis=0)] * brain
    maps = np.stack([*(healthy * tissues), *parts, healthy * texture, healthy * _spots(tissues, points, rng)])
    images = _scan(maps, brain, spacing_mm, np.random.default_rng(scanner))
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    affine[1, 3] = (shape[1] - 1) * spacing_mm  # as in the real files: origin (0, 239, 0)
    return Patient(images, label, affine)


def draw_tumour(rng: np.random.Generator, low_grade: bool) -> Tumour:
    """Median radius of the core 14 mm; high grade has a rim and wide oedema, low grade neither as a rule."""
    radius = float(np.clip(rng.lognormal(np.log(14), 0.35), 7, 27))
    if low_grade:
        rim, oedema = (rng.uniform(0.15, 0.3) if rng.random() < 0.35 else 0.0), rng.uniform(1.1, 1.5)
    else:
        rim, oedema = rng.uniform(0.15, 0.45), rng.uniform(1.4, 2.3)
    stretch = tuple(rng.uniform(0.75, 1.3, 3))
    return Tumour(radius, min(radius * oedema, 45.0), rim, rng.uniform(0.0, 0.35), stretch)


@lru_cache(maxsize=1)
def _white_places(template: Template) -> Float[np.ndarray, "places 3"]:
    """Where tumours may start, in mm from the template's low corner: deep white matter of the cerebrum."""
    deep = gaussian_filter(template.tissues[1], 3.0) > 0.6
    places = np.argwhere(deep)[::7] + template.affine[:3, 3] - template.low_mm
    above = places[:, 2] + template.low_mm[2] > 0  # the brain stem and the cerebellum
    return np.asarray(places[above])


def _place(
    template: Template, points: Float[np.ndarray, "3 x y z"], anatomy: np.random.Generator, rng: np.random.Generator
) -> Float[np.ndarray, " axis"]:
    """The grid point (of every third) whose tissue comes from a random place in white matter."""
    wanted = rng.choice(_white_places(template))
    thinned = points[:, ::3, ::3, ::3]
    source = _source(template, thinned, anatomy)
    nearest = np.argmin(((source - wanted[:, None, None, None]) ** 2).sum(axis=0))
    return thinned.reshape(3, -1)[:, nearest]


def _source(
    template: Template, points: Float[np.ndarray, "3 x y z"], rng: np.random.Generator
) -> Float[np.ndarray, "3 x y z"]:
    extent = template.high_mm - template.low_mm
    return deform(points / SCALE + extent[:, None, None, None] / 2, extent, rng)


def _sample(
    template: Template, points: Float[np.ndarray, "3 x y z"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "3 x y z"], Float[np.ndarray, "x y z"]]:
    """Shares of grey, white and fluid, and the template's texture, at these points of the subject."""
    voxels = _source(template, points, rng) + (template.low_mm - template.affine[:3, 3])[:, None, None, None]
    *tissues, texture = (map_coordinates(volume, voxels, order=1) for volume in (*template.tissues, template.texture))
    return np.stack(tissues), texture


def _lesions(
    tumour: Tumour,
    away: Float[np.ndarray, "3 x y z"],
    tissues: Float[np.ndarray, "3 x y z"],
    spacing_mm: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "3 x y z"]:
    """Shares of core, oedema and enhancing tissue, with edges one voxel wide; 0 in fluid around the core."""
    distance = np.sqrt(((away / np.array(tumour.stretch)[:, None, None, None]) ** 2).sum(axis=0))
    bumps, streaks, gaps = (_noise(away, sigma, rng) for sigma in (8.0, 5.0, 5.0))
    depth = tumour.radius_mm * (1 + 0.35 * bumps) - distance  # mm inside the core's surface
    core = _soft(depth, spacing_mm)
    thickness = tumour.radius_mm * tumour.rim * (1 + 0.8 * gaps)
    rim = core * _soft(thickness - depth, spacing_mm) if tumour.rim else np.zeros_like(core)
    white = gaussian_filter(tissues[1], 2 / spacing_mm)
    reach = tumour.oedema_mm * (0.45 + 0.75 * white) * (1 + 0.35 * streaks)
    oedema = (1 - core) * _soft(reach - distance, spacing_mm) * (1 - tissues[2].clip(0, 1))
    return np.stack([core - rim, oedema, rim])


def _soft(inside_mm: Float[np.ndarray, "x y z"], spacing_mm: float) -> Float[np.ndarray, "x y z"]:
    """Share of a voxel that lies inside a surface, from the signed distance of its centre."""
    share: np.ndarray = np.clip(0.5 + inside_mm / spacing_mm, 0, 1)
    return share


def _noise(points: Float[np.ndarray, "3 x y z"], sigma_mm: float, rng: np.random.Generator) -> Float[np.ndarray, "..."]:
    """Smooth noise between -1 and 1 over 120 mm around the origin of `points`, 0 beyond."""
    count = int(120 / GRID_MM) + 1
    field = smooth_field(rng, (count, count, count), sigma_mm, 1.0)
    noise: np.ndarray = map_coordinates(field, points / GRID_MM + count // 2, order=1)
    return noise


def _spots(
    tissues: Float[np.ndarray, "3 x y z"], points: Float[np.ndarray, "3 x y z"], rng: np.random.Generator
) -> Float[np.ndarray, "x y z"]:
    """Bright spots beside the ventricles, as ageing makes them: they look like oedema and are not labelled."""
    spacing_mm = float(np.abs(points[2, 0, 0, 1] - points[2, 0, 0, 0]))
    inner = np.abs(points[0]) < 35
    beside = np.argwhere((gaussian_filter(tissues[2] * inner, 5 / spacing_mm) > 0.15) & (tissues[1] > 0.7) & inner)
    spots = np.zeros(tissues.shape[1:])
    for place in beside[rng.integers(len(beside), size=rng.poisson(6))]:
        radius = rng.uniform(2, 5)
        distance = np.sqrt(((points - points[:, *place][:, None, None, None]) ** 2).sum(axis=0))
        spots = np.maximum(spots, rng.uniform(0.4, 1) * _soft(radius - distance, 2 * spacing_mm))
    return np.asarray(spots * tissues[1].clip(0, 1))


def _scan(
    maps: Float[np.ndarray, "8 x y z"], brain: Bool[np.ndarray, "x y z"], spacing_mm: float, rng: np.random.Generator
) -> dict[str, Int[np.ndarray, "x y z"]]:
    """Four acquisitions with their own contrast, texture, resolution, bias field and Rician noise."""
    images = {}
    grain = gaussian_filter(rng.standard_normal(brain.shape), 1.5 / spacing_mm)
    grain /= grain.std()
    for modality, contrast in CONTRAST.items():
        means = np.array(contrast) * rng.normal(1, 0.08, len(contrast)).clip(0.75, 1.25)
        image = np.tensordot(means, maps, axes=1)
        image *= 1 + 0.08 * grain * maps[3:6].sum(axis=0)  # tumours are less even than tissue
        image = gaussian_filter(image * brain, rng.uniform(0, 0.5, 3))
        image *= np.exp(bias_field(brain.shape, spacing_mm, rng.uniform(0.05, 0.3), rng))
        real, imaginary = rng.uniform(0.015, 0.06) * rng.standard_normal((2, *brain.shape))
        units = np.rint(np.hypot(image + real, imaginary) * rng.uniform(150, 1500))
        images[modality] = np.where(brain, np.clip(units, 1, np.iinfo(np.int16).max), 0).astype(np.int16)
    return images
