"""What is compared with what, and how many comparisons so many replicates carry."""

import numpy as np
import pytest
from reference.holm import adjusted

from semiseg.bench.choice import Choice, comparisons_carried, refuse_unknown, runs_needed, too_many
from semiseg.bench.statistics import holm, least_p, sign_flip_p
from semiseg.bench.verdict import ALPHA
from semiseg.errors import UserError

METHODS = ("supervised", "roam", "equireg")


@pytest.mark.parametrize(("replicates", "comparisons"), [(1, 0), (5, 0), (6, 1), (7, 3), (8, 6), (9, 12)])
def test_so_many_comparisons_can_reach_significance(replicates, comparisons):
    """By the test and the correction themselves: all differences of one sign, in every comparison."""
    assert comparisons_carried(replicates) == comparisons
    least = sign_flip_p(np.arange(1.0, replicates + 1))
    assert least == pytest.approx(least_p(replicates))
    assert not comparisons or max(holm([least] * comparisons)) <= ALPHA
    assert min(holm([least] * (comparisons + 1))) > ALPHA


@pytest.mark.parametrize(("comparisons", "replicates"), [(1, 6), (2, 7), (3, 7), (4, 8), (6, 8), (7, 9), (12, 9)])
def test_so_many_replicates_are_needed(comparisons, replicates):
    assert runs_needed(comparisons) == replicates


def test_holm_equals_closed_testing():
    rng = np.random.default_rng(0)
    for count in range(1, 7):
        p_values = rng.uniform(0, 0.3, count).round(2).tolist()
        assert holm(p_values) == pytest.approx(adjusted(p_values))


def test_a_family_that_is_too_large_is_told():
    assert too_many([7] * 3) is None
    assert too_many([]) is None
    assert too_many([7] * 4) == (
        "no verdict is possible: 4 comparisons are corrected together, 7 replicates carry 3; "
        "name at most 3 with --family before scores are there, or use --runs 8"
    )
    assert too_many([5]) == "no verdict is possible: 1 comparison, 5 replicates carry none; use --runs 6"


@pytest.mark.parametrize(
    ("given", "family"),
    [
        ("all", ("all",)),
        (["all"], ("all",)),
        ("roam", ("roam",)),
        ("roam, equireg", ("roam", "equireg")),
        (["roam"], ("roam",)),
    ],
)
def test_a_family_is_names_or_all(given, family):
    assert Choice.parse({"against": "supervised", "family": given}, where="").family == family


def test_who_is_compared_and_judged():
    choice = Choice(against="roam", family=("equireg",))
    assert [choice.compares(name) for name in METHODS] == [True, False, True]
    assert [choice.judges(name) for name in METHODS] == [False, False, True]
    assert [Choice(against="roam").judges(name) for name in METHODS] == [True, False, True]


@pytest.mark.parametrize(
    ("against", "family", "said"),
    [
        ("fixmatch", ("all",), "--against: got 'fixmatch', expected one of: supervised, roam, equireg; or add it"),
        ("roam", ("roam",), "--family: got 'roam', expected some of: supervised, equireg (compared with roam), or all"),
        ("supervised", ("roam", "cps"), "--family: got 'cps', expected some of: roam, equireg"),
        ("supervised", (), "--family: got nobody, expected some of: roam, equireg"),
    ],
)
def test_unknown_names_are_told(against, family, said):
    with pytest.raises(UserError) as caught:
        refuse_unknown(Choice(against=against, family=family), METHODS)
    assert said in str(caught.value)
