"""From settings to a run folder: which scans take part, which plan is made, and which settings are refused."""

import json

import pytest
import torch
from support.runs import PLAN, settings_of

from semiseg.errors import InputError, UserError
from semiseg.experiments import experiment
from semiseg.experiments.experiment import plan_dataset, prepare_dataset, train_run
from semiseg.experiments.run_settings import RunSettings
from semiseg.models.model import load_model


def test_splits_and_plan_of_a_run_that_never_began_are_made_anew(plain_cohort, tmp_path):
    data = plain_cohort()
    run = train_run(settings_of(data, "supervised", seed=1), tmp_path / "run", device="cpu", workers=1)
    for path in (run.config, run.result):
        path.unlink()
    (run.path / "begun.json").write_text('{"command": "train"}')
    train_run(settings_of(data, "supervised", plan={"batch": 3}), run.path, device="cpu", workers=1)
    assert json.loads(run.plan.read_text())["batch"] == 3


def test_the_mark_of_a_run_that_was_killed_as_it_began_goes_when_it_goes_on(plain_cohort, tmp_path):
    data = plain_cohort()
    run = train_run(settings_of(data, "supervised"), tmp_path / "run", device="cpu", workers=1)
    run.result.unlink()
    (run.path / "begun.json").write_text('{"command": "train"}')
    train_run(settings_of(data, "supervised"), run.path, resume=True, device="cpu", workers=1)
    assert not (run.path / "begun.json").exists()


def test_of_thousands_of_notes_the_first_are_told(plain_cohort, monkeypatch, capsys):
    data = plain_cohort()
    for number in range(5):
        (data / "labels" / f"stray{number}.nii.gz").touch()
    monkeypatch.setattr(experiment, "MOST_NOTES", 3)
    plan_dataset(settings_of(data), 1)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4
    assert told[-1] == f"... and 2 more; `semiseg check {data}` lists them all"


def test_other_settings_are_refused_and_listed(plain_cohort, tmp_path):
    data = plain_cohort()
    train_run(settings_of(data, "supervised"), tmp_path / "run", device="cpu", workers=1)
    before = (tmp_path / "run" / "result.json").stat().st_mtime_ns
    train_run(settings_of(data, "supervised"), tmp_path / "run", device="cpu", workers=1)
    assert (tmp_path / "run" / "result.json").stat().st_mtime_ns == before  # finished: nothing done
    with pytest.raises(UserError, match=r"training\.steps: 6 -> 9"):
        train_run(settings_of(data, "supervised", steps=9), tmp_path / "run", resume=True, device="cpu", workers=1)
    with pytest.raises(UserError, match=r"memory_gb: 8\.0 -> 24\.0; size: 'medium' -> 'large'"):
        train_run(settings_of(data, "supervised", size="large"), tmp_path / "run", resume=True, device="cpu", workers=1)
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("  name: supervised", "  name: supervised\n  rampe: 1"))
    with pytest.raises(UserError, match=r"config\.yaml: method\.rampe: unknown setting"):
        train_run(settings_of(data, "supervised"), tmp_path / "run", device="cpu", workers=1)
    (tmp_path / "run" / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"config.yaml: got while parsing .*, expected the settings of a run"):
        train_run(settings_of(data, "supervised"), tmp_path / "run", device="cpu", workers=1)


def test_a_plan_file_may_move_or_go_but_not_change(plain_cohort, tmp_path):
    data, plan, elsewhere = plain_cohort(), tmp_path / "plan.json", tmp_path / "elsewhere.json"
    plan.write_text(
        train_run(settings_of(data, "supervised"), tmp_path / "a", device="cpu", workers=1).plan.read_text()
    )

    def resumed(file):
        settings = settings_of(data, "supervised", plan_file=str(file))
        run = train_run(settings, tmp_path / "run", resume=True, device="cpu", workers=1)
        return json.loads(run.result.read_text())["steps"]

    assert resumed(plan) == 6
    plan.rename(elsewhere)
    (tmp_path / "run" / "result.json").unlink()  # as if it had been interrupted at its last checkpoint
    assert resumed(plan) == 6  # the run keeps its own
    assert resumed(elsewhere) == 6
    for file in (elsewhere, plan):  # in another place, or where it was
        file.write_text(json.dumps({**json.loads(elsewhere.read_text()), "overlap": 0.25}))
        with pytest.raises(UserError, match=r"than it was begun with \(plan_file: '.*run/plan.json' -> '.*json'\)"):
            resumed(file)


