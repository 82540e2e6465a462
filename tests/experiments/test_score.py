"""From a finished run to the scores of its test scans: which scans, read as which dataset."""

import json

import pytest
from support.command_line import rows_of
from support.runs import settings_of

from semiseg.errors import UserError
from semiseg.experiments.experiment import train_run
from semiseg.experiments.score import score_run


@pytest.fixture
def table(plain_cohort):
    """Five scans in a table that is not called dataset.csv: two test scans, one of them without a label."""
    root = plain_cohort(labelled=4, unlabelled=1)
    lines = ["case,image,label,split"]
    lines += [f"a{k},images/case{k}.nii.gz,labels/case{k}.nii.gz,{'test' if k == 3 else ''}" for k in range(4)]
    (root / "cohort.csv").write_text("\n".join([*lines, "b,unlabelled/case4.nii.gz,,test"]) + "\n")
    return root / "cohort.csv"


def test_test_scans_with_a_label_are_scored_and_the_others_segmented(table, tmp_path):
    settings = settings_of(table, "supervised", steps=1, score=True, training={"validate_every": 1})
    run = train_run(settings, tmp_path / "run", device="cpu", workers=1)
    summary = score_run(settings, run.path, device="cpu").summary
    assert json.loads(run.splits.read_text())[0]["test"] == ["a3", "b"]
    assert {path.name for path in (run.path / "predictions").glob("*.nii.gz")} == {"a3.nii.gz", "b.nii.gz"}
    assert {row["case"] for row in rows_of(run.path / "scores" / "metrics.csv")} == {"a3"}
    assert summary["failed"] == []


def test_nothing_to_score_is_said_before_training(table, tmp_path):
    table.write_text(table.read_text().replace(".nii.gz,test", ".nii.gz,").replace("labels/case3.nii.gz", ""))
    with pytest.raises(UserError, match=r"--score: got 1 test scan\(s\), none with a label, expected some .*--test"):
        train_run(settings_of(table, "supervised", score=True), tmp_path / "run", device="cpu", workers=1)
    assert not (tmp_path / "run").exists()
