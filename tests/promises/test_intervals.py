"""Intervals and verdicts of a bench are right as often as they say, where the truth is known because it was made.

`tests/bench/test_statistics.py` has the formulas; here are the rates, with as few replicates as benches have.
"""

from itertools import product

import numpy as np
import pytest

from semiseg.bench import statistics
from semiseg.bench.statistics import bridging_coefficient, crossed_interval, crossed_p, holm, sign_flip_p
from semiseg.bench.verdict import FEWEST, verdict

EFFECT, GAP, SHARE = 0.02, 0.08, 0.35
WORLDS = {
    "draws differ most": (0.03, 0.01, 0.02),
    "scans differ most": (0.005, 0.03, 0.02),
    "all differ": (0.02, 0.02, 0.03),
    "noise alone": (0.0, 0.0, 0.03),
}
"""Standard deviations of a difference between two methods: over replicates, over scans, of what is left."""


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 400)


def differences(rng, world, replicates, cases, effect=0.0):
    over_replicates, over_cases, rest = WORLDS[world]
    return (
        effect
        + over_replicates * rng.standard_normal((replicates, 1))
        + over_cases * rng.standard_normal((1, cases))
        + rest * rng.standard_normal((replicates, cases))
    )


def error_of(rate, simulations):
    """Three standard errors of a rate that is counted in so many simulations."""
    return 3 * np.sqrt(rate * (1 - rate) / simulations)


def coverage(world, replicates, cases, simulations):
    rng = np.random.default_rng(replicates)
    intervals = [
        crossed_interval(differences(rng, world, replicates, cases, EFFECT), number) for number in range(simulations)
    ]
    return np.mean([one.low <= EFFECT <= one.high for one in intervals])


@pytest.mark.parametrize("replicates", [6, 7, 9])
def test_an_interval_of_a_difference_holds_the_truth_95_times_in_100(replicates):
    simulations = 100
    covered = np.mean([coverage(world, replicates, 20, simulations) for world in WORLDS])
    assert covered >= 0.95 - error_of(0.95, simulations * len(WORLDS))


@pytest.mark.slow
@pytest.mark.parametrize("cases", [3, 20])
@pytest.mark.parametrize("replicates", [6, 7, 9])
@pytest.mark.parametrize("world", WORLDS)
def test_whatever_differs_and_however_many_scans_there_are(world, replicates, cases):
    simulations = 600
    covered = coverage(world, replicates, cases, simulations)
    assert covered >= 0.95 - error_of(0.95, simulations)
    assert covered <= 0.99 + error_of(0.99, simulations)  # where scans or draws do not differ, it is too wide


def made_bench(rng, replicates, cases, draws=0.03):
    """Scores of a method that closes SHARE of the gap, of the baseline with the same draws, and of the upper bound."""
    scan = 0.08 * rng.standard_normal((1, cases))
    draw = draws * rng.standard_normal((replicates, 1))

    def noise(count):
        return 0.02 * rng.standard_normal((count, cases))

    baseline = 0.76 + draw + scan + noise(replicates)
    method = 0.76 + SHARE * GAP + 0.6 * draw + 0.01 * rng.standard_normal((replicates, 1)) + scan + noise(replicates)
    upper = 0.76 + GAP + 0.004 * rng.standard_normal((3, 1)) + 0.8 * scan + noise(3)
    return method + 0.01 * rng.standard_normal((1, cases)), baseline, upper


@pytest.mark.parametrize(
    ("replicates", "draws", "simulations"),
    [
        *((replicates, 0.05, 120) for replicates in (6, 7, 9)),
        *(pytest.param(*one, 600, marks=pytest.mark.slow) for one in product((6, 7, 9), (0.01, 0.03, 0.05))),
    ],
)
def test_an_interval_of_the_share_of_the_gap_does_too(replicates, draws, simulations):
    rng = np.random.default_rng(replicates)
    found = [bridging_coefficient(*made_bench(rng, replicates, 20, draws)) for _ in range(simulations)]
    shown = [one for one in found if one is not None]  # none where the gap cannot be told from nothing
    assert len(shown) > 0.7 * simulations
    covered = np.mean([one.low <= SHARE <= one.high for one in shown])
    assert covered >= 0.95 - error_of(0.95, len(shown))


@pytest.mark.parametrize("replicates", [6, 7, 9])
def test_without_a_difference_the_test_over_replicates_is_wrong_5_times_in_100_at_most(replicates):
    """Scores of any shape: what two methods that are the same have in common is all that the test needs."""
    rng = np.random.default_rng(0)
    simulations = 500
    scores = rng.exponential(1, (2, simulations, replicates)) ** 2
    wrong = np.mean([sign_flip_p(one) <= 0.05 for one in scores[0] - scores[1]])
    assert wrong <= 0.05 + error_of(0.05, simulations)


@pytest.mark.parametrize(
    ("replicates", "world", "simulations"),
    [
        (9, "scans differ most", 100),
        *(pytest.param(*one, 500, marks=pytest.mark.slow) for one in product((7, 9), list(WORLDS)[:3])),
    ],
)
def test_of_three_methods_without_an_effect_one_is_called_better_or_worse_5_times_in_100_at_most(
    replicates, world, simulations
):
    """Where each suits some scans and not others, the test over replicates alone is wrong in every second bench."""
    rng = np.random.default_rng(11)
    false = tempting = 0
    for number in range(simulations):
        scores = [differences(rng, world, replicates, 20) for _ in range(3)]
        over_replicates = holm([sign_flip_p(one.mean(1)) for one in scores])
        adjusted = map(max, over_replicates, holm([crossed_p(one) for one in scores]))
        said = [
            verdict(crossed_interval(one, number), p, replicates).kind for one, p in zip(scores, adjusted, strict=True)
        ]
        false += bool({"helped", "hurt"} & {*said})
        tempting += min(over_replicates) <= 0.05
    assert false / simulations <= 0.05 + error_of(0.05, simulations)
    assert world != "scans differ most" or tempting / simulations > 0.5


def test_with_the_fewest_replicates_one_method_can_be_told_and_two_cannot():
    """Why benches have nine replicates unless told: 2 / 2^6 is the smallest p of six, and twice that is above 0.05."""
    clear = 0.3 + 0.001 * np.arange(FEWEST)[:, None] + 0.001 * np.arange(20)
    assert sign_flip_p(clear.mean(1)) == pytest.approx(2 / 2**FEWEST)
    for methods, kind in ((1, "helped"), (2, "no evidence")):
        p = max(holm([sign_flip_p(clear.mean(1))] * methods) + holm([crossed_p(clear)] * methods))
        assert verdict(crossed_interval(clear), p, FEWEST).kind == kind