def test_first_weights_from_another_run(plain_cohort, tmp_path):
    data = plain_cohort()
    first = train_run(settings_of(data, "supervised"), tmp_path / "first", device="cpu", workers=1)
    still = {"lr": 1e-12, "weight_decay": 0.0}
    second = train_run(
        settings_of(data, "supervised", init=str(first.path), seed=5, training=still),
        tmp_path / "second", device="cpu", workers=1,
    )  # fmt: skip
    for name, value in load_model(second.path).network.state_dict().items():
        torch.testing.assert_close(value, load_model(first.path).network.state_dict()[name])


def test_patience_needs_validation_scans(plain_cohort, tmp_path):
    settings = settings_of(plain_cohort(), "supervised", training={"patience": 5})
    with pytest.raises(UserError, match=r"training.patience: got 5 without validation scans, .* give --val"):
        train_run(settings, tmp_path / "run", device="cpu", workers=1)
    assert not (tmp_path / "run").exists()  # the corrected command may have the same --out


def test_patience_goes_by_the_share_of_labels_and_unlabelled_scans_may_be_of_all(plain_cohort, tmp_path, monkeypatch):
    """Six scans with labels, one of them for validation and one for testing: two of four are labelled."""
    seen = []

    def fit(_method, _plan, cases, training, *_args, **_kwargs):
        seen.append((cases, training.patience_at(*cases.labelled_groups)))
        raise InputError("enough")

    monkeypatch.setattr(experiment, "fit", fit)
    root = plain_cohort(labelled=6, unlabelled=1)
    data = {"labelled": "2", "val": "1", "test": "1", "unlabelled_of": "all", "unlabelled_part": "70%"}
    training = {"patience": {"10%": 3, "50%": 7, "100%": 9}}
    with pytest.raises(InputError, match="enough"):
        train_run(settings_of(root, "equireg", data=data, training=training), tmp_path / "run", device="cpu", workers=1)
    ((cases, patience),) = seen
    assert (cases.labelled_groups, patience) == ((2, 4), 7)
    assert len(cases.unlabelled) == 3  # 70 % of the four and the one without a label, rounded down
    labelled, unlabelled, held_out = (
        {case.name for case in part} for part in (cases.labelled, cases.unlabelled, cases.validation)
    )
    assert len(labelled) == 2
    assert not unlabelled & held_out


def test_labelled_scans_alone_train_both_terms(plain_cohort, tmp_path):
    settings = settings_of(
        plain_cohort(labelled=3), "equireg", steps=2, data={"labelled": "3", "reuse_labelled": True},
        plan={"unlabelled_batch": 3},
    )  # fmt: skip
    run = train_run(settings, tmp_path / "run", device="cpu", workers=1)
    (split,) = json.loads(run.splits.read_text())
    assert sorted(split["unlabelled"]) == sorted(split["train"]) == ["case0", "case1", "case2"]
    assert all(line["terms"]["consistency"] > 0 for line in run.read_log())
    result = json.loads(run.result.read_text())
    assert (result["labelled"], result["unlabelled"]) == (3, 3)
    prepared = prepare_dataset(settings, workers=1)
    assert sorted(case.name for case in prepared) == ["case0", "case1", "case2"]
    assert all(case.open_label().any() for case in prepared)


def test_labelled_scans_count_once_in_the_plan(plain_cohort):
    data = plain_cohort(labelled=4, unlabelled=2)
    plain, reused = (
        plan_dataset(settings_of(data, "roam", data={"reuse_labelled": reuse}), workers=1) for reuse in (False, True)
    )
    assert plain == reused


def test_unlabelled_ratio_is_for_the_plan_that_is_made(plain_cohort, tmp_path):
    data = plain_cohort(labelled=3, unlabelled=1)
    plan = {key: value for key, value in PLAN.items() if key != "unlabelled_batch"}
    values = {**settings_of(data, "roam").model_dump(mode="json"), "plan": plan, "unlabelled_ratio": 3}
    made = plan_dataset(RunSettings.parse(values, where=""), workers=1)
    assert (made.batch, made.unlabelled_batch) == (2, 6)
    made.save(tmp_path / "plan.json")
    with pytest.raises(UserError, match=r"unlabelled_ratio: got 3 and a plan file, expected one of them"):
        plan_dataset(RunSettings.parse({**values, "plan_file": str(tmp_path / "plan.json")}, where=""), workers=1)


def test_a_device_that_is_not_there_is_told_before_any_scan_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "checked_splits", lambda *_: pytest.fail("scans were read"))
    with pytest.raises(UserError, match="--device: got 'meta'"):
        train_run(settings_of(tmp_path, "supervised"), tmp_path / "run", device="meta", workers=1)
