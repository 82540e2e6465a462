"""How sure a difference between methods is, from scores of the same cases in independent replicates.

A replicate is one draw of labelled scans with one seed. Every function takes scores as (replicates, cases): both are
samples of something larger, and they are crossed, as every replicate is tested on the same cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

LEVEL = 0.95
RESAMPLES = 4000
EXACT = 14
"""Up to this many replicates, every one of the 2^R sign flips is tried."""

Scores = Float[np.ndarray, "replicates cases"]


@dataclass(frozen=True)
class Interval:
    """A mean and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def crossed_interval(scores: Scores, seed: int = 0) -> Interval:
    """Resamples replicates and, independently, cases (Owen 2007, the pigeonhole bootstrap).

    With nine replicates the plain percentile interval covers too little where replicates differ, and too much where
    only noise does. So its deviations are scaled to the unbiased variance of the mean under crossed effects
    (two-way analysis of variance) and by Student's t with Satterthwaite's degrees of freedom. One replicate: an
    interval over cases alone; one case: over replicates alone; one of both: no width can be known, so it is infinite.
    """
    mean = float(scores.mean())
    variance, freedom = _variance((1.0, scores))
    if not np.isfinite(variance):
        return Interval(mean, -np.inf, np.inf)
    deviations = _resampled_means(scores, seed) - mean
    spread = float(deviations.std())
    if spread == 0:
        return Interval(mean, mean, mean)
    tail = (1 - LEVEL) / 2
    factor = np.sqrt(variance) / spread * _t(freedom) / stats.norm.ppf(1 - tail)
    low, high = np.quantile(deviations, (tail, 1 - tail)) * factor
    return Interval(mean, float(mean + low), float(mean + high))


def crossed_p(scores: Scores) -> float:
    """Two-sided p of a mean of 0, where both replicates and cases are samples: of Student's t, as in the interval."""
    variance, freedom = _variance((1.0, scores))
    mean = abs(float(scores.mean()))
    if variance == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(mean / np.sqrt(variance), freedom))


def _t(freedom: float) -> float:
    """Quantile that a two-sided interval of LEVEL reaches to."""
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom))


def _variance(*parts: tuple[float, Scores]) -> tuple[float, float]:
    """Of a sum of weight x grand mean, over the same cases in every part: its unbiased variance and degrees of freedom.

    In each part y = m + replicate + case + noise, with replicates of its own. Of a single replicate it cannot be known
    how far another one would be, so it adds nothing; infinite where nothing at all can be known.
    """
    cases = parts[0][1].shape[1]
    components: list[tuple[float, int]] = []
    between = within = 0.0
    for weight, scores in parts:
        replicates, rows, columns = len(scores), scores.mean(1), scores.mean(0)
        if replicates > 1:
            of_rows = weight**2 * float(rows.var(ddof=1)) / replicates
            components.append((of_rows, replicates - 1))
            between += of_rows
        if replicates > 1 and cases > 1:
            freedom = (replicates - 1) * (cases - 1)
            noise = float(((scores - rows[:, None] - columns[None] + scores.mean()) ** 2).sum()) / freedom
            components.append((-(weight**2) * noise / scores.size, freedom))  # in rows and in columns: taken off once
    if cases > 1:
        columns = sum((weight * scores.mean(0) for weight, scores in parts), np.zeros(cases))
        within = float(columns.var(ddof=1)) / cases
        components.append((within, cases - 1))
    if not components:
        return np.inf, 1.0
    # where the estimate would be smaller than either part alone (a component below zero), the larger part stands
    total = max(sum(part for part, _ in components), between, within)
    squares = sum(part**2 / freedom for part, freedom in components)
    return total, max(total**2 / squares, 1.0) if total > 0 else 1.0


def _resampled_means(scores: Scores, seed: int) -> Float[np.ndarray, " resamples"]:
    rng = np.random.default_rng(seed)
    replicates, cases = scores.shape
    rows = rng.multinomial(replicates, np.full(replicates, 1 / replicates), RESAMPLES) / replicates
    columns = rng.multinomial(cases, np.full(cases, 1 / cases), RESAMPLES) / cases
    means: np.ndarray = np.einsum("nr,rc,nc->n", rows, scores, columns, optimize=True)
    return means


def sign_flip_p(differences: Float[np.ndarray, " replicates"]) -> float:
    """Two-sided p of no effect: each replicate's difference could as well have had the other sign.

    Only replicates count: cases of one run share its labelled scans, so a test over cases would call luck an effect.
    """
    if len(differences) < 2 or np.allclose(differences, 0):
        return 1.0
    flips = 2**EXACT  # scipy tries all of them where there are no more
    result = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=flips, rng=0)
    return float(result.pvalue)


def least_p(replicates: int) -> float:
    """Of the sign-flip test: all differences of one sign."""
    return float(min(1.0, 2 / 2 ** min(replicates, EXACT)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for the number of tests (Holm 1979): the chance of one false alarm among all stays below the level."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return [float(p) for p in adjusted]


def bridging_coefficient(method: Scores, baseline: Scores, upper: Scores) -> Interval | None:
    """Share of the gap between baseline and all labels that a method closes: (method - baseline) / (upper - baseline).

    Its interval holds every share at which method - baseline - share x (upper - baseline) is not significantly other
    than 0 (Fieller 1954). upper may have fewer replicates; it has no draw, so they are not those of the baseline. None
    where the gap itself is not significantly above 0: a share of nothing.
    """
    gap = float(upper.mean() - baseline.mean())
    variance, freedom = _variance((1.0, upper), (-1.0, baseline))
    if not gap > _t(freedom) * np.sqrt(variance):
        return None
    share = float(method.mean() - baseline.mean()) / gap

    def beyond(other: float) -> float:
        """Above 0 where this share is ruled out."""
        variance, freedom = _variance((1.0, method - (1 - other) * baseline), (-other, upper))
        return float(abs(share - other) * gap - _t(freedom) * np.sqrt(variance))

    return Interval(share, _end(beyond, share, -1), _end(beyond, share, 1))


def _end(beyond: Callable[[float], float], start: float, way: int) -> float:
    """Where `beyond` becomes positive on one side of `start`; infinite where it does not within 1000."""
    step = 1e-3
    while beyond(start + way * step) <= 0:
        step *= 2
        if step > 1e3:
            return way * np.inf
    return float(optimize.brentq(beyond, start, start + way * step)) if beyond(start) < 0 else start
