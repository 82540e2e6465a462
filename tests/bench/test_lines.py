"""Lines of a comparison, from scores that are made up."""

import pytest
from support.command_line import rows_of

from semiseg.bench.choice import Choice
from semiseg.bench.grid import ALL, Run
from semiseg.bench.lines import notes, summarise, table, write_summary
from semiseg.bench.results import Finished
from semiseg.runs.contents import RunResult, Score, Validated


def finished(method, replicate, dice, labelled="2", shifts=(0.02, -0.02), numbers=None, **facts):
    scores = [
        Score(case, "organ", "1", "class", "ok", True, {"dice": dice + shift, **(numbers or {})})
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
        **facts,
    )
    return Finished(Run(method, labelled, replicate), result, {"last": scores})


EVERYTHING = Choice(against="supervised")
LEVELS = {"supervised": 0.5, "roam": 0.6, "equireg": 0.65}


def compared(runs=7):
    """Three methods that differ by 10 and 5 points, the same in every replicate but for a trifle."""
    return [
        finished(method, k, level + 0.01 * k + 0.0001 * (k % 3) * level)
        for method, level in LEVELS.items()
        for k in range(runs)
    ]


def by_method(lines):
    return {line.method: line for line in lines}


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
    assert {line.verdict.kind for line in lines} == {"too few runs"}
    assert all(line.verdict.text.endswith(" in 7 runs, at least 8 needed") for line in lines)
    assert notes(lines, EVERYTHING) == [
        "no verdict is possible: 4 comparisons are corrected together, 7 replicates carry 3; "
        "name at most 3 with --family before scores are there, or use --runs 8"
    ]


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


def test_against_another_method_signs_are_swapped():
    usual = by_method(summarise(compared()))
    other = by_method(summarise(compared(), Choice(against="roam")))
    assert usual["roam"].difference.mean == pytest.approx(0.1, abs=1e-3)
    assert other["supervised"].difference.mean == pytest.approx(-usual["roam"].difference.mean)
    assert other["supervised"].difference.low == pytest.approx(-usual["roam"].difference.high, abs=1e-4)
    assert other["equireg"].difference.mean == pytest.approx(0.05, abs=1e-3)
    assert other["supervised"].p == usual["roam"].p == pytest.approx(2 / 2**7)
    assert [line.against for line in other.values()] == ["roam", None, "roam"]
    assert (other["roam"].difference, other["roam"].p, other["roam"].verdict) == (None, None, None)
    assert other["supervised"].verdict.kind == "worse"
    assert other["supervised"].verdict.text.startswith("worse than roam: -10.0 Dice points (")
    assert other["equireg"].verdict.text.startswith("better than roam: +5.0 Dice points (")
    assert usual["roam"].verdict.text.startswith("unlabelled scans helped: +10.0 Dice points (")


def test_without_a_difference_from_another_method_there_is_no_evidence_of_one():
    runs = [finished(method, k, 0.5 + 0.01 * (k % 2 == place)) for place, method in enumerate(LEVELS) for k in range(8)]
    line = by_method(summarise(runs, Choice(against="roam", family=("supervised",))))["supervised"]
    assert line.verdict.text.startswith("no evidence of a difference from roam: ")


def test_the_gap_that_is_closed_is_the_baselines_whatever_is_compared():
    """From 0.5 to 0.9: roam closes a quarter of it."""
    runs = [*compared(), *(finished("supervised", k, 0.93 + 0.001 * k, ALL) for k in range(3))]
    for choice in (EVERYTHING, Choice(against="equireg"), Choice(against="roam")):
        lines = by_method(line for line in summarise(runs, choice) if line.labelled != ALL)
        assert lines["roam"].bridging.mean == pytest.approx(0.25, abs=0.01)
        assert lines["supervised"].bridging is None


def test_outside_the_family_there_is_an_interval_and_no_verdict():
    lines = by_method(summarise(compared(), Choice(against="supervised", family=("roam",))))
    usual = by_method(summarise(compared()))
    assert lines["roam"].p_holm == lines["roam"].p == pytest.approx(2 / 2**7)  # alone, so nothing is corrected
    assert usual["roam"].p_holm == pytest.approx(4 / 2**7)
    assert lines["roam"].verdict.kind == "helped"
    assert lines["equireg"].difference == usual["equireg"].difference
    assert (lines["equireg"].p, lines["equireg"].p_holm, lines["equireg"].p_crossed) == (None, None, None)
    assert lines["equireg"].verdict.kind == "not judged"
    assert lines["equireg"].verdict.text.startswith("no verdict outside the family: +15.0 Dice points (")


