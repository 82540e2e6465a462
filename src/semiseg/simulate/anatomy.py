"""The 28 classes of whole-brain segmentation on the MNI152 template, built from its tissue maps and simple shapes.

The template's files hold how much of every voxel is grey and white matter, but no structures. So each structure is a
shape (ellipsoids and curved tubes, in template millimetres, placed by looking at the template) cut out of the tissue
that it consists of: ventricles out of fluid, the caudate out of grey matter, and so on. What no shape takes is
cortical, left or right of x = 0. The cerebellum is told from the cerebrum by flooding from both sides of the
tentorium, where they meet in fluid. A skull and a scalp of even thickness are around it, since real scans have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt, watershed_ift

from semiseg.data.label_tables import QUICKNAT_28
from semiseg.simulate.brain import read_map

FLUID, SKULL, SCALP = len(QUICKNAT_28), len(QUICKNAT_28) + 1, len(QUICKNAT_28) + 2
"""Drawn, but background in the labels: fluid outside the ventricles, and what is around it."""
LAYERS_MM = {FLUID: 2.5, SKULL: 8.0, SCALP: 14.0}  # outer distance of each from the brain

Map = Float[np.ndarray, "x y z"]
Mask = Bool[np.ndarray, "x y z"]
Path = Sequence[tuple[float, float, float, float]]
"""Points of a tube for the right side, in template millimetres, and its radius at each."""

# Right side; the template is symmetric, so the left is the mirror image.
VENTRICLE: Path = (
    (8, 31, 1, 9), (9, 20, 8, 12), (9, 5, 17, 11), (11, -10, 20, 11), (18, -26, 20, 11), (26, -42, 12, 13),
    (27, -56, 8, 11), (26, -68, 5, 8),
)  # fmt: skip
TEMPORAL_HORN: Path = ((29, -42, 4, 8), (34, -32, -8, 6), (33, -16, -18, 6), (30, -8, -22, 5))
CAUDATE: Path = ((11, 21, -1, 9), (13, 12, 8, 9), (15, 2, 14, 8), (18, -9, 19, 6), (21, -20, 20, 4.5))
HIPPOCAMPUS: Path = ((22, -11, -20, 6.5), (27, -18, -17, 6.5), (30, -26, -13, 6), (28, -34, -5, 5.5), (22, -39, 2, 4))
BRAIN_STEM: Path = (
    (0, -21, -11, 15), (0, -25, -20, 14), (0, -27, -30, 16), (0, -29, -38, 16), (0, -36, -50, 12), (0, -41, -60, 10),
    (0, -46, -74, 10),
)  # fmt: skip
FOURTH: Path = ((0, -39, -22, 6), (0, -45, -34, 10), (0, -49, -44, 9))


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What is at every millimetre of the template: indices of `QUICKNAT_28`, or `FLUID`, `SKULL`, `SCALP`."""

    values: Int[np.ndarray, "x y z"]
    origin_mm: Float[np.ndarray, " axis"]
    """Template coordinates of the first voxel."""
    low_mm: Float[np.ndarray, " axis"]
    """Corner of the box around the brain and the fluid on it; `high_mm` is opposite."""
    high_mm: Float[np.ndarray, " axis"]


@dataclass(frozen=True, eq=False)
class Tissues:
    """The right half of the template (x >= 0): shares of grey matter, white matter and fluid in the brain, and
    coordinates in mm. It is all there is, as the template is symmetric."""

    grey: Map
    white: Map
    fluid: Map
    brain: Mask
    x: Map
    y: Map
    z: Map

    def ellipsoid(self, centre: Sequence[float], axes: Sequence[float], turn_deg: float = 0.0) -> Mask:
        """Half axes along x, y, z; turned about z so that the back of the structure lies further from the middle."""
        x, y, z = (part - c for part, c in zip((self.x, self.y, self.z), centre, strict=True))
        cos, sin = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
        across, along = cos * x + sin * y, cos * y - sin * x
        inside: Mask = (across / axes[0]) ** 2 + (along / axes[1]) ** 2 + (z / axes[2]) ** 2 < 1
        return inside

    def tube(self, path: Path) -> Mask:
        """Within the radius of a line through the points, the radius changing linearly between them."""
        inside = np.zeros(self.brain.shape, bool)
        for (*start, thick), (*end, thin) in pairwise(path):
            step = np.subtract(end, start)
            away = [part - c for part, c in zip((self.x, self.y, self.z), start, strict=True)]
            share = sum(a * float(s) for a, s in zip(away, step, strict=True)) / float(step @ step)
            share = np.clip(share, 0, 1)
            distance = sum((a - share * float(s)) ** 2 for a, s in zip(away, step, strict=True))
            inside |= distance < (thick + share * (thin - thick)) ** 2
        return inside


