import json

import pytest

from semiseg.evaluation.summary import ScoredCase, Tally


def row(name, in_truth, dice, hd95_mm=None, false_positive_ml=None):
    return {
        "class": name,
        "in_truth": in_truth,
        "dice": dice,
        "dice_brats": dice,
        "hd95_mm": hd95_mm,
        "false_positive_ml": false_positive_ml,
    }


def test_statistics_by_hand():
    tally = Tally({"organ": 1, "tumour": 2})
    tally.add(ScoredCase("a", "ok", [row("organ", True, 0.5, 2.0), row("tumour", True, 0.1, 8.0)]))
    tally.add(ScoredCase("b", "ok", [row("organ", True, 0.6, 4.0), row("tumour", False, 0.0, None, 0.25)]))
    tally.add(ScoredCase("c", "ok", [row("organ", True, 1.0, 0.0), row("tumour", False, 1.0, None, 0.0)]))
    summary = tally.summary()
    organ, tumour = summary["classes"]["organ"], summary["classes"]["tumour"]
    # Deviation of .5 .6 1 about .7: sqrt((.04 + .01 + .09) / 2)
    assert organ["dice"] == pytest.approx({"n": 3, "mean": 0.7, "sd": 0.07**0.5, "median": 0.6})
    assert organ["hd95_mm"] == pytest.approx({"n": 3, "mean": 2.0, "sd": 2.0, "median": 2.0, "absent": 0})
    assert tumour["dice"] == {"n": 1, "mean": 0.1, "sd": None, "median": 0.1}
    assert tumour["dice_brats"] == pytest.approx(1.1 / 3)
    assert tumour["false_positives"] == {"cases": 1, "of": 2, "total_ml": 0.25}
    assert summary["mean"]["dice"] == pytest.approx((0.7 + 0.1) / 2)
    assert summary["mean"]["dice_brats"] == pytest.approx((0.7 + 1.1 / 3) / 2)
    assert summary["per_case"]["dice"] == pytest.approx(
        {"n": 3, "mean": (0.3 + 0.6 + 1.0) / 3, "sd": 0.35118846, "median": 0.6}
    )
    json.dumps(summary, allow_nan=False)


def test_a_class_that_no_case_has_leaves_the_mean_over_classes_alone():
    tally = Tally({"organ": 1, "tumour": 2})
    tally.add(ScoredCase("a", "ok", [row("organ", True, 0.5), row("tumour", False, 1.0, None, 0.0)]))
    summary = tally.summary()
    assert summary["classes"]["tumour"]["dice"] == {"n": 0, "mean": None, "sd": None, "median": None}
    assert summary["mean"]["dice"] == 0.5
    assert summary["mean"]["hd95_mm"] is None
    assert summary["classes"]["organ"]["hd95_mm"]["absent"] == 1


def test_failures_and_notes_are_listed():
    tally = Tally({"organ": 1})
    tally.add(ScoredCase("a", "missing", [row("organ", True, 0.0)], "a: no prediction"))
    tally.add(ScoredCase("b", "mismatch", [{"class": "organ"}], "b: other grid"))
    tally.add(ScoredCase("c", "ok", [row("organ", True, 1.0)], note="c: 0.05 mm", unknown_truth=frozenset({9, 7})))
    tally.add(ScoredCase("d", "ok", [row("organ", True, 1.0)], unknown_truth=frozenset({10})))
    summary = tally.summary()
    assert summary["cases"] == {"total": 4, "ok": 2, "missing": 1, "mismatch": 1, "unreadable": 0}
    assert [failure["case"] for failure in summary["failed"]] == ["a", "b"]
    assert summary["failed"][1] == {"case": "b", "state": "mismatch", "message": "b: other grid"}
    assert summary["classes"]["organ"]["dice"]["mean"] == pytest.approx(2 / 3)  # b is not scored, a is 0
    assert summary["notes"] == [
        "labels: values that are no class count as background: 7, 9, 10",
        "c: 0.05 mm",
    ]
