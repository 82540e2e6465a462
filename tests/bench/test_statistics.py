"""Intervals and tests against known answers: the effect is made, so what they should say is known."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from semiseg.bench import statistics
from semiseg.bench.statistics import bridging_coefficient, crossed_interval, holm, sign_flip_p
from semiseg.bench.verdict import verdict

REPLICATES, CASES, SIMULATIONS = 9, 20, 500


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 600)


def simulated(rng, effect, replicate, case, noise):
    """Differences between two methods, with crossed effects."""
    return (
        effect
        + replicate * rng.standard_normal((REPLICATES, 1))
        + case * rng.standard_normal((1, CASES))
        + noise * rng.standard_normal((REPLICATES, CASES))
    )


@pytest.mark.parametrize(("replicate", "case", "noise"), [(1, 1, 1), (2, 0.5, 0.5), (0.3, 2, 1), (0, 0, 1), (1, 1, 3)])
def test_the_interval_covers_the_true_effect_as_often_as_it_says(replicate, case, noise):
    rng = np.random.default_rng(7)
    covered = 0
    for number in range(SIMULATIONS):
        interval = crossed_interval(simulated(rng, 0.5, replicate, case, noise), number)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.92 <= covered / SIMULATIONS <= 0.98


def test_false_verdicts_are_at_most_five_per_cent():
    """Three methods without any effect against one baseline; one false verdict among the three counts."""
    rng = np.random.default_rng(11)
    false = 0
    for number in range(SIMULATIONS):
        baseline = 0.02 * rng.standard_normal((REPLICATES, 1))  # shared by all comparisons, as in a bench
        all_scores = [simulated(rng, 0.0, 0.02, 0.0, 0.03) - baseline for _ in range(3)]
        adjusted = holm([sign_flip_p(scores.mean(1)) for scores in all_scores])
        kinds = {
            verdict(crossed_interval(scores, number), p, REPLICATES).kind
            for scores, p in zip(all_scores, adjusted, strict=True)
        }
        false += bool(kinds & {"helped", "hurt"})
    assert false / SIMULATIONS <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / SIMULATIONS)


def test_a_test_over_cases_would_call_luck_an_effect():
    """Why only replicates count: draws that differ by 2 points, no effect, and one run's cases as the sample."""
    rng = np.random.default_rng(3)
    runs = [simulated(rng, 0.0, 0.02, 0.0, 0.02)[0] for _ in range(300)]
    alarms = np.mean([ttest_1samp(run, 0).pvalue < 0.05 for run in runs])
    assert alarms > 0.5


def test_a_real_effect_is_found():
    rng = np.random.default_rng(5)
    scores = simulated(rng, 0.04, 0.01, 0.01, 0.02)
    found = verdict(crossed_interval(scores), holm([sign_flip_p(scores.mean(1))])[0], REPLICATES)
    assert found.kind == "helped"
    assert found.text.startswith("unlabelled scans helped: +")


@pytest.mark.parametrize("count", [1, 5])
def test_under_six_replicates_nothing_is_said(count):
    scores = np.full((count, 4), 0.3) + np.arange(4) / 100
    assert verdict(crossed_interval(scores), 0.0001, count).text.startswith("too few runs to say: +31.5 Dice points")


def test_sign_flips_by_hand():
    assert sign_flip_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    assert sign_flip_p(np.array([1.0, -1.0])) == 1.0
    assert sign_flip_p(np.zeros(9)) == 1.0
    assert sign_flip_p(np.arange(1.0, 10)) == pytest.approx(2 / 512)


def test_holm_equals_statsmodels_rule_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_interval_is_a_point_where_nothing_varies():
    assert crossed_interval(np.full((3, 4), 0.25)) == statistics.Interval(0.25, 0.25, 0.25)
    alone = crossed_interval(np.array([[0.5]]))
    assert alone.low == -np.inf
    assert not alone.excludes_zero


def test_bridging_coefficient():
    rng = np.random.default_rng(1)
    baseline = 0.7 + 0.01 * rng.standard_normal((9, 20))
    upper = 0.9 + 0.01 * rng.standard_normal((3, 20))
    share = bridging_coefficient(baseline + 0.1, baseline, upper)
    assert share is not None
    assert share.mean == pytest.approx(0.1 / (upper.mean() - baseline.mean()))
    assert share.low < 0.5 < share.high < 0.6
    assert bridging_coefficient(baseline + 0.1, baseline, baseline[:3] + 0.0) is None


def test_the_gap_to_all_labels_is_seen_though_draws_differ_and_few_runs_have_all_labels():
    """Draws move the baseline by 4 points; paired with only three of them, a gap of 8 points would be none."""
    rng = np.random.default_rng(0)
    draws = np.array([-6, 5, -3, 4, 0, 1, -2, 3, -1]) / 100
    baseline = 0.76 + draws[:, None] + 0.01 * rng.standard_normal((9, 40))
    upper = 0.84 + 0.01 * rng.standard_normal((3, 40))
    share = bridging_coefficient(baseline + 0.02, baseline, upper)
    assert share is not None
    assert share.low < 0.25 < share.high