@lru_cache(maxsize=1)
def load_anatomy() -> Anatomy:
    """Build the structures from the template inside nilearn; raises MissingExtra without it."""
    tissues = read_tissues()
    right = _right_half(tissues)
    outside = distance_transform_edt(~tissues.brain)
    for layer, reach in reversed(LAYERS_MM.items()):
        right[(outside > 0) & (outside <= reach)] = layer
    mirrored = np.arange(SCALP + 1, dtype=np.uint8)
    for name, index in QUICKNAT_28.items():
        if name.startswith("right "):
            mirrored[index] = QUICKNAT_28[name.replace("right", "left")]
    values = np.concatenate([mirrored[right[:0:-1]], right])  # the plane x = 0 is there once
    origin = np.array([1.0 - len(right), tissues.y.min(), tissues.z.min()])
    corners = np.argwhere((values > 0) & (values <= FLUID))
    low, high = corners.min(axis=0) + origin, corners.max(axis=0) + origin
    return Anatomy(values, origin, low, high)


def read_tissues() -> Tissues:
    """The right half of the template's box around the head."""
    t1, *maps = (read_map(name) for name in ("t1", "gm", "wm"))
    axes = [np.arange(n, dtype=np.float32) + np.float32(o) for n, o in zip(t1.shape, t1.affine[:3, 3], strict=True)]
    brain = np.asarray(t1.dataobj) > 0
    reach = LAYERS_MM[SCALP] + 1
    box = []
    for axis, places in enumerate(axes):
        filled = places[brain.any(axis=tuple({0, 1, 2} - {axis}))]
        first = 0.0 if axis == 0 else filled[0] - reach
        box.append(slice(*np.searchsorted(places, (first, filled[-1] + reach))))
    cut = tuple(box)
    grey, white = (np.asarray(part.dataobj, dtype=np.float32)[cut] / 255 * brain[cut] for part in maps)
    x, y, z = np.meshgrid(*(places[part] for places, part in zip(axes, box, strict=True)), indexing="ij", sparse=True)
    return Tissues(grey, white, brain[cut] - grey - white, brain[cut], x, y, z)


def _right_half(tissues: Tissues) -> Int[np.ndarray, "x y z"]:
    """Index of `QUICKNAT_28` or `FLUID` in every voxel of the brain's right half; 0 outside the brain."""
    solid = tissues.fluid < 0.5
    white = tissues.white > tissues.grey
    # grey matter that no shape takes in this region is not cortex
    white |= tissues.ellipsoid((0, -5, 4), (32, 30, 20))
    below, stem = _cerebellum(tissues), tissues.tube(BRAIN_STEM) & solid & (tissues.z < -9)
    masks = {  # a later one takes from those before
        "right cortical WM": solid & white,
        "right cortical GM": solid & ~white,
        "right cerebellar WM": solid & below & white,
        "right cerebellar GM": solid & below & ~white,
        "right ventral DC": tissues.ellipsoid((11, -14, -7), (9, 11, 7)) & solid,
        "right putamen": tissues.ellipsoid((26, 2, 1), (6.5, 18, 12), 14) & (tissues.white < 0.8) & solid,
        "right pallidum": tissues.ellipsoid((19, -4, -1), (4.5, 10, 7), 20) & solid,
        "right thalamus": tissues.ellipsoid((11, -19, 8), (9, 15, 9), 22) & solid,
        "right caudate": tissues.tube(CAUDATE) & (tissues.grey > 0.5) & (tissues.z > -7),
        "right amygdala": tissues.ellipsoid((23, -3, -19), (8, 7, 8)) & (tissues.white < 0.6) & solid,
        "right hippocampus": tissues.tube(HIPPOCAMPUS) & (tissues.white < 0.6) & solid,
        "right lateral ventricle": (tissues.tube(VENTRICLE) | tissues.tube(TEMPORAL_HORN)) & ~solid,
        "brain stem": stem & ~below,
        # in the template's average it is thinner than in anyone, so a slit is cut in any case
        "3rd ventricle": tissues.ellipsoid((0, -10, 0), (5, 18, 11)) & ~solid
        | tissues.ellipsoid((0, -8, -1), (2.2, 14, 9)),
        "4th ventricle": tissues.tube(FOURTH) & ~solid,
    }
    values = np.full(solid.shape, FLUID, np.uint8)
    for name, mask in masks.items():
        values[mask] = QUICKNAT_28[name]
    values[~tissues.brain] = 0
    return values


def _cerebellum(tissues: Tissues) -> Mask:
    """Flood from well below and well above the tentorium; fluid is the barrier, so they meet in it."""
    behind = np.maximum(-60 - tissues.y, 0)
    tentorium = -22 + 26 * np.exp(-tissues.x / 14) - (0.25 + 0.5 * np.exp(-tissues.x / 10)) * behind
    markers = np.where(tissues.z > tentorium + 6, 1, np.where(tissues.z < tentorium - 6, 2, 0)).astype(np.int16)
    markers[np.broadcast_to(tissues.y > -33 - 0.25 * tissues.x, markers.shape) | tissues.tube(BRAIN_STEM)] = 1
    barrier = np.where(tissues.brain, tissues.fluid.clip(0, 1) * 200 + tissues.grey * 40, 255).astype(np.uint8)
    behind_stem = slice(0, int(np.searchsorted(tissues.y[0, :, 0], -30)))
    flooded: Mask = np.zeros(markers.shape, bool)
    flooded[:, behind_stem] = watershed_ift(barrier[:, behind_stem], markers[:, behind_stem]) == 2
    return flooded
