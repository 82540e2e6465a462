"""The command `bench` on a tiny grid: what it runs, what it never runs again, what it writes and refuses."""

import json
import re
import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from scipy.stats import permutation_test
from support.bench_grid import FLAGS, InProcess, write_balls
from support.command_line import rows_of, semiseg

from semiseg.bench.estimate import Estimate, Timing
from semiseg.bench.grid import BenchSettings, Run, continued
from semiseg.bench.results import case_scores, read_finished
from semiseg.errors import InputError
from semiseg.experiments.run_settings import RunSettings

GRID = [
    f"{method}-{count}-{replicate}"
    for replicate in range(2)
    for count in (2, 4)
    for method in ("supervised", "equireg")
]
UPPER = ["supervised-all-0", "supervised-all-2x-0"]


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    monkeypatch.setenv("SEMISEG_WORKERS", "1")


def bench(data: Path, out: Path, *more: object):
    """Exit code, standard output, standard error, and the runs that were done."""
    launcher = InProcess()
    with patch("semiseg.jobs.launchers.launcher_named", lambda *_, **__: launcher):
        return *semiseg("bench", data, "--out", out, *FLAGS, *more), launcher.done


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    return write_balls(tmp_path_factory.mktemp("balls") / "data")


@pytest.fixture(scope="module")
def done(balls, tmp_path_factory):
    """The folder of a finished bench, what it printed, and what it ran."""
    out = tmp_path_factory.mktemp("bench") / "out"
    with patch.dict("os.environ", SEMISEG_CACHE=str(out.parent / "cache"), SEMISEG_WORKERS="1"):
        code, text, err, ran = bench(balls, out)
    assert code == 0, err
    assert err.count("modality not declared") == 1  # what was found in the dataset is told once
    return out, text, ran


@pytest.fixture
def again(done, balls, tmp_path):
    """Runs the bench again, on a copy of its folder."""
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    return lambda *more: (out, *bench(balls, out, *more))


def the_splits(out, name):
    (split,) = json.loads((out / "runs" / name / "splits.json").read_text())
    return split


def dice_of(out, method, labelled, checkpoint="best", budget="1"):
    """(replicates, cases), from results.csv."""
    rows = [
        row
        for row in rows_of(out / "results.csv")
        if (row["method"], row["labelled"], row["checkpoint"], row["budget"], row["metric"])
        == (method, labelled, checkpoint, budget, "dice")
    ]
    replicates, cases = (sorted({row[key] for row in rows}) for key in ("replicate", "case"))
    values = {(row["replicate"], row["case"]): float(row["value"]) for row in rows}
    return np.array([[values[replicate, case] for case in cases] for replicate in replicates])


def summary_of(out):
    return {(row["method"], row["labelled"], row["budget"]): row for row in rows_of(out / "summary.csv")}


def test_every_method_label_number_and_replicate_is_an_ordinary_run(done):
    out, _, ran = done
    assert sorted(ran) == sorted(GRID + UPPER)
    for name in ran:
        assert (out / "runs" / name / "model").is_dir()
        assert (out / "runs" / name / "predictions" / "manifest.json").exists()
        assert (out / "runs" / name / "scores" / "summary.json").exists()
    steps = {name: json.loads((out / "runs" / name / "result.json").read_text())["steps"] for name in ran}
    assert steps.pop("supervised-all-2x-0") == 8
    assert set(steps.values()) == {4}


def test_all_runs_share_plan_test_and_validation_scans_and_draws_nest(done):
    out, _, ran = done
    splits = {name: the_splits(out, name) for name in ran}
    plan = (out / "plan.json").read_text()
    assert all((out / "runs" / name / "plan.json").read_text() == plan for name in ran)
    for part in ("test", "val"):
        (shared,) = {tuple(split[part]) for split in splits.values()}
        assert len(shared) == {"test": 2, "val": 1}[part]
    for replicate in (0, 1):
        few, more = (
            {frozenset(splits[f"{method}-{count}-{replicate}"]["train"]) for method in ("supervised", "equireg")}
            for count in (2, 4)
        )
        ((few,), (more,)) = few, more  # the same for both methods
        assert len(few) == 2
        assert len(more) == 4
        assert few < more
    assert len({frozenset(splits[f"equireg-2-{replicate}"]["train"]) for replicate in (0, 1)}) == 2
    for split in splits.values():
        assert not {*split["test"]} & {*split["train"], *split["val"], *split["unlabelled"]}
    assert len(splits["supervised-all-0"]["train"]) == 6
    seeds = {name: json.loads((out / "runs" / name / "env.json").read_text())["seed"] for name in ran}
    assert all(seed == int(name[-1]) for name, seed in seeds.items())


