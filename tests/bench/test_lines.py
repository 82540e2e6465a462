"""Lines of a comparison, from scores that are made up."""

import pytest

from semiseg.bench.grid import ALL, Run
from semiseg.bench.lines import summarise
from semiseg.bench.results import Finished
from semiseg.runs.contents import RunResult, Score, Validated


def finished(method, replicate, dice, labelled="2", shifts=(0.02, -0.02)):
    scores = [
        Score(case, "organ", "1", "class", "ok", True, {"dice": dice + shift})
        for case, shift in zip("abcdef", shifts, strict=False)
    ]
    result = RunResult(
        checkpoint="last",
        last=Validated(step=9, validation_dice=None),
        best=Validated(step=None, validation_dice=None),
        labelled=2,
        validation=0,
        labels_used="2 + 0 labelled",
        unlabelled=0,
        duration_s=60.0 * (replicate + 1),
    )
    return Finished(Run(method, labelled, replicate), result, {"last": scores})


def test_only_replicates_that_both_have_are_compared_and_counted():
    """Ten of the method, of which the baseline lacks five: its failures must not make a verdict of the others."""
    runs = [finished("supervised", k, 0.5 + 0.01 * k) for k in range(5)]
    runs += [finished("roam", k, 0.7 + 0.01 * k + 0.001 * (k % 2)) for k in range(10)]
    baseline, line = summarise(runs)
    assert (line.replicates, line.pairs) == (10, 5)
    assert line.difference.mean == pytest.approx(0.2004)
    assert line.dice.mean == pytest.approx(0.7455)
    assert line.minutes == pytest.approx(5.5)
    assert line.verdict.text.startswith("too few runs to say: +20.0 Dice points (")
    assert line.verdict.text.endswith("in 5 runs, at least 6 needed")
    assert (baseline.difference, baseline.verdict) == (None, None)


def test_without_a_baseline_nothing_is_compared():
    (line,) = summarise([finished("roam", k, 0.7) for k in range(7)])
    assert (line.difference, line.p_holm, line.verdict, line.pairs) == (None, None, None, 0)


def test_every_comparison_of_the_bench_counts_for_holm():
    """Two methods with two numbers of labels are four tests: seven pairs of one sign are p = 2 / 2^7 each."""
    runs = [finished("supervised", 0, 0.9, ALL)]
    for count in ("2", "4"):
        runs += [finished("supervised", k, 0.5 + 0.01 * k, count) for k in range(7)]
        for method in ("roam", "equireg"):
            runs += [finished(method, k, 0.6 + 0.01 * k, count) for k in range(7)]
    lines = [line for line in summarise(runs) if line.p is not None]
    assert [line.p for line in lines] == [pytest.approx(2 / 2**7)] * 4
    assert [line.p_holm for line in lines] == [pytest.approx(8 / 2**7)] * 4
    assert {line.verdict.kind for line in lines} == {"no evidence"}


def test_what_only_one_test_scan_shows_is_no_effect():
    """All nine replicates agree, as all of them are tested on the scan that the method happens to suit."""
    runs = [finished("supervised", k, 0.5 + 0.001 * k, shifts=(0,) * 6) for k in range(9)]
    runs += [finished("roam", k, 0.5 + 0.0011 * k, shifts=(0.3, 0, 0.01, 0, 0.01, 0)) for k in range(9)]
    line = summarise(runs)[1]
    assert line.p_holm == pytest.approx(2 / 2**9)
    assert line.p_crossed > 0.2
    assert line.verdict.kind == "no evidence"
    runs[9:] = [finished("roam", k, 0.53 + 0.0011 * k, shifts=(0.01, 0) * 3) for k in range(9)]
    line = summarise(runs)[1]
    assert line.p_crossed < 0.01
    assert line.verdict.kind == "helped"
