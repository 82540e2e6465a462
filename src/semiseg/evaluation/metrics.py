"""How well a mask agrees with the truth: overlap, surface distances in millimetres, volumes in millilitres.

The definitions, with formulas, are in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from semiseg.errors import InputError

FAR_MM = 10.0
"""Beyond this from any structure a prediction is no matter of where exactly a border runs."""

_ROUNDING = 1e-5
"""Affines are stored in 32 bits, so a spacing of 1 mm may read as 1.0000001 mm; it is still within 1 mm."""


@dataclass(frozen=True)
class Scores:
    """One predicted mask against one true mask. A distance is None where either mask is empty.

    Overlaps (`dice`, `iou`, `surface_dice`) are 1 where both masks are empty, by definition; 0 where one is.
    """

    dice: float
    iou: float
    hd95_mm: float | None
    """The larger of the two directed 95th percentiles."""
    hausdorff_mm: float | None
    """The larger of the two directed maxima."""
    assd_mm: float | None
    """Average symmetric surface distance: the mean over the voxels of both surfaces, pooled."""
    msd_mm: float | None
    """Mean surface distance, from the prediction's surface to the truth's."""
    surface_dice: float
    """Share of the voxels of both surfaces that lie within `tolerance_mm` of the other surface."""
    tolerance_mm: float
    prediction_ml: float
    truth_ml: float

    @property
    def difference_ml(self) -> float:
        """Predicted minus true volume."""
        return self.prediction_ml - self.truth_ml


def compare(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float = 1.0
) -> Scores:
    """Compare two masks (boolean, or integer with non-zero inside) on the same grid, in 2-D or 3-D.

    spacing_mm: distance between neighbouring voxels, one per axis of the masks, in axis order.
    tolerance_mm: how far apart surfaces may lie and still agree, for the surface Dice.
    Raises InputError if the masks differ in shape or are not integers, or if a length makes no sense.
    """
    prediction, truth = _mask("prediction", prediction), _mask("truth", truth)
    _require_sense(prediction, truth, spacing_mm, tolerance_mm)
    predicted, true = int(prediction.sum()), int(truth.sum())
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    volumes = (predicted * voxel_ml, true * voxel_ml)
    if not predicted or not true:
        agreement = float(predicted == true)
        return Scores(agreement, agreement, None, None, None, None, agreement, tolerance_mm, *volumes)

    both = int((prediction & truth).sum())
    to_truth, to_prediction = _surface_distances(prediction, truth, spacing_mm)
    pooled = np.concatenate([to_truth, to_prediction])
    return Scores(
        dice=2 * both / (predicted + true),
        iou=both / (predicted + true - both),
        hd95_mm=float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95))),
        hausdorff_mm=float(pooled.max()),
        assd_mm=float(pooled.mean()),
        msd_mm=float(to_truth.mean()),
        surface_dice=float((pooled <= tolerance_mm * (1 + _ROUNDING)).mean()),
        tolerance_mm=tolerance_mm,
        prediction_ml=volumes[0],
        truth_ml=volumes[1],
    )


def far_from(mask: np.ndarray, spacing_mm: Sequence[float], distance_mm: float = FAR_MM) -> np.ndarray:
    """Where there is no voxel of the mask (boolean, not empty) within `distance_mm`, from centre to centre."""
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    margins = [int(distance_mm / length) + 1 for length in spacing_mm]
    around = tuple(slice(max(s.start - n, 0), s.stop + n) for s, n in zip(box, margins, strict=True))
    far = np.ones(mask.shape, dtype=bool)  # as is everything outside the box with its margins
    distance = ndimage.distance_transform_edt(~mask[around], sampling=tuple(spacing_mm))
    far[around] = distance > distance_mm * (1 + _ROUNDING)
    return far


def _surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distance in mm from each voxel of the prediction's surface to the truth's surface, and the reverse.

    Neither mask may be empty.
    """
    (box,) = ndimage.find_objects((prediction | truth).view(np.uint8))
    surfaces = _surface(prediction[box]), _surface(truth[box])
    return _distances(*surfaces, spacing_mm), _distances(*surfaces[::-1], spacing_mm)


def _distances(start: np.ndarray, goal: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    distances: np.ndarray = ndimage.distance_transform_edt(~goal, sampling=tuple(spacing_mm))[start]
    return distances


def _surface(mask: np.ndarray) -> np.ndarray:
    """Voxels with a neighbour across a face that is background or outside the array.

    Beyond the box around both masks all is background, and so is what lies beyond the image's edge; so the
    border of a cropped array counts as background in either case, and the crop needs no margin.
    """
    faces = ndimage.generate_binary_structure(mask.ndim, 1)
    surface: np.ndarray = mask & ~ndimage.binary_erosion(mask, faces, border_value=0)
    return surface


def _mask(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "bui":
        raise InputError(f"{name}: got {values.dtype} values, expected a boolean or integer mask; threshold it first")
    return values.astype(bool, copy=False)


def _require_sense(prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float) -> None:
    if prediction.shape != truth.shape:
        raise InputError(
            f"prediction: got shape {prediction.shape}, expected the truth's {truth.shape}; "
            "bring it to the truth's grid first"
        )
    if len(spacing_mm) != truth.ndim or not all(0 < length < np.inf for length in spacing_mm):
        raise InputError(
            f"spacing_mm: got {tuple(spacing_mm)}, expected {truth.ndim} positive lengths in mm, "
            "one per axis; check the file's header"
        )
    if not 0 <= tolerance_mm < np.inf:
        raise InputError(f"tolerance_mm: got {tolerance_mm}, expected a length of 0 mm or more; 1.0 is usual")
