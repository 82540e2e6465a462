"""From check to scores on the command line: what every command writes, prints and returns."""

import json

import nibabel as nib
import numpy as np
import pytest
from support.command_line import TINY, VALUE, rows_of, semiseg
from support.scans import write_nifti

pytestmark = pytest.mark.usefixtures("one_core")


def test_check_says_what_there_is(study):
    code, out, _ = semiseg("check", study)
    assert code == 0
    assert out.splitlines()[-1] == f"{study}: cases: 5 labelled, 2 unlabelled, 0 left out; training can start"
    code, out, _ = semiseg("check", study, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["can_train"] is True
    assert {"case5", "case6"} == {one["case"] for one in report["findings"]}


def test_a_broken_dataset_exits_3(plain_cohort):
    root = plain_cohort(labelled=2)
    for path in (root / "labels").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    code, out, _ = semiseg("check", root)
    assert code == 3
    assert out.splitlines()[-1].endswith("2 left out; training cannot start")
    assert json.loads(semiseg("check", root, "--json")[1])["can_train"] is False
    code, _, err = semiseg("train", root, "--out", root / "run", "--quiet")
    assert code == 3
    assert err.startswith(f"error: {root / 'labels'}")
    assert err.endswith("training cannot start; see the lines above\n")
    assert not (root / "run").exists()


def test_plan_writes_a_plan_that_train_and_prepare_take(study, tmp_path):
    sets = TINY[TINY.index("plan.patch=[8,8]") - 1 :]
    plan = tmp_path / "plan.json"
    code, out, err = semiseg("plan", study, "--out", plan, "--dims", "2", *sets)
    assert code == 0, err
    assert out.startswith(f"{plan}: 2-D (")
    assert out.endswith("patch (8, 8), batch 2 + 2\n")
    edited = json.loads(plan.read_text())
    plan.write_text(json.dumps({**edited, "overlap": 0.25}))
    flags = ("--plan", plan, "--labelled", "2", "--test", "1")
    code, out, err = semiseg("prepare", study, *flags)
    assert code == 0, err
    assert out.startswith("6 cases prepared")  # of seven, one is a test scan
    code, _, err = semiseg(
        "train", study, "--out", tmp_path / "run", *flags, "--steps", "1", "--set", "training.tensorboard=false"
    )
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["overlap"] == 0.25


def test_an_edited_plan_is_not_replaced_unless_told(study, tmp_path):
    plan = tmp_path / "plan.json"
    words = ("plan", study, "--out", plan, "--quiet")
    assert semiseg(*words)[0] == semiseg(*words)[0] == 0
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "overlap": 0.25}))
    code, _, err = semiseg(*words)
    assert code == 2
    assert f"{plan}: got another plan, perhaps an edited one" in err
    assert "pass --overwrite to replace it" in err
    assert json.loads(plan.read_text())["overlap"] == 0.25
    assert semiseg(*words, "--overwrite")[0] == 0
    assert json.loads(plan.read_text())["overlap"] == 0.5


