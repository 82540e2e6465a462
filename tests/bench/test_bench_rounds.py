"""A comparison with self-training among its methods."""

import json
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from support.bench_grid import FLAGS, InProcess, write_balls
from support.command_line import semiseg
from support.runs import PLAN

from semiseg.bench.grid import BenchSettings, Run, begin, bench_settings, continued, run_settings
from semiseg.errors import UserError

pytestmark = pytest.mark.usefixtures("one_core")
METHODS = {"students": {"name": "roam", "alpha": 1, "rounds": 2}, "roam": None}


def settings_of(root="data", methods=METHODS, **more):
    values = {
        "data": {"path": str(root), "val": "1", "test": "1"},
        "dims": "2",
        "plan": PLAN,
        "training": {"steps": 9},
        "methods": methods,
        **more,
    }
    return bench_settings(values, labelled=["2"], runs=1, upper_runs=1)


def test_rounds_beside_a_name_are_those_of_this_method_alone_with_the_same_steps():
    settings = settings_of()
    runs = {name: run_settings(settings, Run(name, "2", 0), Path("plan.json")) for name in settings.methods}
    assert {name: run.rounds for name, run in runs.items()} == {"supervised": 0, "students": 2, "roam": 0}
    assert {run.training.steps for run in runs.values()} == {9}
    assert (runs["students"].method["name"], runs["students"].method["alpha"]) == ("roam", 1)
    assert all("rounds" not in run.method for run in runs.values())
    upper = run_settings(settings, Run("supervised", "all", 0, budget=2), Path("plan.json"))
    assert (upper.rounds, upper.training.steps) == (0, 18)


def test_it_goes_on_from_its_own_file_and_not_with_another_number(tmp_path):
    data = write_balls(tmp_path / "data", labelled=5, unlabelled=1)
    settings, out = settings_of(data), tmp_path / "bench"
    begin(settings, out, workers=1)
    assert continued(BenchSettings.read(out / "bench.yaml"), out).methods == settings.methods
    for before, after, given in ((2, 1, {"rounds": 1}), (2, 0, {})):
        other = settings_of(data, methods={"students": {"name": "roam", "alpha": 1, **given}})
        with pytest.raises(UserError, match=rf"than it was begun with \(students.rounds: {before} -> {after}\)"):
            continued(other, out)
    document = yaml.safe_load((out / "bench.yaml").read_text())
    for name in ("rounds", "student", "pseudo_labels"):  # of a version that had none
        del document["run"][name]
    (out / "bench.yaml").write_text(yaml.safe_dump(document))
    assert continued(settings, out).methods == settings.methods


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"rounds": 2}, "rounds: got 2 for all methods, expected it of one; say methods.NAME.rounds"),
        ({"methods": {"supervised": {"rounds": 1}}}, "methods.supervised.rounds: got 1, expected none of the baseline"),
        ({"methods": {"a": {"name": "roam", "rounds": -1}}}, "rounds: got -1, input should be greater than"),
        ({"methods": {"a": {"name": "roam", "rounds": "x"}}}, "rounds: got 'x'"),
        (
            {"methods": {"a": {"name": "roam", "rounds": 9}}},
            "training.steps: got 9 with 9 rounds, expected at least 10",
        ),
    ],
)
def test_mistakes(more, told):
    with pytest.raises(UserError, match=told):
        settings_of(**more)


@pytest.mark.slow
def test_a_whole_one(tmp_path):
    data, out = write_balls(tmp_path / "data", labelled=6, unlabelled=1), tmp_path / "bench"
    config = tmp_path / "compare.yaml"
    config.write_text("methods: {students: {name: equireg, rounds: 1}}\nstudent: {lowest_dice: 0, largest_z: null}\n")
    flags = [word for word in FLAGS if word not in ("--methods", "equireg")]
    words = (*flags, "--config", config, "--labelled", "2", "--runs", "1", "--upper-runs", "0")
    launcher = InProcess()
    with patch("semiseg.jobs.launchers.launcher_named", lambda *_, **__: launcher):
        code, printed, err = semiseg("bench", data, "--out", out, *words)
        assert code == 0, err
        assert launcher.done == ["supervised-2-0", "students-2-0"]
        run = out / "runs" / "students-2-0"
        steps = [json.loads((run / "rounds" / str(k) / "result.json").read_text())["steps"] for k in range(2)]
        assert steps == [2, 2]
        assert "students" in printed
        code, _, err = semiseg("bench", data, "--out", out, *words)
        assert code == 0, err
        assert len(launcher.done) == 2  # nothing is done again


@pytest.mark.slow
def test_an_estimate_times_one_network(tmp_path):
    data = write_balls(tmp_path / "data", labelled=6, unlabelled=1)
    config = tmp_path / "compare.yaml"
    config.write_text("methods: {students: {name: supervised, rounds: 1}}\n")
    flags = [word for word in FLAGS if word not in ("--methods", "equireg")]
    with patch("semiseg.jobs.launchers.launcher_named", lambda *_, **__: InProcess()):
        code, printed, err = semiseg(
            "bench", data, "--out", tmp_path / "bench", *flags, "--labelled", "2", "--config", config, "--estimate"
        )
    assert code == 0, err
    assert "students" in printed
