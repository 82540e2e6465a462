import pytest
from support.finished import make_dataset, make_run

from semiseg.report.study import Result, Spread, case_means


def test_case_means_leave_out_regions_and_classes_that_a_scan_does_not_have(tmp_path):
    run = make_run(tmp_path / "run", make_dataset(tmp_path / "data"))
    scores = Result("supervised", run, run / "scores").scores()
    assert case_means(scores) == pytest.approx({"a": 0.85, "b": 0.65, "c": 0.35, "d": 0.75})
    assert [score.name for score in scores if score.kind == "region"] == ["whole"] * 4


def test_spread():
    assert Spread.of([None]) == Spread(None, None, 0)
    assert Spread.of([0.5, None]) == Spread(0.5, None, 1)
    assert Spread.of([0.0, 1.0]) == Spread(0.5, pytest.approx(0.5**0.5), 2)


def test_files_that_were_seen_are_those_of_the_manifests(tmp_path):
    data = make_dataset(tmp_path / "data")
    run = make_run(tmp_path / "run", data)
    result = Result("supervised", run, run / "scores", run / "predictions")
    image, label, prediction = data / "images/a.nii.gz", data / "labels/a.nii.gz", run / "predictions/a.nii.gz"
    assert result.has_seen(image, label, prediction)
    assert not result.has_seen(image, tmp_path / "none.nii.gz")
    label.write_bytes(prediction.read_bytes())
    assert result.has_seen(label)  # by content, wherever it lies
    label.write_bytes(b"another")
    assert not result.has_seen(image, label)
    assert not Result("supervised", run, run / "scores").has_seen(image)
    assert not Result("supervised", run).has_seen(prediction)
