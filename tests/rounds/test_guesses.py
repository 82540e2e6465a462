"""What a model guesses of unlabelled scans, and what is kept of it."""

import json
import shutil
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from reference.threshold import smallest
from support.command_line import VALUE, rows_of

from semiseg.data.layouts import open_dataset
from semiseg.data.plan import Plan
from semiseg.data.splits import Splits
from semiseg.errors import InputError
from semiseg.experiments.pseudo_labels import (
    TABLE,
    ignore_value,
    prepare_pseudo_labelled,
    pseudo_labelled,
    to_guess,
)
from semiseg.experiments.run_settings import StudentConfig
from semiseg.models.model import load_model
from semiseg.prediction.cases import case_volumes
from semiseg.rank.ranking import IMPLAUSIBLE
from semiseg.rounds import guesses
from semiseg.rounds.guesses import write_pseudo_labels
from semiseg.runs.folder import RunFolder
from semiseg.types import IGNORE

pytestmark = pytest.mark.usefixtures("one_core")
ALL = {"lowest_dice": 0.0, "largest_z": None}
"""Leaves no scan out."""


@pytest.fixture
def teacher(run_folder, tmp_path):
    return RunFolder(shutil.copytree(run_folder, tmp_path / "run"))


@pytest.fixture
def splits(study, run_folder):
    return Splits.load(run_folder / "splits.json", open_dataset(study))


def volumes_of_classes(model, case, tta=False):
    return np.stack(list(case_volumes([model], case, torch.device("cpu"), tta=tta)[1]))


