import pytest

from semiseg.schedules import annealing_threshold, learning_rate, ramp, sigmoid_ramp


def test_ramp():
    assert [ramp(p, 0.2, 0.6) for p in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert [ramp(p, 0.3, 0.3) for p in (0.29, 0.3)] == [0, 1]


def test_sigmoid_ramp():
    """By hand: exp(-5) at the start, exp(-5/4) half way, and nothing before."""
    values = [sigmoid_ramp(p, 0.2, 0.6) for p in (0.19, 0.2, 0.4, 0.6, 1.0)]
    assert values == pytest.approx([0, 0.0067379, 0.2865048, 1, 1], rel=1e-5)
    assert [sigmoid_ramp(p, 0.3, 0.3) for p in (0.29, 0.3)] == [0, 1]


def test_learning_rate():
    assert [learning_rate(p, "constant", 0.1) for p in (0.05, 0.1, 0.9)] == pytest.approx([0.5, 1, 1])
    assert learning_rate(0.55, "cosine", 0.1) == pytest.approx(0.5)
    assert learning_rate(0.5, "poly", 0.0) == pytest.approx(0.5**0.9)
    assert learning_rate(1.0, "poly", 0.0) == 0
    assert [learning_rate(p, "exponential", 0.2) for p in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.5, 1, 0.1, 0.01])


def test_exponential_decay_by_any_factor():
    assert [learning_rate(p, "exponential", 0.2, 0.5) for p in (0.1, 0.2, 0.6, 1.0)] == pytest.approx(
        [0.5, 1, 0.5**0.5, 0.5]
    )
    many = [learning_rate(p, "exponential", 0.0, 0.95, 4000.0) for p in (0.0, 0.5 / 4000, 2 / 4000)]
    assert many == pytest.approx([1, 0.95**0.5, 0.95**2])
    assert learning_rate(1e-3, "exponential", 0.0, 1e-9, 1000.0) == pytest.approx(1e-9)  # their power is no number


def test_annealing_threshold():
    """By hand, with four classes: from a quarter, the probability of guessing, to one."""
    ends = {shape: [annealing_threshold(p, shape, 4) for p in (0.0, 1.0)] for shape in ("linear", "log", "exp")}
    assert ends["linear"] == pytest.approx([0.25, 1])
    assert ends["log"] == pytest.approx([0.25, 0.25 + 0.75 * (1 - 0.0067379)])
    assert ends["exp"] == pytest.approx([0.25 + 0.75 * 0.0067379, 1])
    assert annealing_threshold(0.2, "linear", 4) == pytest.approx(0.4)
    assert annealing_threshold(0.2, "log", 4) == pytest.approx(0.25 + 0.75 * 0.6321206)  # 1 - 1/e
    assert annealing_threshold(0.8, "exp", 4) == pytest.approx(0.25 + 0.75 * 0.3678794)  # 1/e
