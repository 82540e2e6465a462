"""From label-free scores to an estimate of the Dice: a small regression on scans with labels that the model never saw.

Validation scans are few, so the model must not be able to follow them: logit(Dice) is linear in three scores, with one
offset for each structure, every coefficient drawn to a fixed prior and bounded to the side that makes sense. With no
scan at all it would return the equivariance Dice itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from semiseg.models.volumes import Volume
from semiseg.rank.scores import Row

Structure = tuple[str, str, str]
"""class, value and kind."""

FEWEST_SCANS = 2
"""With one, nothing says how well the estimate does on another."""
LIMIT = 0.01
"""Dice is cut to LIMIT and 1 - LIMIT, where its logit is +-4.6."""
NOISE = 0.5
"""Of logit(Dice) about its estimate: at a Dice of 0.8, about 0.08."""
PRIOR = {
    "intercept": (0.0, 2.0, -math.inf, math.inf),
    "equivariance_dice": (1.0, 0.5, 0.0, math.inf),
    "border_entropy": (0.0, 3.0, -math.inf, 0.0),
    "disagreement": (0.0, 0.5, -math.inf, 0.0),
}
"""Mean, deviation, lowest and highest coefficient: of logit(equivariance Dice), bits, and logit(disagreement)."""
OFFSET_DEVIATION = 0.5
"""Of a structure's own offset; its mean is 0."""


@dataclass(frozen=True)
class Point:
    """One structure of one scan with a label: its scores and its true Dice."""

    case: str
    row: Row
    true: float

    @property
    def structure(self) -> Structure:
        return structure_of(self.row)


@dataclass(frozen=True)
class Calibration:
    """A fitted regression; `estimate` applies it."""

    centres: Mapping[str, float]
    """Mean of each score's feature over the points; a score that a row lacks is taken to be average."""
    coefficients: Mapping[str, float]
    offsets: Mapping[Structure, float]

    @classmethod
    def fit(cls, points: Sequence[Point]) -> Calibration:
        """Least squares on logit(Dice) with the prior as further observations and bounds as in PRIOR."""
        from scipy.optimize import lsq_linear

        features = [_features(point.row) for point in points]
        scores = [name for name in PRIOR if name != "intercept"]
        centres = {name: _mean([one[name] for one in features if name in one]) for name in scores}
        names = sorted({point.structure for point in points})
        prior = [*PRIOR.values(), *[(0.0, OFFSET_DEVIATION, -math.inf, math.inf)] * len(names)]
        mean, deviation, low, high = (np.array(column) for column in zip(*prior, strict=True))
        # the prior mean is that of an intercept at features 0; they are centred, so it moves along the prior slopes
        mean[0] = sum(PRIOR[name][0] * centres[name] for name in scores)
        rows = [
            [1.0, *(one.get(name, centres[name]) - centres[name] for name in scores)]
            + [float(point.structure == name) for name in names]
            for one, point in zip(features, points, strict=True)
        ]
        design = np.concatenate([np.array(rows) / NOISE, np.diag(1 / deviation)])
        wanted = np.concatenate([[_logit(point.true) / NOISE for point in points], mean / deviation])
        found = lsq_linear(design, wanted, bounds=(low, high)).x.tolist()
        return cls(centres, dict(zip(PRIOR, found, strict=False)), dict(zip(names, found[len(PRIOR) :], strict=True)))

    def estimate(self, row: Row) -> float | None:
        """The Dice of one structure, from 0.01 to 0.99; None where it has no equivariance Dice."""
        features = _features(row)
        if "equivariance_dice" not in features:
            return None
        logit = self.coefficients["intercept"] + self.offsets.get(structure_of(row), 0.0)
        logit += sum(self.coefficients[name] * (value - self.centres[name]) for name, value in features.items())
        return min(max(1 / (1 + math.exp(-logit)), LIMIT), 1 - LIMIT)


def structure_of(row: Row) -> Structure:
    return row["class"], row["value"], row["kind"]


def estimated(rows: Sequence[Row], calibration: Calibration, volumes: Sequence[Volume]) -> list[float | None]:
    """The Dice of every row of one scan, a mean row's being that of its structures.

    A structure that the model did not find has a Dice of 0 where all scans with labels have it, else no estimate.
    """
    always = {(one.name, one.value, one.kind) for one in volumes if one.found_in == one.scans}
    single: list[float | None] = []
    for row in rows:
        if row["kind"] == "mean" or row["volume_ml"] == 0:
            single.append(0.0 if structure_of(row) in always else None)
        else:
            single.append(calibration.estimate(row))
    result = []
    for row, value in zip(rows, single, strict=True):
        if row["kind"] == "mean":
            kind = "region" if row["class"] == "regions_mean" else "class"
            parts = [one for other, one in zip(rows, single, strict=True) if other["kind"] == kind and one is not None]
            value = fmean(parts) if parts else None
        result.append(value)
    return result


def leave_one_out(points: Sequence[Point]) -> dict[str, Any]:
    """How well the estimate does on a scan that it was not fitted to: each scan in turn, fitted to all others.

    Over scans (mean over their classes) and over all structures of all scans: `mae`, the mean absolute error;
    `mae_of_mean`, that of always saying the mean of the other scans; Spearman's `rho`, where there are three; `n`.
    """
    names = sorted({point.case for point in points})
    pairs: list[tuple[Point, float, float]] = []
    for name in names:
        others = [point for point in points if point.case != name]
        fitted = Calibration.fit(others)
        for point in points:
            value = fitted.estimate(point.row) if point.case == name else None
            if value is not None:
                alike = [one.true for one in others if one.structure == point.structure] or [one.true for one in others]
                pairs.append((point, value, fmean(alike)))
    by_scan = []
    for name in names:
        own = [pair for pair in pairs if pair[0].case == name and pair[0].row["kind"] == "class"]
        if own:
            columns = zip(*((value, point.true, plain) for point, value, plain in own), strict=True)
            by_scan.append(tuple(fmean(column) for column in columns))
    return {
        "scans": _errors(by_scan),
        "structures": _errors([(value, point.true, plain) for point, value, plain in pairs]),
    }


def _errors(triples: Sequence[tuple[float, ...]]) -> dict[str, float | int | None]:
    """Of estimate, truth and the mean of the others."""
    from scipy.stats import spearmanr

    if not triples:
        return {"n": 0, "mae": None, "mae_of_mean": None, "rho": None}
    value, true, plain = (np.array(column) for column in zip(*triples, strict=True))
    defined = len(triples) > 2 and np.ptp(value) > 0 and np.ptp(true) > 0
    return {
        "n": len(triples),
        "mae": float(np.abs(value - true).mean()),
        "mae_of_mean": float(np.abs(plain - true).mean()),
        "rho": float(spearmanr(value, true).statistic) if defined else None,
    }


def _features(row: Row) -> dict[str, float]:
    """Those that the row has."""
    shares = {name: _logit(row[name]) for name in ("equivariance_dice", "disagreement") if row[name] is not None}
    return shares | ({"border_entropy": row["border_entropy"]} if row["border_entropy"] is not None else {})


def _logit(share: float) -> float:
    cut = min(max(share, LIMIT), 1 - LIMIT)
    return math.log(cut / (1 - cut))


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