def array(path):
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("tta", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_label_maps_have_the_guess_where_it_is_sure_and_the_grid_of_the_scan(teacher, splits, tta):
    out = write_pseudo_labels(teacher, splits, StudentConfig(**ALL, tta=tta), "cpu")
    facts = json.loads((teacher.path / "threshold.json").read_text())
    model, (validation,) = load_model(teacher.path), splits.val
    truth = (array(validation.label) == VALUE).ravel().tolist()
    found = volumes_of_classes(model, validation, tta).reshape(2, -1).T
    thousandth, share = smallest([list(zip(found, truth, strict=True))], 0.95)
    assert (facts["threshold"], facts["precision"]) == (thousandth / 1000, float(share))
    assert facts["validation"] == [validation.name]
    rows = {row["case"]: row for row in rows_of(out / TABLE)}
    assert rows.keys() == {case.name for case in splits.unlabelled}
    for case in splits.unlabelled:
        volumes, image = volumes_of_classes(model, case, tta), nib.load(case.images[0])
        sure = volumes.max(0) >= np.float32(facts["threshold"])
        file = nib.load(out / f"{case.name}.nii.gz")
        assert np.array_equal(np.asarray(file.dataobj), np.where(sure, VALUE * volumes.argmax(0), 255))
        assert np.array_equal(file.affine, image.affine)
        assert float(rows[case.name]["kept"]) == pytest.approx(sure.mean(), abs=1e-6)
    assert json.loads((out / "labels.json").read_text()) == {"background": 0, "hippocampus": VALUE, "not sure": 255}


def test_what_is_not_sure_is_ignore_in_what_a_student_learns_from(teacher, splits):
    out = write_pseudo_labels(teacher, splits, StudentConfig(**ALL), "cpu")
    plan = Plan.load(teacher.plan)
    cases = pseudo_labelled(out, splits)
    assert len(cases) == 3
    assert all(case.label is None for case in splits.unlabelled)
    some = set()
    for case, prepared in zip(cases, prepare_pseudo_labelled(cases, plan, 1), strict=True):
        found, kept = array(case.label), np.asarray(prepared.open_label())
        some |= set(np.unique(kept).tolist())
        for value, index in ((255, IGNORE), (VALUE, 1)):
            assert (kept == index).mean() == pytest.approx((found == value).mean(), abs=0.15)  # resampled
    assert IGNORE in some


def test_without_validation_scans_the_threshold_is_the_one_that_is_set(teacher, splits):
    alone = Splits(splits.labelled, splits.unlabelled, (), splits.test)
    write_pseudo_labels(teacher, alone, StudentConfig(**ALL, threshold=0.4), "cpu")
    facts = json.loads((teacher.path / "threshold.json").read_text())
    assert (facts["threshold"], facts["precision"]) == (0.4, None)
    assert facts["why"] == "no validation scans: student.threshold"


@pytest.mark.slow
def test_precision_may_be_that_of_foreground_alone(teacher, splits):
    config = StudentConfig(**ALL, precision_of="foreground", precision=0.2)
    write_pseudo_labels(teacher, splits, config, "cpu")
    facts = json.loads((teacher.path / "threshold.json").read_text())
    (validation,) = splits.val
    truth = (array(validation.label) == VALUE).ravel().tolist()
    found = volumes_of_classes(load_model(teacher.path), validation).reshape(2, -1).T
    foreground = [(p, t) for p, t in zip(found, truth, strict=True) if p.argmax() > 0]
    thousandth, share = smallest([foreground], 0.2)
    assert (facts["threshold"], facts["precision"]) == (thousandth / 1000, float(share))


def test_scans_that_ranking_doubts_are_left_out_and_the_table_says_why(teacher, splits, monkeypatch):
    first, second, third = (case.name for case in splits.unlabelled)

    def ranked(_models, cases, *_, **__):
        rows = [
            {"case": case.name, "class": name, "equivariance_dice": dice, "volume_z": z}
            for case, dice, far in zip(cases, (0.8, 0.4999, None), (3.01, 0, 0), strict=True)
            for name, z in (("mean", None), ("hippocampus", -far))
        ]
        return SimpleNamespace(rows=rows[:4], failed={third: "a file that is broken"})

    monkeypatch.setattr(guesses, "rank_cases", ranked)
    out = write_pseudo_labels(teacher, splits, StudentConfig(), "cpu")
    rows = {row["case"]: (row["used"], row["reason"]) for row in rows_of(out / TABLE)}
    assert rows == {
        first: ("no", "implausible: volume of hippocampus -3.0 deviations from those with labels"),
        second: ("no", "unsure: equivariance Dice 0.500"),
        third: ("no", "a file that is broken"),
    }
    assert pseudo_labelled(out, splits) == []
    assert len(list(out.glob("*.nii.gz"))) == 3  # to be looked at
    assert StudentConfig().largest_z == IMPLAUSIBLE


def test_ranking_itself_finds_a_scan_in_which_nothing_is_found(teacher, splits):
    out = write_pseudo_labels(teacher, splits, StudentConfig(lowest_dice=1.0), "cpu")
    assert {row["used"] for row in rows_of(out / TABLE)} == {"no"}
    assert (teacher.path / "ranking" / "ranking.csv").exists()


def test_a_finished_table_is_left_as_it_is(teacher, splits, monkeypatch):
    out = write_pseudo_labels(teacher, splits, StudentConfig(**ALL), "cpu")
    monkeypatch.setattr(guesses, "load_model", None)
    assert write_pseudo_labels(teacher, splits, StudentConfig(**ALL), "cpu") == out


def test_labelled_scans_among_the_unlabelled_keep_their_labels(splits):
    both = Splits(splits.labelled, (*splits.unlabelled, *splits.labelled), splits.val, splits.test)
    assert to_guess(both) == list(splits.unlabelled)


def test_the_value_of_what_is_not_sure_is_that_of_no_class(run_folder):
    plan = Plan.load(run_folder / "plan.json")
    for values, ignore, expected in (((0, 17), None, 255), ((0, 255), None, 254), ((0, 9), 9000, 9000)):
        classes = dict(zip("ab", values, strict=True))
        assert ignore_value(plan.model_copy(update={"classes": classes, "ignore": ignore})) == expected
    many = {str(value): value for value in range(256)}
    assert ignore_value(plan.model_copy(update={"classes": many})) == 256


def test_a_table_of_other_scans_or_without_its_files_is_refused(teacher, splits):
    out = write_pseudo_labels(teacher, splits, StudentConfig(**ALL), "cpu")
    name = splits.unlabelled[0].name
    other = Splits(splits.labelled, splits.unlabelled[1:], splits.val, splits.test)
    with pytest.raises(InputError, match=rf"pseudo_labels.csv: got case '{name}', expected unlabelled scans of this"):
        pseudo_labelled(out, other)
    (out / f"{name}.nii.gz").unlink()
    with pytest.raises(InputError, match=rf"{name}.nii.gz: got no such file, expected the label map of pseudo_labels"):
        pseudo_labelled(out, splits)
