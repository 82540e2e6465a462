"""Simulated axial chest CT slices with lesions of COVID-19, in the layouts of MedSeg and UCSD-AI4H COVID-CT.

Every slice is of another subject: a thorax of ellipses (skin, fat, muscle, ribs, spine, heart, aorta), two lungs
with branching vessels, and lesions: ground glass, consolidation and pleural effusion. Each part is painted over
what is there with an edge of about one pixel, and the label is the part that fills most of a pixel, so it is exact.
Rows run to posterior and columns to the patient's left, as pictures of CT are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, gaussian_filter

from semiseg.files import replacing
from semiseg.processes import default_workers, each
from semiseg.simulate.cohort import check_range, cohort, save_nifti, write_subjects

LABELS = {"background": 0, "ground glass": 1, "consolidation": 2, "pleural effusion": 3}
FIELD_MM = 380.0  # reconstructed field of view; its inscribed circle is what the scanner sees
LUNG = len(LABELS)  # what is neither lesion nor background, while a slice is painted
OUTSIDE_HU = -1024.0  # beyond that circle
WINDOWS_HU = ((-600, 1500), (-500, 1400), (-400, 1000), (-650, 1800))
"""Level and width, of which each published picture has one: radiologists differ."""
VALIDATION, COVID, OTHER = "validation", "covid", "other"
STREAMS = {"training": 0, VALIDATION: 1, COVID: 2, OTHER: 3}
"""Slices of different streams are of different subjects; those of `other` have no lesions."""

Map = Float[np.ndarray, "rows columns"]


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice in Hounsfield units; label values as in `LABELS`; lung is 1 in the right and 2 in the left lung,
    lesions included."""

    image: Map
    label: Int[np.ndarray, "rows columns"]
    lung: Int[np.ndarray, "rows columns"]