def test_results_hold_every_score_of_every_run_at_both_checkpoints(done):
    out, _, ran = done
    rows = rows_of(out / "results.csv")
    assert {(row["method"], row["labelled"], row["budget"], row["replicate"]) for row in rows} == {
        *(
            (method, count, "1", replicate)
            for method in ("supervised", "equireg")
            for count in "24"
            for replicate in "01"
        ),
        *(("supervised", "all", budget, "0") for budget in "12"),
    }
    assert {row["checkpoint"] for row in rows} == {"best", "last"}
    assert {row["class"] for row in rows} == {"1"}
    for name in ran:
        method, labelled, *_ = name.split("-")
        key = (method, labelled, "2" if "2x" in name else "1", name[-1])
        result = json.loads((out / "runs" / name / "result.json").read_text())
        same = result["best"]["step"] == result["last"]["step"]
        for checkpoint, folder in {"best": "scores", "last": "scores" if same else "scores-last"}.items():
            written = {
                (row["case"], row["metric"]): row["value"]
                for row in rows
                if (row["method"], row["labelled"], row["budget"], row["replicate"]) == key
                and row["checkpoint"] == checkpoint
            }
            for row in rows_of(out / "runs" / name / folder / "metrics.csv"):
                for metric in ("dice", "iou", "hd95_mm", "assd_mm"):
                    assert written.get((row["case"], metric), "") == row[metric]


def test_the_summary_is_what_the_results_say(done):
    out, _, _ = done
    summary = summary_of(out)
    assert len(summary) == 6
    for labelled in "24":
        line, base = summary["equireg", labelled, "1"], summary["supervised", labelled, "1"]
        own, other = dice_of(out, "equireg", labelled), dice_of(out, "supervised", labelled)
        assert own.shape == (2, 2)
        assert float(line["dice"]) == pytest.approx(own.mean())
        assert float(line["dice_sd"]) == pytest.approx(own.mean(1).std(ddof=1))
        assert float(line["dice_low"]) <= own.mean() <= float(line["dice_high"])
        assert float(line["difference"]) == pytest.approx((own - other).mean())
        assert float(line["dice_last"]) == pytest.approx(dice_of(out, "equireg", labelled, "last").mean())
        flips = permutation_test(((own - other).mean(1),), np.mean, permutation_type="samples").pvalue
        assert float(line["p"]) == pytest.approx(flips)
        assert float(line["p"]) <= float(line["p_holm"]) <= 1
        assert (line["labels_used"], line["replicates"], line["cases"]) == (f"{labelled} + 1 labelled", "2", "2")
        assert line["verdict_kind"] == "too few runs"
        assert base["difference"] == base["verdict_kind"] == ""
        minutes = [json.loads((out / "runs" / f"equireg-{labelled}-{k}" / "result.json").read_text()) for k in (0, 1)]
        assert float(line["minutes"]) == pytest.approx(np.mean([result["duration_s"] for result in minutes]) / 60)
        assert float(line["memory_gb"]) == max(result["memory_gb"] for result in minutes)
        assert (line["passes"], base["passes"]) == ("3.0", "1.0")  # labelled patches, their like, and its strong view
        assert (line["precision"], line["layout"], line["against"]) == ("32", "contiguous", "supervised")


def test_the_table_and_the_verdicts_are_printed(done):
    text = done[1]
    head, *rows = text.split("\n\n")[0].splitlines()
    assert head.split()[:6] == ["method", "labels", "used", "runs", "Dice", "sd"]
    assert [row.split()[:3] for row in rows][:2] == [["supervised", "2", "2"], ["equireg", "2", "2"]]
    assert rows[-1].startswith("supervised x2")
    assert "equireg, 2 labelled: too few runs to say: " in text
    assert text.count("at least 7 needed") == 2
    assert text.splitlines()[-1] == (
        "note: no verdict is possible: 2 comparisons are corrected together, 2 replicates carry none; use --runs 7"
    )


def test_nothing_is_done_twice_and_json_has_the_verdicts(again):
    out, code, text, err, ran = again("--json")
    assert (code, ran) == (0, []), err
    found = json.loads(text)
    assert found == json.loads((out / "bench.json").read_text())
    assert found["failed"] == {}
    (line,) = [line for line in found["lines"] if (line["method"], line["labelled"]) == ("equireg", "4")]
    assert line["verdict"]["kind"] == "too few runs"
    assert line["dice"]["mean"] == pytest.approx(dice_of(out, "equireg", "4").mean())
    assert line["far_ml"] >= 0


