"""How sure a difference between methods is, from scores of the same cases in independent replicates.

A replicate is one draw of labelled scans with one seed. Every function takes scores as (replicates, cases): both are
samples of something larger, and they are crossed, as every replicate is tested on the same cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

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
    variance, freedom = _variance_of_mean(scores)
    if not np.isfinite(variance):
        return Interval(mean, -np.inf, np.inf)
    deviations = _resampled_means(scores, seed) - mean
    spread = float(deviations.std())
    if spread == 0:
        return Interval(mean, mean, mean)
    tail = (1 - LEVEL) / 2
    factor = np.sqrt(variance) / spread * stats.t.ppf(1 - tail, freedom) / stats.norm.ppf(1 - tail)
    low, high = np.quantile(deviations, (tail, 1 - tail)) * factor
    return Interval(mean, float(mean + low), float(mean + high))


def _variance_of_mean(scores: Scores) -> tuple[float, float]:
    """Unbiased variance of the grand mean of y = m + replicate + case + noise, and its degrees of freedom."""
    replicates, cases = scores.shape
    rows, columns = scores.mean(1), scores.mean(0)
    if replicates == 1 or cases == 1:
        count = scores.size
        return (float(scores.var(ddof=1)) / count, count - 1.0) if count > 1 else (np.inf, 1.0)
    noise = scores - rows[:, None] - columns[None] + scores.mean()
    squares = np.array(
        [
            cases * rows.var(ddof=1),
            replicates * columns.var(ddof=1),
            -float((noise**2).sum()) / ((replicates - 1) * (cases - 1)),
        ]
    )
    freedoms = np.array([replicates - 1, cases - 1, (replicates - 1) * (cases - 1)])
    # where the estimate would be smaller than either part alone (a component below zero), the larger part stands
    total = max(float(squares.sum()), float(squares[:2].max()))
    freedom = total**2 / float((squares**2 / freedoms).sum()) if total > 0 else 1.0
    return total / scores.size, max(freedom, 1.0)


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


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for the number of tests (Holm 1979): the chance of one false alarm among all stays below the level."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return [float(p) for p in adjusted]


def bridging_coefficient(method: Scores, baseline: Scores, upper: Scores, seed: int = 0) -> Interval | None:
    """Share of the gap between baseline and all labels that a method closes: (method - baseline) / (upper - baseline).

    upper may have fewer replicates; it has no draw, so any of them goes with any of the baseline's. None where the
    gap's own interval does not exclude zero: a share of nothing.
    """
    gap = crossed_interval(upper[np.arange(len(baseline)) % len(upper)] - baseline, seed)
    if gap.low <= 0:
        return None
    rng = np.random.default_rng(seed)
    replicates, cases = baseline.shape
    rows = rng.multinomial(replicates, np.full(replicates, 1 / replicates), RESAMPLES) / replicates
    tops = rng.multinomial(len(upper), np.full(len(upper), 1 / len(upper)), RESAMPLES) / len(upper)
    columns = rng.multinomial(cases, np.full(cases, 1 / cases), RESAMPLES) / cases

    def means(weights: np.ndarray, scores: Scores) -> np.ndarray:
        result: np.ndarray = np.einsum("nr,rc,nc->n", weights, scores, columns, optimize=True)
        return result

    bottom = means(rows, baseline)
    gaps = means(tops, upper) - bottom
    shares = (means(rows, method) - bottom)[gaps > 0] / gaps[gaps > 0]
    low, high = np.quantile(shares, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    share = float((method.mean() - baseline.mean()) / (upper.mean() - baseline.mean()))
    return Interval(share, float(low), float(high))
