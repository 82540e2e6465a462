"""Every flag of every command reaches the library, or changes what is printed: none is ignored, none is mixed up.

The commands and flags are those of the application itself, so that a new one without a line here fails.
"""

import inspect
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import typer
from support.command_line import semiseg

from semiseg.bench.grid import BenchSettings
from semiseg.cli import app
from semiseg.experiments.run_settings import RunSettings
from semiseg.jobs.shards import Shard
from semiseg.prediction.look import Look
from semiseg.progress import say, set_quiet
from semiseg.settings import flat

COMMANDS = typer.main.get_command(app).commands
PARAMETERS = [
    (command, parameter.name if parameter.param_type_name == "argument" else parameter.opts[0])
    for command, made in COMMANDS.items()
    for parameter in made.params
]
OTHERWISE = object()
"""In the place of an expected value: anything else than without the flag."""


@dataclass
class Entry:
    """A flag's value, and what it changes in what `received` returns. more: it may change other things too.
    beside: flags that both command lines have."""

    value: list[str]
    changes: dict
    more: bool = False
    beside: tuple[str, ...] = ()


def given(value, *, more=False, beside=(), **changes):
    """Double underscores stand for dots."""
    words = [] if value is True else [str(one) for one in value] if isinstance(value, list) else [str(value)]
    return Entry(words, {key.replace("__", "."): change for key, change in changes.items()}, more, beside)


def within(prefix, entries):
    """The changes of a group of flags, in what a library function of this name receives."""
    return {
        flag: Entry(entry.value, {prefix + key: change for key, change in entry.changes.items()}, entry.more)
        for flag, entry in entries.items()
    }


CHOSEN = {
    "data": given("others", data__path="others"),
    "--layout": given("plain", data__layout="plain"),
    "--classes": given("roam28", data__classes="roam28"),
    "--unlabelled": given("more", data__unlabelled="more"),
    "--val": given("2", data__val="2"),
    "--test": given("3", data__test="3"),
    "--split-seed": given(8, data__split_seed=8),
    "--dims": given("3", dims="3"),
    "--config": given("seven.yaml", training__lr=0.7),
    "--set": given("training.lr=0.5", training__lr=0.5),
}
SPLIT = {
    "--labelled": given("3", data__labelled="3"),
    "--corrected": given("fixed", data__corrected=["fixed"]),
    "--fold": given("1/5", data__fold="1/5"),
    "--draw": given(7, data__draw=7),
    "--transductive": given(True, data__transductive=True),
    "--strict": given(True, data__strict=True),
    "--memory-gb": given(3.5, memory_gb=3.5),
    "--size": given("large", size="large", memory_gb=24.0),
    "--recipe": given("malc-roam-semi", recipe="malc-roam-semi", more=True),
}
PLAN_FILE = {"--plan": given("other.json", plan_file="other.json")}
QUIET = {"--quiet": given(True, err="")}
DASK = ("--launcher", "dask")
JSON = {"--json": given(True, out=OTHERWISE)}


def shared(function):
    """The flags of a command whose scans can be shared out."""
    return {
        "--shard": given("1/2", **{f"{function}__shard": Shard(1, 2)}),
        "--launcher": given("slurm", called=["launcher_named", "run_shards", function], more=True),
        "--jobs": given(3, launcher_named__jobs=3, run_shards__count=3, beside=DASK),
        "--scheduler": given("tcp://x:1", launcher_named__scheduler="tcp://x:1", beside=DASK),
        "--slurm": given("partition=gpu", launcher_named__slurm={"partition": "gpu"}, beside=("--launcher", "slurm")),
        "--overwrite": given(True, **{f"{function}__overwrite": True}),
    }