def test_a_run_that_fails_is_reported_and_more_can_be_added_later(again):
    """Two new things at once: a method whose loss is infinite, and a third replicate."""
    added = ("--methods", "broken", "--labelled", "2", "--set", "methods.broken={name: equireg, weight: 1.0e+300}")
    out, code, text, err, ran = again(*added, "--set", "methods.broken.confidence=0", "--runs", "3")
    assert code == 4
    third = {name.removesuffix("-0") + "-2" for name in GRID if name.endswith("-0")}
    broken = {f"broken-{count}-{replicate}" for count in (2, 4) for replicate in range(3)}
    assert set(ran) == third | broken
    assert len(re.findall(r"^\d+/10 .*, about .+ left$", err, re.MULTILINE)) == 9  # not after the last
    for name in broken:
        assert f"{name}: failed: exit status 7: error: training: got " in err
        assert str(out / "logs" / f"{name}.log") in err
    assert "equireg, 2 labelled: too few runs to say" in text
    assert summary_of(out)["equireg", "2", "1"]["replicates"] == "3"
    assert {row["method"] for row in rows_of(out / "results.csv")} == {"supervised", "equireg"}
    assert json.loads((out / "bench.json").read_text())["failed"].keys() == broken


def test_a_run_that_lost_its_scores_is_scored_again_not_trained(again, tmp_path):
    """In a folder that was moved since, too: `again` works on a copy."""
    out = tmp_path / "out"
    results = (out / "results.csv").read_text()
    model = out / "runs" / "equireg-2-0" / "model"
    before = {path.name: path.stat().st_mtime_ns for path in model.iterdir()}
    shutil.rmtree(out / "runs" / "equireg-2-0" / "scores")
    _, code, _, err, ran = again()
    assert (code, ran) == (0, ["equireg-2-0"]), err
    assert {path.name: path.stat().st_mtime_ns for path in model.iterdir()} == before
    assert (out / "results.csv").read_text() == results


def test_what_is_chosen_after_scores_is_recorded_and_told(again):
    usual = summary_of(again()[0])["equireg", "2", "1"]
    out, code, text, err, ran = again("--against", "equireg", "--family", "supervised")
    assert (code, ran) == (0, []), err
    said = (
        "chosen after scores were there: against equireg, family: supervised; before: against supervised, family: all"
    )
    assert f"note: {said}" in text
    found = json.loads((out / "bench.json").read_text())
    assert (found["against"], found["family"]) == ("equireg", ["supervised"])
    assert any(note.startswith(said) for note in found["notes"])
    summary = summary_of(out)
    assert float(summary["supervised", "2", "1"]["difference"]) == pytest.approx(-float(usual["difference"]))
    assert summary["supervised", "2", "1"]["against"] == "equireg"
    assert summary["equireg", "2", "1"]["difference"] == ""
    settings = yaml.safe_load((out / "bench.yaml").read_text())
    assert (settings["against"], settings["family"]) == ("equireg", ["supervised"])
    assert settings["before_scores"] == {"against": "supervised", "family": ["all"]}


def test_a_choice_stays_until_there_is_another_and_the_first_one_may_come_back(done, tmp_path):
    before = BenchSettings.read(done[0] / "bench.yaml")
    usual = BenchSettings.parse(before.model_dump(exclude={"against", "family", "before_scores"}), where="")
    other = usual.model_copy(update={"against": "equireg"})
    for runs, first in ((False, None), (True, before.choice)):  # without scores, nothing was seen yet
        out = tmp_path / str(runs)
        out.mkdir()
        shutil.copy(done[0] / "bench.yaml", out)
        if runs:
            shutil.copytree(done[0] / "runs" / "equireg-2-0", out / "runs" / "equireg-2-0")
        now = continued(other, out)
        assert (now.against, now.before_scores) == ("equireg", first)
        (out / "bench.yaml").write_text(yaml.safe_dump(now.model_dump(mode="json")))
        now = continued(usual, out)
        assert (now.against, now.before_scores) == ("equireg", first)
    now = continued(usual.model_copy(update={"family": ("supervised",)}), out)
    assert (now.against, now.family, now.before_scores) == ("equireg", ("supervised",), before.choice)
    now = continued(usual.model_copy(update={"against": "supervised"}), out)
    assert (now.choice, now.before_scores) == (before.choice, None)


