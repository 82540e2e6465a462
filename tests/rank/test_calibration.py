"""The regression from label-free scores to Dice: its prior, its bounds, what it learns, and its own error."""

import math

import numpy as np
import pytest

from semiseg.models.volumes import Volume
from semiseg.rank.calibration import NOISE, PRIOR, Calibration, Point, estimated, leave_one_out


def row(dice, entropy=0.5, disagreement=None, name="a", kind="class", volume=1.0):
    return {
        "class": name, "value": {"a": "1", "b": "2"}.get(name, ""), "kind": kind, "volume_ml": volume,
        "equivariance_dice": dice, "border_entropy": entropy, "disagreement": disagreement,
    }  # fmt: skip


def logit(p):
    return math.log(p / (1 - p))


def test_two_points_by_hand():
    """One score that varies (2 logits apart), nothing else: a ridge regression that can be solved on paper."""
    low, high = (1 / (1 + math.exp(1)), 1 / (1 + math.exp(-1)))
    points = [Point("x", row(low), 0.5), Point("y", row(high), 0.5)]
    fitted = Calibration.fit(points)
    # slope b: minimise 2 (b - 0)^2 / NOISE^2 + (b - 1)^2 / 0.5^2
    mean, deviation, *_ = PRIOR["equivariance_dice"]
    slope = mean / deviation**2 / (2 / NOISE**2 + 1 / deviation**2)
    assert fitted.coefficients["equivariance_dice"] == pytest.approx(slope)
    assert fitted.coefficients["intercept"] == pytest.approx(0, abs=1e-9)
    assert fitted.estimate(row(high)) == pytest.approx(1 / (1 + math.exp(-slope)))
    assert fitted.estimate(row(None)) is None


def test_a_single_perfect_agreement_keeps_the_equivariance_dice():
    fitted = Calibration.fit([Point("x", row(0.8), 0.8)])
    for dice in (0.3, 0.8, 0.95):
        assert fitted.estimate(row(dice)) == pytest.approx(dice)


def test_what_makes_no_sense_is_not_learned():
    """True Dice falls with equivariance Dice and rises with entropy and disagreement: then they say nothing."""
    shares = np.linspace(0.2, 0.9, 12)
    points = [Point(f"{k}", row(p, entropy=p, disagreement=p), 1 - p) for k, p in enumerate(shares)]
    fitted = Calibration.fit(points)
    assert fitted.coefficients["equivariance_dice"] >= 0
    assert fitted.coefficients["border_entropy"] <= 0
    assert fitted.coefficients["disagreement"] <= 0
    estimates = [fitted.estimate(row(p, entropy=0.5, disagreement=0.5)) for p in shares]
    assert (np.diff(estimates) >= -1e-12).all()


def test_slope_entropy_and_offsets_are_found_where_there_are_points_enough():
    rng = np.random.default_rng(0)
    points = []
    for k in range(40):
        for name, offset in (("a", 0.6), ("b", -0.6)):
            dice, entropy = rng.uniform(0.5, 0.95), rng.uniform(0.2, 0.9)
            true = 0.7 * logit(dice) - 2 * entropy + 1 + offset + rng.normal(0, 0.1)
            points.append(Point(f"s{k}", row(dice, entropy, name=name), 1 / (1 + math.exp(-true))))
    fitted = Calibration.fit(points)
    assert fitted.coefficients["equivariance_dice"] == pytest.approx(0.7, abs=0.05)
    assert fitted.coefficients["border_entropy"] == pytest.approx(-2, abs=0.2)
    difference = fitted.offsets["a", "1", "class"] - fitted.offsets["b", "2", "class"]
    assert difference == pytest.approx(1.2, abs=0.1)
    errors = leave_one_out(points)
    assert errors["structures"]["n"] == 80
    assert errors["scans"]["n"] == 40
    assert errors["scans"]["mae"] < 0.05 < errors["scans"]["mae_of_mean"]
    assert errors["scans"]["rho"] > 0.9


def test_a_scan_does_not_help_to_foretell_itself():
    """Of two scans, each is foretold from the other alone."""
    points = [Point("x", row(0.8), 0.8), Point("y", row(0.8), 0.4)]
    errors = leave_one_out(points)
    from_x, from_y = (Calibration.fit([point]).estimate(row(0.8)) for point in points)
    assert errors["scans"]["mae"] == pytest.approx((abs(from_y - 0.8) + abs(from_x - 0.4)) / 2)
    assert errors["scans"]["mae_of_mean"] == pytest.approx(0.4)
    assert errors["scans"]["rho"] is None


def test_means_and_structures_that_were_not_found():
    fitted = Calibration.fit([Point("x", row(0.8), 0.8)])
    rows = [row(None, name="mean", kind="mean", volume=None), row(0.8), row(0.1, name="b", volume=0.0)]
    assert estimated(rows, fitted, []) == [pytest.approx(0.8), pytest.approx(0.8), None]
    known = {"name": "b", "value": "2", "kind": "class", "scans": 3, "log_mean": 0.0, "log_deviation": 1.0}
    always, sometimes = (Volume(**known, found_in=n) for n in (3, 2))
    assert estimated(rows, fitted, [always]) == [pytest.approx(0.4), pytest.approx(0.8), 0.0]
    assert estimated(rows, fitted, [sometimes])[2] is None