ENTRIES = {
    "check": {
        "data": given("others", open_dataset__root="others", out=OTHERWISE),
        "--layout": given("plain", open_dataset__layout="plain"),
        "--classes": given("roam28", apply_table__classes="roam28", more=True),
        "--unlabelled": given("more", open_dataset__unlabelled="more"),
        "--strict": given(True, check_dataset__strict=True),
        "--workers": given(3, check_dataset__workers=3),
        **JSON,
        **QUIET,
    },
    "plan": {
        **within("plan_dataset.settings.", CHOSEN | SPLIT),
        "--out": given("made.json", save__path=Path("made.json"), out=OTHERWISE),
        "--workers": given(3, plan_dataset__workers=3),
        "--overwrite": given(True, code=0, save__path=Path("there.json"), more=True, beside=("--out", "there.json")),
        **QUIET,
    },
    "prepare": {
        **within("prepare_dataset.settings.", CHOSEN | SPLIT | PLAN_FILE),
        "--workers": given(3, prepare_dataset__workers=3),
        **QUIET,
    },
    "train": {
        **within("train_run.settings.", CHOSEN | SPLIT | PLAN_FILE),
        **within(
            "train_run.settings.",
            {
                "--method": given("roam", method__name="roam"),
                "--steps": given(9, training__steps=9),
                "--precision": given("32", training__precision="32"),
                "--seed": given(5, seed=5),
                "--init": given("first", init="first"),
            },
        ),
        "--rounds": given(2, called=["train_rounds"], train_rounds__settings__rounds=2, more=True),
        "--out": given("other", train_run__out=Path("other")),
        "--resume": given(True, train_run__resume=True),
        "--device": given("cpu", train_run__device="cpu", score_run__device="cpu", beside=("--score",)),
        "--workers": given(3, train_run__workers=3, score_run__workers=3, beside=("--score",)),
        "--score": given(True, train_run__settings__score=True, called=["train_run", "score_run"], more=True),
        "--dry-run": given(True, called=[], out=OTHERWISE, more=True),
        **QUIET,
    },
    "predict": {
        "paths": given(["a", "b", "scans"], segment__models=[Path("a"), Path("b")]),
        "--out": given("other", segment__out=Path("other"), out=OTHERWISE),
        "--probabilities": given(True, segment__probabilities=True),
        "--tta": given(True, segment__tta=True),
        "--keep-largest": given(True, segment__keep_largest=True),
        "--checkpoint": given("last", segment__checkpoint="last"),
        "--cases": given("names.txt", segment__only=Path("names.txt")),
        "--overlay": given(True, segment__overlay=Look()),
        "--overlay-fill": given(True, segment__overlay=Look(fill=True)),
        "--overlay-channel": given("t1", segment__overlay=Look(channel="t1")),
        "--overlay-window": given("lung", segment__overlay=Look(window="lung")),
        "--truth": given("labels", segment__truth=Path("labels")),
        "--beside": given("b", segment__beside=Path("b")),
        "--device": given("cpu", segment__device="cpu", launcher_named__device="cpu", more=True, beside=DASK),
        **shared("segment"),
        **JSON,
        **QUIET,
    },
    "evaluate": {
        "predictions": given("others", evaluate_folder__predictions=Path("others")),
        "labels": given("others", evaluate_folder__labels=Path("others")),
        "--out": given("other", evaluate_folder__out=Path("other")),
        "--classes": given("roam28", evaluate_folder__classes="roam28"),
        "--tolerance-mm": given(2.5, evaluate_folder__tolerance_mm=2.5),
        "--workers": given(3, evaluate_folder__workers=3),
        **shared("evaluate_folder"),
        **JSON,
        **QUIET,
    },
    "bench": {
        **within("run_bench.settings.run.", CHOSEN | PLAN_FILE | {"--steps": given(9, training__steps=9)}),
        "--out": given("other", run_bench__out=Path("other"), launcher_named__folder=Path("other/slurm")),
        "--methods": given("roam", run_bench__settings__methods=["supervised", "roam"]),
        "--labelled": given("2,4", run_bench__settings__labelled=["2", "4"]),
        "--runs": given(4, run_bench__settings__runs=4),
        "--upper-runs": given(1, run_bench__settings__upper_runs=1),
        "--against": given("roam", run_bench__settings__against="roam"),
        "--family": given("roam,equireg", run_bench__settings__family=["roam", "equireg"]),
        "--recipe": given("malc-roam-semi", run_bench__settings__run__plan__network__name=OTHERWISE, more=True),
        "--launcher": given("dask", launcher_named__name="dask"),
        "--jobs": given(3, launcher_named__jobs=3),
        "--scheduler": given("tcp://x:1", launcher_named__scheduler="tcp://x:1"),
        "--slurm": given("partition=gpu", launcher_named__slurm={"partition": "gpu"}),
        "--dry-run": given(True, called=[], out=OTHERWISE, more=True),
        "--estimate": given(True, called=["launcher_named", "estimate"], out=OTHERWISE, more=True),
        "--device": given("cpu", run_bench__device="cpu", launcher_named__device="cpu"),
        "--workers": given(3, run_bench__workers=3),
        **JSON,
        **QUIET,
    },
    "rank": {
        "paths": given(["a", "b", "scans"], rank_scans__models=[Path("a"), Path("b")]),
        "--out": given("other", rank_scans__out=Path("other")),
        "--cases": given("names.txt", rank_scans__only=Path("names.txt")),
        "--transforms": given("t.json", rank_scans__transforms=Path("t.json")),
        "--seed": given(3, rank_scans__seed=3),
        "--overwrite": given(True, rank_scans__overwrite=True),
        "--device": given("cpu", rank_scans__device="cpu"),
        **JSON,
        **QUIET,
    },
    "review": {
        "paths": given(["a", "b", "scans"], review_scans__models=[Path("a"), Path("b")]),
        "--out": given("other", review_scans__out=Path("other")),
        "--count": given(3, review_scans__count=3),
        "--ranking": given("ranked", review_scans__ranking=Path("ranked")),
        "--cases": given("names.txt", review_scans__only=Path("names.txt")),
        "--overwrite": given(True, review_scans__overwrite=True),
        "--device": given("cpu", review_scans__device="cpu"),
        **JSON,
        **QUIET,
    },
    "report": {
        "folders": given(["a", "b"], report_folders__folders=[Path("a"), Path("b")]),
        "--out": given("page.html", report_folders__out=Path("page.html")),
        **QUIET,
    },
    "simulate": {
        "world": given("brats", simulate_world__world="brats"),
        "--out": given("other", simulate_world__out=Path("other"), out=OTHERWISE),
        "--subjects": given(3, simulate_world__subjects=3),
        "--seed": given(4, simulate_world__seed=4),
        "--spacing-mm": given(2.5, simulate_world__spacing_mm=2.5),
        "--size": given(64, simulate_world__size=64),
        "--workers": given(5, simulate_world__workers=5),
        **QUIET,
    },
    "export": {
        "run": given("b", export_bundle__run=Path("b")),
        "--out": given("other", export_bundle__out=Path("other")),
        "--checkpoint": given("best", export_bundle__checkpoint="best"),
        "--half": given(True, export_bundle__half=True),
        "--licence": given("CC0", export_bundle__licence="CC0"),
        "--description": given("For tests.", export_bundle__description="For tests."),
        "--overwrite": given(True, export_bundle__overwrite=True),
    },
    "layers": {
        "network": given("roam-unet", list_layers__network="roam-unet"),
        "--dims": given(3, list_layers__dims=3),
        "--set": given("network.widths=[4,8]", list_layers__settings={"widths": [4, 8]}),
        **JSON,
    },
    "demo": {
        "--out": given("other", run_demo__out=Path("other")),
        "--device": given("cpu", run_demo__device="cpu"),
        "--seed": given(3, run_demo__seed=3),
        **QUIET,
    },
}
BASE = {
    "check": {"data": ["scans"]},
    "plan": {"data": ["scans"]},
    "prepare": {"data": ["scans"]},
    "train": {"data": ["scans"], "--out": ["made"]},
    "predict": {"paths": ["a", "scans"], "--out": ["made"]},
    "evaluate": {"predictions": ["guesses"], "labels": ["labels"], "--out": ["made"]},
    "bench": {"data": ["scans"], "--out": ["made"], "--labelled": ["2"]},
    "rank": {"paths": ["a", "scans"], "--out": ["made"]},
    "review": {"paths": ["a", "scans"], "--out": ["made"]},
    "report": {"folders": ["a"]},
    "simulate": {"world": ["covid"], "--out": ["made"]},
    "export": {"run": ["a"], "--out": ["made"]},
    "layers": {"network": ["unet"]},
    "demo": {},
}
"""The shortest command line of each."""


