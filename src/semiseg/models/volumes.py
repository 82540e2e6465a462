"""Volumes that structures have in the scans with labels, and how far another scan's is from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from pydantic import Field

from semiseg.data.plan import Plan
from semiseg.data.prepare import PreparedCase
from semiseg.data.structures import structures_of
from semiseg.settings import Settings

PRIOR_SCANS, PRIOR_DEVIATION = 2, 0.25
"""Two scans by chance alike would make every other volume implausible: as if as many more differed by a quarter, about
what adults' organs do."""


class Volume(Settings):
    """Of one class or region: numbers over scans, never those of one scan."""

    name: str
    value: str
    kind: str
    scans: int
    """With a label."""
    found_in: int
    """Those that have the structure."""
    log_mean: float
    """Of the natural logarithm of its volume in ml."""
    log_deviation: float = Field(gt=0)
    """What another scan's may differ by: standard deviation, PRIOR_SCANS and the mean's own uncertainty included."""

    def z_score(self, volume_ml: float) -> float:
        """Deviations between a volume above 0 and the mean, both as logarithms."""
        return (math.log(volume_ml) - self.log_mean) / self.log_deviation


def reference_volumes(cases: Sequence[PreparedCase], plan: Plan) -> list[Volume]:
    """One for each class but the background and each region that at least two of the cases, which have labels, show.

    Measured as `score_image` does it, on the network's grid; voxels that are not annotated count nowhere.
    """
    counts = [np.unique(np.asarray(case.open_label()), return_counts=True) for case in cases]
    voxels = [dict(zip(values.tolist(), count.tolist(), strict=True)) for values, count in counts]
    result = []
    for each in structures_of(plan):
        logs = [
            math.log(total * math.prod(case.spacing_mm) / 1000)
            for case, found in zip(cases, voxels, strict=True)
            if (total := sum(found.get(member, 0) for member in each.members(plan)))
        ]
        if len(logs) > 1:
            mean, deviation = _log_statistics(logs)
            result.append(
                Volume(
                    name=each.name, value=each.value, kind=each.kind, scans=len(cases), found_in=len(logs),
                    log_mean=mean, log_deviation=deviation,
                )
            )  # fmt: skip
    return result


def _log_statistics(logs: Sequence[float]) -> tuple[float, float]:
    mean = fmean(logs)
    squares = sum((value - mean) ** 2 for value in logs) + PRIOR_SCANS * PRIOR_DEVIATION**2
    return mean, math.sqrt(squares / (len(logs) - 1 + PRIOR_SCANS) * (1 + 1 / len(logs)))