def test_a_choice_stands_in_the_file_of_settings_too(balls, tmp_path):
    choice = ("--set", "against=equireg", "--set", "family=[supervised]")
    code, text, err, _ = bench(balls, tmp_path / "out", "--dry-run", *choice)
    assert code == 0, err
    found = yaml.safe_load(text)
    assert (found["against"], found["family"], found["before_scores"]) == ("equireg", ["supervised"], None)
    code, text, err, _ = bench(
        balls, tmp_path / "out", "--dry-run", *choice, "--against", "supervised", "--family", "all"
    )
    assert code == 0, err
    found = yaml.safe_load(text)
    assert (found["against"], found["family"]) == ("supervised", ["all"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--test", "3"), "(run.data.test: '2' -> '3')"),
        (("--steps", "5"), "(run.training.steps: 4 -> 5)"),
        (("--set", "methods.equireg.weight=2"), "(equireg.weight: 1.0 -> 2.0)"),
    ],
)
def test_other_settings_are_refused(again, more, said):
    out, code, _, err, ran = again(*more)
    assert (code, ran) == (2, [])
    assert err.splitlines()[-1] == (
        f"error: {out}: got other settings than it was begun with {said}; use the same settings, or another --out"
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--labelled", "many"), "--labelled: got ['many'], expected numbers or shares of labelled scans"),
        (("--labelled", "2,40"), "40"),
        (("--against", "roam"), "--against: got 'roam', expected one of: supervised, equireg; or add it to --methods"),
        (("--family", "roam"), "--family: got 'roam', expected some of: equireg (compared with supervised), or all"),
        (("--set", "family=5"), "bench.family: got 5, "),
        (("--methods", "roma"), "error: methods: roma: --method: got 'roma', expected one of"),
        (
            ("--methods", "mine", "--set", "methods.mine={name: roam, alpah: 1}"),
            "error: methods: mine: method.alpah: unknown setting; did you mean 'alpha'?",
        ),
        (("--set", "methods.supervised={name: roam}"), "supervised is the baseline"),
        (("--set", "method.weight=3"), "say methods.NAME.KEY"),
        (("--set", "methods.roam=[1]"), "roam: got [1], expected settings of a method"),
        (("--set", "methods.roam={name: 5}"), "roam: got {'name': 5}, expected settings of a method"),
        (("--set", "methods=[1]"), "methods: got [1], expected `NAME: {settings}`"),
        (("--set", "slurm=[1]"), "slurm: got [1], expected `KEY: value` lines"),
        (("--runs", "1000000000"), "bench.runs: got 1000000000, input should be less than or equal to 10000"),
        (("--set", "data.test=null", "--set", "data.val=null", "--test", "0"), "--test: got no test scans"),
    ],
)
def test_mistakes_are_found_before_anything_starts(balls, tmp_path, more, said):
    code, _, err, ran = bench(balls, tmp_path / "out", *more)
    assert (code, ran) == (2, []), err
    assert said in err.splitlines()[-1]
    assert not (tmp_path / "out" / "bench.yaml").exists()


def test_an_estimate_starts_nothing_but_its_timed_steps(balls, tmp_path):
    out = tmp_path / "out"
    code, text, err, ran = bench(balls, out, "--estimate")
    assert code == 0, err
    assert sorted(ran) == ["equireg", "supervised"]  # one short run of each method, none of the bench's
    assert text.startswith("10 runs to do, 0 finished; about ")
    assert "supervised 0." in text
    assert list(out.iterdir()) == []


def test_a_dry_run_prints_the_runs_and_what_bench_yaml_would_hold(balls, tmp_path, done):
    code, text, err, ran = bench(balls, tmp_path / "out", "--dry-run")
    assert code == 0, err
    head, _, rest = text.partition("\n")
    assert head.removeprefix("# 10 runs: ").split(", ") == done[2]
    assert rest == (done[0] / "bench.yaml").read_text()
    code, _, err, _ = bench(balls, tmp_path / "out", "--dry-run", "--set", "training.lr=-1")
    assert (code, "training.lr" in err) == (2, True)
    assert ran == []
    assert not (tmp_path / "out").exists()


def test_an_estimate_adds_up():
    """By hand: 4 steps of 2 s, 2 validations of 3 s, 5 s for the rest; the upper bound at twice the steps."""
    values = {"data": {"path": "x"}, "training": {"steps": 4, "validate_every": 2}}
    assert Timing(2.0, 3.0, 5.0).of(RunSettings.parse(values, where="")) == 4 * 2 + 2 * 3 + 5
    text = Estimate(10, 3, 7200.0, {"roam": Timing(2.0, 3.0, 5.0)}).text(4)
    assert text == (
        "10 runs to do, 3 finished; about 2.0 h one by one; 30.0 min with 4 at once, more if they share cores or a GPU "
        "(roam 2 s a step, alone)"
    )