def text_and_json(**more):
    return SimpleNamespace(text=lambda *_: "text", exit_code=0, failed={}, **more)


def nothing_scored():
    return SimpleNamespace(
        summary={"classes": {}, "mean": dict.fromkeys(("dice", "hd95_mm", "assd_mm")), "regions": {}}, exit_code=0
    )


LIBRARY = {
    "data.layouts.open_dataset": lambda: "dataset",
    "data.label_tables.apply_table": lambda: "dataset with a table",
    "data.check.check_dataset": lambda: SimpleNamespace(
        to_json=dict, lines=list, can_train=True, usable=[], left_out=[]
    ),
    "experiments.experiment.plan_dataset": lambda: SimpleNamespace(
        dims=2, reason="", patch=(), batch=1, unlabelled_batch=1, save=recorded(lambda path: path, "save")
    ),
    "experiments.experiment.prepare_dataset": list,
    "experiments.experiment.train_run": lambda: None,
    "rounds.rounds.train_rounds": lambda: None,
    "experiments.score.score_run": nothing_scored,
    "prediction.segment.segment": lambda: text_and_json(done=["a"], skipped=[]),
    "evaluation.evaluate.evaluate_folder": nothing_scored,
    "bench.compare.run_bench": lambda: text_and_json(lines=[], notes=[], to_json=dict),
    "bench.estimate.estimate": lambda: text_and_json(),
    "jobs.launchers.launcher_named": lambda: SimpleNamespace(at_once=2),
    "jobs.shards.run_shards": lambda: None,
    "rank.scans.rank_scans": lambda: text_and_json(summary={}),
    "rank.review.review_scans": lambda: text_and_json(done=[], kept=[], left_out=[]),
    "report.page.report_folders": lambda: Path("report.html"),
    "simulate.worlds.simulate_world": lambda: None,
    "models.bundle.export_bundle": Path,
    "models.layers.list_layers": lambda: [SimpleNamespace(name="input")],
    "demo.run_demo": lambda: None,
}
"""What the commands call, and what it returns here."""
ORIGINALS = {
    name: getattr(import_module(f"semiseg.{name.rpartition('.')[0]}"), name.split(".")[-1]) for name in LIBRARY
}
CALLS: list[tuple[str, dict]] = []