def test_six_replicates_carry_one_comparison_alone():
    both, one = EVERYTHING, Choice(against="supervised", family=("roam",))
    lines = by_method(summarise(compared(runs=6), both))
    assert lines["roam"].verdict.text.endswith(" in 6 runs, at least 7 needed")
    assert notes(lines.values(), both)[0].startswith("no verdict is possible: 2 comparisons are corrected together, 6 ")
    lines = by_method(summarise(compared(runs=6), one))
    assert lines["roam"].verdict.kind == "helped"
    assert notes(lines.values(), one) == []


def test_what_was_chosen_after_scores_is_told():
    now = Choice(against="supervised", family=("roam",))
    assert notes(summarise(compared(), now), now, EVERYTHING) == [
        "chosen after scores were there: against supervised, family: roam; before: against supervised, family: all; "
        "such verdicts are hints for a new bench"
    ]


def test_costs_stand_beside_dice(tmp_path):
    made = {"memory_gb": 2.0, "layout": "contiguous"}
    runs = []
    for k, precision in enumerate(("32", "bf16", "32")):
        numbers = {"hd95_mm": 3.0 + k, "far_ml": 0.5}
        runs.append(finished("roam", k, 0.7, numbers=numbers, passes_per_step=2 + k, precision=precision, **made))
    (line,) = summarise(runs)
    assert (line.minutes, line.passes, line.memory_gb) == (2.0, 3.0, 2.0)
    assert (line.precision, line.layout) == ("32, bf16", "contiguous")
    assert (line.far_ml, line.hd95_mm) == (0.5, 4.0)
    head, row = table([line]).splitlines()[:2]
    words = ("far mL", "HD95", "min", "passes", "GB", "precision", "layout")
    shown = [row[head.index(f"  {word}") + 2 :].split("  ")[0].strip() for word in words]
    assert shown == ["0.50", "4.0", "2.0", "3.0", "2.0", "32, bf16", "contiguous"]
    write_summary([line], tmp_path / "summary.csv")
    (row,) = rows_of(tmp_path / "summary.csv")
    costs = {"minutes": "2.0", "passes": "3.0", "precision": "32, bf16", "layout": "contiguous", "hd95_mm": "4.0"}
    assert costs.items() <= row.items()


def test_results_without_costs_leave_cells_empty(tmp_path):
    """Those of runs that were made before costs were written down; with one that has them, its own count."""
    (line,) = summarise([finished("roam", 0, 0.7)])
    assert (line.passes, line.precision, line.layout, line.hd95_mm, line.far_ml) == (None, "", "", None, None)
    assert table([line]).splitlines()[1].endswith("1.0     -       -      -          -")
    write_summary([line], tmp_path / "summary.csv")
    (row,) = rows_of(tmp_path / "summary.csv")
    assert {row[name] for name in ("passes", "precision", "layout", "hd95_mm", "against")} == {""}
    (line,) = summarise([finished("roam", 0, 0.7), finished("roam", 1, 0.7, passes_per_step=3.0, precision="16")])
    assert (line.passes, line.precision) == (3.0, "16")


def test_hd95_is_the_mean_over_classes_that_have_one():
    """Class a: 2 and 4 mm, b: 9 mm in one case of two; by hand (3 + 9) / 2. A class nobody found has none."""
    run = finished("roam", 0, 0.7)
    found = [("a", "x", 2.0), ("a", "y", 4.0), ("b", "x", 9.0), ("b", "y", None), ("c", "x", None)]
    scores = [
        Score(case, name, "1", "class", "ok", True, {"dice": 0.5} | ({} if hd95 is None else {"hd95_mm": hd95}))
        for name, case, hd95 in found
    ]
    (line,) = summarise([Finished(run.run, run.result, {"last": scores})])
    assert line.hd95_mm == pytest.approx(6.0)