class Canvas:
    """A slice while it is painted: Hounsfield units, and the share of every pixel that each label and `LUNG` have."""

    def __init__(self, size: int) -> None:
        self.pixel_mm = FIELD_MM / size
        steps = (np.arange(size) - (size - 1) / 2) * self.pixel_mm
        self.y, self.x = np.meshgrid(steps, steps, indexing="ij")
        self.hounsfield = np.full((size, size), -1000.0)
        self.shares = np.zeros((len(LABELS) + 1, size, size))
        self.shares[0] = 1

    def paint(self, share: Map, hounsfield: float | Map, label: int = 0) -> None:
        """Put a material over what is there: `share` of each pixel, 0 to 1."""
        self.hounsfield += share * (hounsfield - self.hounsfield)
        self.shares *= 1 - share
        self.shares[label] += share

    def ellipse(self, x: float, y: float, a: float, b: float, power: float = 2.0) -> Map:
        """Share of each pixel in an ellipse around (x, y), all in mm; a larger power is closer to a rectangle."""
        radius = (np.abs((self.x - x) / a) ** power + np.abs((self.y - y) / b) ** power) ** (1 / power)
        return self.soft((1 - radius) * min(a, b))

    def soft(self, inside_mm: Map) -> Map:
        """Share of each pixel within an outline, from the distance of its centre to it."""
        share: Map = np.clip(0.5 + inside_mm / self.pixel_mm, 0, 1)
        return share

    def noise(self, sigma_mm: float, rng: np.random.Generator) -> Map:
        """Smooth noise of mean 0 and deviation 1; smoother than a few pixels, it is drawn coarser and enlarged."""
        coarser = max(1, int(sigma_mm / self.pixel_mm / 2))
        few, size = -(-len(self.x) // coarser), len(self.x)
        noise = gaussian_filter(rng.standard_normal((few, few)), sigma_mm / self.pixel_mm / coarser, mode="wrap")
        if coarser > 1:
            noise = np.asarray(Image.fromarray(noise.astype(np.float32)).resize((size, size)), dtype=np.float64)
        scaled: Map = (noise - noise.mean()) / noise.std()
        return scaled


def simulate_covid(
    out: Path, *, subjects: int = 100, seed: int = 0, size: int = 512, workers: int | None = None
) -> Path:
    """Write MedSeg's stacked slices and COVID-CT's folders of pictures; return the folder.

    subjects: labelled slices (`tr_im`, `tr_mask`, `tr_lungmasks_updated`); a tenth as many, at least one, are in
    `val_im`, and as many pictures in each of `CT_COVID` and `CT_NonCOVID`. size: rows and columns of the stacks, at
    least 32. Slice n of a stack is a function of seed, n and size alone. A cohort already there is kept.

    Raises UserError for impossible numbers, InputError if `out` holds something else.
    """
    check_range("--size", size, 32, 1024)
    out = Path(out)
    with cohort(out, "covid", subjects=subjects, seed=seed, size=size) as needed:
        if needed:
            training = _stack("training", subjects, size, seed, workers)
            validation = _stack(VALIDATION, max(1, subjects // 10), size, seed, workers)
            for name, parts in (
                ("tr_im", [part.image for part in training]),
                ("tr_mask", [part.label for part in training]),
                ("tr_lungmasks_updated", [part.lung for part in training]),
                ("val_im", [part.image for part in validation]),
            ):
                _save_stack(out / f"{name}.nii.gz", parts)
            write_subjects(partial(_write_pictures, out, size, seed), subjects, workers)
    return out


def simulate_slice(stream: str, number: int, *, size: int = 512, seed: int = 0) -> Slice:
    """Draw one slice of `STREAMS`: somewhere between the top of the lungs and the diaphragm."""
    rng = np.random.default_rng([seed, STREAMS[stream], number])
    canvas = Canvas(size)
    level = rng.uniform(0.1, 1.0)  # 0 is the top of the lungs, 1 just above the diaphragm
    right, left, cavity_mm = _thorax(canvas, level, rng)
    lungs = right + left
    _vessels(canvas, lungs, level, rng)
    if stream != OTHER:
        _lesions(canvas, lungs, cavity_mm, level, rng)
    image = gaussian_filter(canvas.hounsfield, rng.uniform(0.3, 0.7) / canvas.pixel_mm)  # in mm: the detector's blur
    streaks = gaussian_filter(rng.standard_normal(image.shape), (0.3, 1.0))
    image += rng.uniform(8, 35) * (0.6 * rng.standard_normal(image.shape) + streaks)
    image = np.where(np.hypot(canvas.x, canvas.y) < FIELD_MM / 2, np.maximum(image, OUTSIDE_HU), OUTSIDE_HU)
    background, *lesions, lung = canvas.shares
    label = np.stack([background + lung, *lesions]).argmax(axis=0)
    lung = np.where(background < 0.5, np.where(right > left, 1, 2), 0)
    return Slice(image.astype(np.float32), label.astype(np.uint8), lung.astype(np.uint8))


def _thorax(canvas: Canvas, level: float, rng: np.random.Generator) -> tuple[Map, Map, Map]:
    """Paint body and lungs. Returns the shares of right and left lung, and the depth in mm within the chest wall."""
    a, b = rng.uniform(145, 172), rng.uniform(100, 122)
    fat, muscle = rng.uniform(6, 18), rng.uniform(12, 20)
    canvas.paint(canvas.ellipse(0, b + 22, 220, 8, 6), -700.0)  # the table
    canvas.paint(canvas.ellipse(0, 0, a, b, 2.5), 45.0)  # skin
    canvas.paint(canvas.ellipse(0, 0, a - 2, b - 2, 2.5), -100 + 8 * canvas.noise(3, rng))
    canvas.paint(canvas.ellipse(0, 0, a - fat, b - fat, 2.4), 50 + 12 * canvas.noise(2, rng))
    inner_a, inner_b = (a - fat - muscle) * (0.72 + 0.28 * level**0.5), b - fat - muscle
    wobble = 1 + 0.02 * canvas.noise(25, rng)
    radius = np.hypot(canvas.x / inner_a, (canvas.y + 2) / inner_b) * wobble
    cavity_mm = (1 - radius) * inner_b
    _ribs(canvas, inner_a, inner_b, rng)
    between = 14 + 14 * np.exp(-(((canvas.y + 8) / 25) ** 2)) + rng.uniform(0, 6)  # half width of the mediastinum
    heart = rng.uniform(38, 52) * min(1.0, level * 1.4), rng.uniform(30, 42) * min(1.0, level * 1.4)
    heart_x, heart_y = rng.uniform(14, 26), rng.uniform(-38, -24)
    middle = np.hypot((canvas.x - heart_x) / heart[0], (canvas.y - heart_y) / heart[1])
    spine_y = inner_b - 14
    spine = np.hypot(canvas.x / 24, (canvas.y - spine_y) / 26)
    open_mm = np.minimum.reduce([cavity_mm, (middle - 1) * heart[1], (spine - 1) * 24])
    right = canvas.soft(np.minimum(open_mm, -canvas.x - between))
    left = canvas.soft(np.minimum(open_mm, canvas.x - between))
    canvas.paint(canvas.soft(cavity_mm), -90 + 10 * canvas.noise(3, rng))  # fat of the mediastinum
    canvas.paint(canvas.soft((1 - middle) * heart[1]), 42 + 8 * canvas.noise(6, rng))
    for x, y, r, value in ((0, -4, 13, 45), (18, spine_y - 28, 12, 45), (-12, -14, 9, 42), (0, 14, 8, -950)):
        canvas.paint(canvas.ellipse(x, y, r * rng.uniform(0.85, 1.15), r), float(value))  # great vessels, trachea
    canvas.paint(canvas.ellipse(0, spine_y, 18, 15), 230 + 40 * canvas.noise(1.5, rng))
    canvas.paint(canvas.ellipse(0, spine_y + 21, 9, 7), 30.0)  # spinal canal
    canvas.paint(canvas.ellipse(0, spine_y + 32, 26, 5), 280.0)
    base = rng.uniform(-890, -800) + rng.uniform(20, 80) * canvas.y / inner_b  # denser where it lies
    canvas.paint(right + left, base + 12 * canvas.noise(1.5, rng) + 15 * canvas.noise(8, rng), LUNG)
    return right, left, cavity_mm


def _ribs(canvas: Canvas, inner_a: float, inner_b: float, rng: np.random.Generator) -> None:
    """Oblique cuts of ribs along the chest wall, and the sternum."""
    nearest = np.full_like(canvas.x, np.inf)
    first = rng.uniform(0, 30)
    for angle in np.radians(np.arange(first, 360 + first, 30)):
        x, y = (inner_a + 7) * np.cos(angle), (inner_b + 7) * np.sin(angle) - 2
        if abs(x) < 25:
            continue
        turn = angle + np.pi / 2
        along = (canvas.x - x) * np.cos(turn) + (canvas.y - y) * np.sin(turn)
        across = -(canvas.x - x) * np.sin(turn) + (canvas.y - y) * np.cos(turn)
        nearest = np.minimum(nearest, np.hypot(along / rng.uniform(9, 20), across / 4.5))
    canvas.paint(canvas.soft((1 - nearest) * 4.5), 480.0)
    canvas.paint(canvas.soft((0.55 - nearest) * 4.5), 180.0)  # marrow
    canvas.paint(canvas.ellipse(0, -inner_b - 8, 20, 5, 3), 220.0)


def _vessels(canvas: Canvas, lungs: Map, level: float, rng: np.random.Generator) -> None:
    """Vessels that branch from each hilum towards the chest wall, drawn at twice the resolution."""
    size = len(lungs)
    pixels = 2 / canvas.pixel_mm
    picture = Image.new("L", (2 * size, 2 * size))
    draw = ImageDraw.Draw(picture)
    for side in (-1, 1):
        for _ in range(int(10 + 8 * level)):
            place = np.array([side * 30.0, -2.0]) + rng.normal(0, 6, 2)
            angle, width = rng.uniform(-1.4, 1.4), rng.uniform(2.5, 5.0)
            branches = [(place, angle, width)]
            while branches:
                place, angle, width = branches.pop()
                end = place + rng.uniform(8, 20) * np.array([side * np.cos(angle), np.sin(angle)])
                corners = [tuple(point * pixels + size) for point in (place, end)]
                draw.line([*corners[0], *corners[1]], fill=255, width=max(1, round(width * pixels)))
                if width > 0.9:
                    branches.append((end, angle + rng.normal(0, 0.35), width * 0.8))
                    if rng.random() < 0.4:
                        branches.append((end, angle + rng.choice((-1, 1)) * rng.uniform(0.4, 0.9), width * 0.6))
    # in a thick slice most vessels leave the plane: broken by noise, and thin ones are fainter
    drawn = np.asarray(picture.reduce(2), dtype=np.float64) / 255
    drawn *= np.clip(0.6 + 0.6 * canvas.noise(6, rng), 0, 1)
    canvas.paint(drawn * lungs, rng.uniform(0, 60), LUNG)


def _lesions(canvas: Canvas, lungs: Map, cavity_mm: Map, level: float, rng: np.random.Generator) -> None:
    """Ground glass in most slices, consolidation in half, effusion in a third of the lower ones."""
    inside = lungs > 0.5
    depth_mm = distance_transform_edt(inside) * canvas.pixel_mm
    # towards the chest wall and the back, where the disease prefers to be
    likely = np.where(inside & (depth_mm > 1), np.exp(-cavity_mm / 25) * np.exp(canvas.y / 80), 0).ravel()
    likely /= likely.sum()
    ground = np.zeros_like(lungs)
    for _ in range(rng.integers(1, 6)):
        ground = np.maximum(ground, _blob(canvas, likely, rng.uniform(10, 38), rng))
    vessels_stay = np.maximum(canvas.hounsfield, rng.uniform(-700, -300) + 60 * canvas.noise(3, rng))
    canvas.paint(ground * lungs, vessels_stay, LABELS["ground glass"])
    if rng.random() < 0.55:
        for _ in range(rng.integers(1, 4)):
            dense = _blob(canvas, likely, rng.uniform(5, 20), rng)
            canvas.paint(dense * lungs, rng.uniform(-80, 40) + 25 * canvas.noise(3, rng), LABELS["consolidation"])
    if level > 0.45 and rng.random() < 0.4:
        side = (1, -1, 0)[rng.integers(3)]  # left, right, both
        here = lungs * (canvas.x * side >= 0)
        # fluid lies between the lung and the back: what leaves the chest wall when moved backwards
        moved_mm = rng.uniform(6, 28) * np.clip(canvas.y / 60 + 0.4, 0, 1)
        rows = np.clip(canvas.y + moved_mm, canvas.y.min(), canvas.y.max())
        row = np.rint((rows - canvas.y[0, 0]) / canvas.pixel_mm).astype(int)
        outside = 1 - canvas.soft(cavity_mm)[row, np.arange(len(lungs))]
        canvas.paint(here * outside, rng.uniform(0, 30) + 5 * canvas.noise(4, rng), LABELS["pleural effusion"])


def _blob(canvas: Canvas, likely: Map, radius_mm: float, rng: np.random.Generator) -> Map:
    """Share of each pixel in an irregular patch around a place drawn from `likely`."""
    place = rng.choice(likely.size, p=likely)
    x, y = canvas.x.flat[place], canvas.y.flat[place]
    ratio = rng.uniform(0.7, 1.4)
    distance = np.hypot((canvas.x - x) * ratio, (canvas.y - y) / ratio)
    return canvas.soft(radius_mm * (1 + 0.3 * canvas.noise(radius_mm / 3, rng)) - distance)


def _stack(stream: str, count: int, size: int, seed: int, workers: int | None) -> list[Slice]:
    draw = partial(_numbered, stream, size, seed)
    return list(each(draw, range(1, count + 1), f"simulate {stream}", workers or default_workers()))


def _numbered(stream: str, size: int, seed: int, number: int) -> Slice:
    return simulate_slice(stream, number, size=size, seed=seed)


def _save_stack(path: Path, slices: list[np.ndarray]) -> None:
    """Slices along the last axis; the first axis are columns, as NIfTI files of CT have them."""
    stack = np.stack([part.T for part in slices], axis=-1)
    pixel_mm = FIELD_MM / len(stack)
    save_nifti(path, stack, np.diag([-pixel_mm, -pixel_mm, 1.0, 1.0]))


def simulate_picture(stream: str, number: int, *, size: int = 512, seed: int = 0) -> tuple[Image.Image, Slice]:
    """A slice as it is published: 8 bits, of its own window, crop and size; and the slice, cut out the same."""
    part = simulate_slice(stream, number, size=size, seed=seed)
    rng = np.random.default_rng([seed, STREAMS[stream], number, 1])
    level, width = WINDOWS_HU[rng.integers(len(WINDOWS_HU))]
    grey = np.rint(np.clip((part.image - level) / width + 0.5, 0, 1) * 255).astype(np.uint8)
    rows, columns = (slice(int(low * size), size - int(high * size)) for low, high in _crop(rng))
    scale = rng.uniform(0.6, 1.2)
    cut = Image.fromarray(grey[rows, columns])
    cut = cut.resize((max(16, round(cut.width * scale)), max(16, round(cut.height * scale))), Image.Resampling.BOX)
    return cut, Slice(*(array[rows, columns] for array in (part.image, part.label, part.lung)))


def _write_pictures(out: Path, size: int, seed: int, number: int) -> None:
    """One picture of a patient with COVID-19 and one of another."""
    for stream, folder in ((COVID, "CT_COVID"), (OTHER, "CT_NonCOVID")):
        picture, _ = simulate_picture(stream, number, size=size, seed=seed)
        ending = "jpg" if number % 3 == 0 else "png"
        with replacing(out / folder / f"{stream}_{number:03d}.{ending}") as temporary:
            picture.save(temporary, quality=80)  # of JPEG


def _crop(rng: np.random.Generator) -> tuple[tuple[float, float], tuple[float, float]]:
    """Shares cut off above and below, then left and right: mostly air."""
    return tuple(rng.uniform(0.12, 0.22, 2)), tuple(rng.uniform(0.01, 0.1, 2))