def recorded(function, name, result=lambda: None):
    """A function that only notes its arguments, and speaks as work does."""

    def note(*args, **kwargs):
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        CALLS.append((name, dict(bound.arguments)))
        say("working")
        return result()

    return note


def plain(value):
    """Settings as values that can be compared one by one."""
    if isinstance(value, BenchSettings):
        return {**value.model_dump(mode="json"), "methods": list(value.methods)}
    return value.model_dump(mode="json") if isinstance(value, RunSettings) else value


def received(command, words, beside=()):
    """Everything that a command line leads to: what is called with what, what is printed, how it ends."""
    CALLS.clear()
    set_quiet(False)
    modules = {name for name in sys.modules if name.startswith("semiseg")}
    with ExitStack() as stack:
        for name, result in LIBRARY.items():
            noted = recorded(ORIGINALS[name], name.split(".")[-1], result)
            stack.enter_context(patch(f"semiseg.{name}", noted))
        stack.enter_context(patch("semiseg.data.plan.Plan.load", lambda _: "another plan"))
        stack.enter_context(patch("semiseg.bench.lines.table", lambda _: "table"))
        stack.enter_context(patch("semiseg.models.layers.table", lambda _: "table"))
        stack.enter_context(patch("semiseg.processes.default_workers", lambda: 6))
        line = [word for flag, value in words.items() for word in ([flag] * flag.startswith("--") + value)]
        code, out, err = semiseg(command, *line, *beside)
    # one that is imported now would keep what stands in for the library
    assert {name for name in sys.modules if name.startswith("semiseg")} == modules
    found = {"code": code, "out": out, "err": err, "called": [name for name, _ in CALLS]}
    for name, arguments in CALLS:
        for key, value in arguments.items():
            split = flat({key: plain(value)}) if isinstance(value, BenchSettings | RunSettings) else {key: value}
            found |= {f"{name}.{part}": each for part, each in split.items()}
    return found


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in ("SEMISEG_WORKERS", "SEMISEG_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").touch()
    (tmp_path / "seven.yaml").write_text("training: {lr: 0.7}")


@pytest.mark.parametrize(("command", "flag"), PARAMETERS)
def test_every_flag_changes_what_it_says_and_nothing_else(command, flag):
    entry, base = ENTRIES[command][flag], BASE[command]
    before = received(command, base, entry.beside)
    after = received(command, {**base, flag: entry.value}, entry.beside)
    assert after["code"] == 0, after["err"]
    changed = {key: after.get(key) for key in before | after if before.get(key) != after.get(key)}
    if not entry.more:
        assert changed.keys() == entry.changes.keys()
    for key, value in entry.changes.items():
        assert key in changed
        assert value is OTHERWISE or changed[key] == value


def test_only_flags_that_exist_are_listed_and_the_shortest_command_lines_work():
    assert {(command, flag) for command, entries in ENTRIES.items() for flag in entries} == {*PARAMETERS}
    for command, words in BASE.items():
        found = received(command, words)
        assert found["code"] == 0, found["err"]
        assert found["called"], command


def test_an_estimate_gets_device_and_workers_too():
    words = BASE["bench"] | {"--device": ["cpu"], "--workers": ["3"], "--estimate": []}
    found = received("bench", words)
    assert (found["estimate.device"], found["estimate.workers"]) == ("cpu", 3)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_shard_gets_every_flag_but_those_of_sharing_printing_and_pictures(command):
    ours = {"--shard", "--launcher", "--jobs", "--scheduler", "--slurm", "--json", "--quiet"}
    ours |= {"--overlay", "--overlay-fill", "--overlay-channel", "--overlay-window", "--truth", "--beside"}
    base = BASE[command]
    for flag, entry in ENTRIES[command].items():
        if flag == "--shard":  # refused beside a launcher
            continue
        beside = () if flag == "--launcher" else ("--launcher", "slurm")
        if flag == "--scheduler":
            beside = ("--launcher", "dask")
        words = received(command, {**base, flag: entry.value}, beside)["run_shards.words"]
        if flag in ours:
            assert flag not in words
        else:
            value = [flag, *entry.value] if flag.startswith("--") else entry.value
            assert any(words[k : k + len(value)] == value for k in range(len(words))), (flag, words)
