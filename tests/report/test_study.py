import pytest
from support.finished import make_dataset, make_run

from semiseg.errors import InputError
from semiseg.report.study import Result, Spread, case_means, read_json


def test_case_means_leave_out_regions_and_classes_that_a_scan_does_not_have(tmp_path):
    run = make_run(tmp_path / "run", make_dataset(tmp_path / "data"))
    scores = Result("supervised", run, run / "scores").scores()
    assert case_means(scores) == pytest.approx({"a": 0.85, "b": 0.65, "c": 0.35, "d": 0.75})
    assert [score.name for score in scores if score.kind == "region"] == ["whole"] * 4


def test_spread():
    assert Spread.of([None]) == Spread(None, None, 0)
    assert Spread.of([0.5, None]) == Spread(0.5, None, 1)
    assert Spread.of([0.0, 1.0]) == Spread(0.5, pytest.approx(0.5**0.5), 2)


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"manifest\.json.*run it again"):
        read_json(tmp_path / "manifest.json")