def test_plan_accepts_what_train_accepts(study, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    for path in (study / "images").iterdir():
        (more / f"again_{path.name}").write_bytes(path.read_bytes())
    words = ("plan", study, "--unlabelled", more, "--test", "1", "--out", tmp_path / "plan.json")
    code, _, err = semiseg(*words)
    assert code == 3
    assert "or say --transductive" in err
    code, _, err = semiseg(*words, "--transductive")
    assert code == 0, err


def test_files_to_segment_are_named_one_by_one(study, run_folder, tmp_path):
    scans = [study / "images" / f"case{index}.nii.gz" for index in (0, 3)]
    code, _, err = semiseg("predict", run_folder, run_folder / "model", *scans, "--out", tmp_path)
    assert code == 0, err
    assert sorted(path.name for path in tmp_path.glob("*.nii.gz")) == ["case0.nii.gz", "case3.nii.gz"]
    assert len(json.loads((tmp_path / "manifest.json").read_text())["models"]) == 2


def test_predictions_have_the_geometry_of_their_scans_file_by_file(study, run_folder, tmp_path):
    code, out, err = semiseg("predict", run_folder, study, "--out", tmp_path / "out", "--probabilities")
    assert code == 0, err
    assert out == f"{tmp_path / 'out'}: 7 predicted, 0 already there\n"
    for scan in sorted((study / "images").iterdir()):
        source, made = nib.load(scan), nib.load(tmp_path / "out" / scan.name)
        assert made.shape == source.shape
        np.testing.assert_array_equal(made.affine, source.affine)
        assert made.header.get_zooms() == source.header.get_zooms()
        assert set(np.unique(np.asarray(made.dataobj))) <= {0, VALUE}
        probability = nib.load(tmp_path / "out" / scan.name.replace(".nii.gz", "_prob.nii.gz"))
        assert probability.shape == (*source.shape, 2)
        np.testing.assert_array_equal(probability.affine, source.affine)
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == {"background": 0, "hippocampus": VALUE}


def test_predicting_again_skips_and_overwrite_does_not(study, run_folder, tmp_path):
    def predict(*more):
        code, out, err = semiseg("predict", run_folder, study / "images", "--out", tmp_path, "--json", *more)
        assert code == 0, err
        made = json.loads(out)
        return len(made["done"]), len(made["skipped"]), len(made["failed"])

    assert predict() == (7, 0, 0)
    before = (tmp_path / "case0.nii.gz").stat().st_mtime_ns
    (tmp_path / "case6.nii.gz").unlink()
    assert predict() == (1, 6, 0)
    assert (tmp_path / "case0.nii.gz").stat().st_mtime_ns == before
    assert predict("--overwrite") == (7, 0, 0)
    assert (tmp_path / "case0.nii.gz").stat().st_mtime_ns > before


def test_only_the_test_scans_of_a_run_then_their_scores(study, run_folder, tmp_path):
    code, _, err = semiseg(
        "predict", run_folder, study, "--out", tmp_path / "out", "--cases", run_folder / "splits.json"
    )
    assert code == 0, err
    (test,) = json.loads((run_folder / "splits.json").read_text())[0]["test"]
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == [f"{test}.nii.gz"]
    code, out, err = semiseg("evaluate", tmp_path / "out", study, "--out", tmp_path / "scores")
    assert code == 0, err
    header, row, mean = out.splitlines()
    assert header.split() == ["class", "cases", "Dice", "HD95", "mm", "ASSD", "mm"]
    assert row.split()[:2] == ["hippocampus", "1"]
    assert mean.startswith("mean over classes")
    (line,) = rows_of(tmp_path / "scores" / "metrics.csv")
    assert (line["case"], line["class"], line["value"]) == (test, "hippocampus", str(VALUE))
    assert row.split()[2] == f"{float(line['dice']):.3f}"


def test_evaluating_the_truth_against_itself_is_perfect_and_prints_json(study, tmp_path):
    code, out, err = semiseg("evaluate", study / "labels", study, "--out", tmp_path / "scores", "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary == json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["classes"]["hippocampus"]["dice"]["mean"] == 1
    assert summary["classes"]["hippocampus"]["n"] == 5


def test_a_bad_file_among_the_scans_does_not_stop_the_others(study, run_folder, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("case0", "case1", "case2"):
        content = (study / "images" / f"{name}.nii.gz").read_bytes()
        (scans / f"{name}.nii.gz").write_bytes(content[:200] if name == "case1" else content)
    code, out, _ = semiseg("predict", run_folder, scans, "--out", tmp_path / "out")
    assert code == 4
    assert out == f"{tmp_path / 'out'}: 2 predicted, 0 already there, 1 failed (see failed.csv)\n"
    (failed,) = rows_of(tmp_path / "out" / "failed.csv")
    assert failed["case"] == "case1"
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["case0.nii.gz", "case2.nii.gz"]
    # the case that failed is missing from the scores, and counts
    code, out, _ = semiseg("evaluate", tmp_path / "out", study, "--out", tmp_path / "scores", "--json")
    assert code == 4
    assert json.loads(out)["cases"]["missing"] == 1
    rows = {row["case"]: row for row in rows_of(tmp_path / "scores" / "metrics.csv")}
    assert (rows["case1"]["state"], float(rows["case1"]["dice"]), rows["case1"]["hd95_mm"]) == ("missing", 0.0, "")


def test_a_finished_run_is_left_alone_and_other_settings_are_refused(study, run_folder):
    words = ("train", study, "--out", run_folder, "--method", "equireg", "--labelled", "2", "--val", "1", *TINY)
    code, _, err = semiseg(*words, "--test", "1")
    assert code == 0
    assert "already finished; nothing to do" in err
    code, _, err = semiseg(*words, "--test", "1", "--quiet")
    assert (code, err) == (0, "")
    code, _, err = semiseg(*words, "--quiet")
    assert code == 2
    assert err.startswith(f"error: {run_folder}: got other settings than it was begun with (data.test: '1' -> None)")


# real scans


@pytest.mark.realdata
def test_freesurfer_values_come_back_on_real_label_maps(real_data, tmp_path):
    data = real_data / "wholebrain"
    words = ("train", data, "--out", tmp_path / "run", "--labelled", "2", "--test", "13", *TINY)
    code, _, err = semiseg(*words, "--set", "plan.patch=[32,32]")
    assert code == 0, err
    scan = sorted((data / "images").iterdir())[0]
    code, _, err = semiseg("predict", tmp_path / "run", scan, "--out", tmp_path / "out")
    assert code == 0, err
    source, made = nib.load(scan), nib.load(tmp_path / "out" / scan.name)
    assert made.shape == source.shape
    np.testing.assert_array_equal(made.affine, source.affine)
    known = json.loads((tmp_path / "out" / "labels.json").read_text()).values()
    assert {17, 53} <= set(known)
    assert set(np.unique(np.asarray(made.dataobj))) <= set(known)


def test_rank_scores_scans_without_labels(study, run_folder, tmp_path):
    (tmp_path / "names.txt").write_text("case5\ncase6\n")
    words = ("rank", run_folder, study, "--cases", tmp_path / "names.txt", "--quiet")
    code, text, err = semiseg(*words, "--seed", 3, "--out", tmp_path / "a")
    assert code == 0, err
    assert text.splitlines()[-1] == "2 scored, 0 already there"
    rows = rows_of(tmp_path / "a" / "ranking.csv")
    assert {(row["case"], row["class"], row["value"]) for row in rows} == {
        (case, *structure) for case in ("case5", "case6") for structure in (("mean", ""), ("hippocampus", str(VALUE)))
    }
    transforms = tmp_path / "a" / "transforms.json"
    code, text, err = semiseg(*words, "--transforms", transforms, "--out", tmp_path / "b", "--json")
    assert code == 0, err
    assert json.loads(text) == json.loads((tmp_path / "a" / "summary.json").read_text())
    code, _, err = semiseg(*words, "--out", tmp_path / "a")
    assert code == 2
    assert "got scores made with other transforms" in err
    code, _, err = semiseg(*words, "--transforms", transforms, "--seed", 3, "--out", tmp_path / "c")
    assert code == 2
    assert "--seed: got 3 beside --transforms" in err
    damaged = write_nifti(tmp_path / "scans" / "one.nii.gz", np.full((4, 4, 4), np.nan, np.float32))
    code, _, err = semiseg("rank", run_folder, damaged, "--out", tmp_path / "d")
    assert code == 4, err
