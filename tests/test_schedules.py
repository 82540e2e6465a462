import pytest

from semiseg.schedules import learning_rate, ramp


def test_ramp():
    assert [ramp(p, 0.2, 0.6) for p in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert [ramp(p, 0.3, 0.3) for p in (0.29, 0.3)] == [0, 1]


def test_learning_rate():
    assert [learning_rate(p, "constant", 0.1) for p in (0.05, 0.1, 0.9)] == pytest.approx([0.5, 1, 1])
    assert learning_rate(0.55, "cosine", 0.1) == pytest.approx(0.5)
    assert learning_rate(0.5, "poly", 0.0) == pytest.approx(0.5**0.9)
    assert learning_rate(1.0, "poly", 0.0) == 0