# leaks


def refused(data, out, *more):
    code, _, err, ran = bench(data, out, *more)
    assert (code, ran) == (3, []), err
    assert not (out / "bench.yaml").exists()
    return err


def test_a_test_scan_among_the_unlabelled_is_refused(balls, tmp_path, done):
    (name, *_) = the_splits(done[0], "equireg-2-0")["test"]
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(balls / "images" / f"{name}.nii.gz", more / "visitor.nii.gz")
    err = refused(balls, tmp_path / "out", "--unlabelled", more)
    assert str(more / "visitor.nii.gz") in err
    assert f"{name}.nii.gz" in err


def test_an_image_under_two_names_across_splits_is_refused(balls, tmp_path, done):
    split = the_splits(done[0], "equireg-2-0")
    copy = tmp_path / "copy"
    shutil.copytree(balls, copy)
    tested, trained = split["test"][0], split["train"][0]
    for folder in ("images", "labels"):
        shutil.copy(copy / folder / f"{tested}.nii.gz", copy / folder / f"{trained}.nii.gz")
    err = refused(copy, tmp_path / "out")
    assert f"{tested}.nii.gz" in err
    assert f"{trained}.nii.gz" in err


def test_a_patient_in_two_splits_is_refused(balls, tmp_path):
    table = ["case,image,label,group,split"]
    for index in range(9):
        group = "anna" if index < 2 else f"patient{index}"
        split = ("test", "train")[index] if index < 2 else ""
        image, label = (balls / folder / f"case{index}.nii.gz" for folder in ("images", "labels"))
        table.append(f"case{index},{image},{label},{group},{split}")
    (tmp_path / "cases.csv").write_text("\n".join(table))
    err = refused(tmp_path / "cases.csv", tmp_path / "out")
    assert "anna" in err
    assert "case0" in err
    assert "case1" in err


# parts


def write_run(folder, rows, checkpoint="last"):
    (folder / "scores").mkdir(parents=True)
    lines = ["case,class,kind,in_truth,dice,value,state", *(",".join(map(str, (*row, 1, "ok"))) for row in rows)]
    (folder / "scores" / "metrics.csv").write_text("\n".join(lines))
    at = {"step": 1, "validation_dice": None}
    result = {"checkpoint": checkpoint, "last": at, "best": at, "labelled": 2, "validation": 0, "unlabelled": 0}
    result |= {"labels_used": "2 + 0 labelled", "duration_s": 1.0}
    (folder / "result.json").write_text(json.dumps(result))
    return read_finished(Run("roam", "2", 0), folder)


def test_the_mean_of_case_scores_is_the_mean_over_classes(tmp_path):
    """Class b is in one case of two: by hand, a: (0.8 + 0.6) / 2, b: 0.4, mean 0.55; regions do not count."""
    rows = [
        ("one", "a", "class", True, 0.8), ("two", "a", "class", True, 0.6), ("one", "b", "class", True, 0.4),
        ("two", "b", "class", False, 0.0), ("one", "ab", "region", True, 0.99),
    ]  # fmt: skip
    scores = case_scores([write_run(tmp_path / "run", rows)])
    assert scores.shape == (1, 2)
    assert scores.mean() == pytest.approx(0.55)
    np.testing.assert_allclose(scores, [[0.8 / 2 + 0.4, 0.6 / 2]])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("methods", {"../../../evil": {"name": "roam"}}),
        ("methods", {"/evil": {"name": "roam"}}),
        ("methods", {"..": {"name": "roam"}}),
        ("labelled", ["2/../../../evil"]),
        ("labelled", ["../2"]),
    ],
)
def test_names_in_bench_yaml_that_lead_out_of_its_folder_are_refused(tmp_path, key, value):
    path = tmp_path / "bench" / "bench.yaml"
    path.parent.mkdir()
    run = {"data": {"path": "x"}}
    settings = {"run": run, "methods": {"supervised": {"name": "supervised"}}, "labelled": ["2"]}
    path.write_text(yaml.safe_dump(settings))
    assert BenchSettings.read(path).labelled == ("2",)
    path.write_text(yaml.safe_dump({**settings, key: value}))
    with pytest.raises(InputError, match=r"bench\.yaml.*(expected a plain name|expected a number or share)"):
        BenchSettings.read(path)
    code, _, err = semiseg("report", path.parent)
    assert code == 3
    assert "bench.yaml" in err
