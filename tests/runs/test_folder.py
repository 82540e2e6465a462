"""What a run has written is read back in one place, and a damaged file is named."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.finished import DICE, make_dataset, make_run, make_scores

import semiseg
from semiseg.errors import InputError, UserError
from semiseg.runs.contents import Score, read_scores
from semiseg.runs.folder import RunFolder

SOURCE = Path(semiseg.__file__).parent


@pytest.fixture
def run(tmp_path):
    return RunFolder(make_run(tmp_path / "run", make_dataset(tmp_path / "data")))


def without(path, key):
    values = json.loads(path.read_text())
    del values[key]
    path.write_text(json.dumps(values))


def test_a_run_is_read_as_it_was_written(run_folder):
    run = RunFolder(run_folder)
    assert (run.finished, run.scored) == (True, False)
    written, read = json.loads(run.result.read_text()), run.read_result().model_dump()
    assert read == {key: written[key] for key in read}
    assert run.read_result().of_checkpoint("last").step == 2
    (split,) = json.loads(run.splits.read_text())
    names = run.read_splits()
    assert {key: list(getattr(names, key)) for key in ("train", "val", "unlabelled", "test")} | {
        "split_seed": names.split_seed,
        "draw": names.draw,
    } == split
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    assert run.read_log() == lines
    logged = {"train": run.train_lines(), "validation": run.validations()}
    for kind, known in logged.items():
        assert known
        wanted = [{key: line[key] for key in known[0].model_dump()} for line in lines if line["kind"] == kind]
        assert [line.model_dump() for line in known] == wanted
    assert sum(map(len, logged.values())) == len(lines)
    assert run.read_environment()["seed"] == 0
    assert run.read_config()["dims"] == "2"


def test_an_empty_folder_has_no_log_and_no_environment(tmp_path):
    run = RunFolder(tmp_path)
    assert (run.read_log(), run.train_lines(), run.validations(), run.read_environment()) == ([], [], [], {})
    assert (run.finished, run.scored, run.newest_checkpoint()) == (False, False, None)
    with pytest.raises(InputError, match=r"got no result\.json, expected a finished run; finish it"):
        run.read_result()
    with pytest.raises(
        InputError, match=r"config\.yaml: got No such file or directory, expected the settings of a run; restore"
    ):
        run.config_text()
    with pytest.raises(InputError, match=r"splits\.json: got .*, expected a list with one split"):
        run.read_splits()
    with pytest.raises(
        InputError, match=r"scores/metrics\.csv: got .*, expected the metrics\.csv of `semiseg evaluate`"
    ):
        run.read_scores()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("result.json", "{", "result.json: got Expecting property name .*, expected the result of a run; restore"),
        ("result.json", "[]", r"result.json: got \[\], expected the result of a run; restore"),
        ("result.json", None, "result.json: got no value 'checkpoint', expected the result of a run"),
        ("splits.json", '[{"train": "abc"}]', "splits.json: got parts that are no lists of names, expected a list"),
        ("splits.json", "[{}, {}]", "splits.json: got too many values to unpack .*, expected a list with one split"),
        ("config.yaml", "a: [", "config.yaml: got while parsing .*, expected the settings of a run"),
        ("config.yaml", "data: [x]", r"config.yaml: got \['x'\] as 'data', expected the settings of a run"),
        ("config.yaml", "data: {path: x}", "config.yaml: got no value 'method', expected the settings of a run"),
        ("config.yaml", "{data: {path: 5}, method: {name: x}}", r"config.yaml: got 5 as 'data\.path'"),
        ("config.yaml", '{data: {path: "\\ud800"}, method: {name: x}}', "config.yaml: got the text .*not Unicode"),
        ("env.json", "7", "env.json: got 7, expected what a run was begun with; restore the file, or remove it"),
        ("env.json", '{"packages": [1]}', r"env.json: got \[1\] as 'packages', expected what a run was begun with"),
        ("env.json", '{"command": [{}]}', r"env.json: got \{\} as 'command.0'"),
        ("env.json", "{", "env.json: got Expecting property name"),
    ],
)
def test_a_damaged_file_is_named(run, name, text, said):
    if text is None:
        without(run.result, "checkpoint")
    else:
        (run.path / name).write_text(text)
    read = {"result": run.read_result, "splits": run.read_splits, "config": run.read_config}
    with pytest.raises(InputError, match=said):
        read.get(name.partition(".")[0], run.read_environment)()


def test_a_result_of_either_checkpoint(run):
    values = {**json.loads(run.result.read_text()), "best": {"step": 20, "validation_dice": 0.25}}
    run.result.write_text(json.dumps(values))
    for which, step in (("best", 20), ("last", 40)):
        assert run.read_result().of_checkpoint(which).step == step


def test_a_value_of_another_kind_is_named(run):
    values = json.loads(run.result.read_text())
    run.result.write_text(json.dumps({**values, "best": {"step": "three", "validation_dice": 1.0}}))
    with pytest.raises(InputError, match=r"result\.json: got 'three' as 'best\.step', expected the result of a run"):
        run.read_result()


# the log

FIRST, SECOND = {"step": 1, "kind": "train", "terms": {"a": 1.0}, "duration_s": 0.5}, {"step": 2, "kind": "other"}


def write_log(path, *lines):
    texts = (json.dumps(line).encode() if isinstance(line, dict) else line for line in lines)
    path.write_bytes(b"\n".join(texts))
    return RunFolder(path.parent)


def test_a_line_that_a_crash_cut_off_is_left_out_in_silence(tmp_path, capsys):
    whole = json.dumps(FIRST).encode()
    for cut in range(len(whole)):
        assert write_log(tmp_path / "metrics.jsonl", SECOND, whole[:cut]).read_log() == [SECOND], cut
    assert write_log(tmp_path / "metrics.jsonl", SECOND, whole).read_log() == [SECOND, FIRST]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "damage",
    [b'{"step": 1, "ki', b"\0\0\0\0", b"\xff", b"3", b'{"step": 1}', b'{"kind": "a"}',
        b'{"step": 1, "kind": "train"}', b'{"step": 1, "kind": "train", "terms": [1], "duration_s": 1}',
        b'{"step": 1, "kind": "train", "terms": {"a": NaN}, "duration_s": 1}',
        b'{"step": 1, "kind": "train", "terms": {"a": 1e308}, "duration_s": 1}',
        b'{"step": 1, "kind": "validation", "dice": {"a": 1.5}, "dice_mean": 1}',
        b'{"step": 1, "kind": "validation", "dice": {"a": "x"}, "dice_mean": 1}', b'{"step": 1, "kind": "\\ud800"}'],
)  # fmt: skip
def test_a_damaged_line_elsewhere_is_left_out_and_told_once(tmp_path, capsys, damage):
    run = write_log(tmp_path / "metrics.jsonl", FIRST, damage, b"", SECOND, b"")
    assert run.read_log() == [FIRST, SECOND]
    assert [line.step for line in run.train_lines()] == [1]
    assert capsys.readouterr().err == f"{run.log}: line 2 is damaged and left out\n"
    run.cut_log(1)
    assert run.log.read_text() == json.dumps(FIRST) + "\n"


# scores


def test_scores_of_the_model_and_of_the_last_checkpoint(run):
    assert run.scored
    first, *_ = run.read_scores()
    assert first == Score("a", "core", "1", "class", "ok", True, {"dice": 0.9, "hd95_mm": 3.0, "far_ml": 0.1})
    assert (first.dice, first.hd95_mm) == (0.9, 3.0)
    regions = [score for score in run.read_scores() if score.kind == "region"]
    assert [score.case for score in regions] == list(DICE)
    assert regions[0].structure == ("whole", "region", frozenset({"4", "1"}))
    (absent,) = (score for score in run.read_scores() if score.hd95_mm is None and score.in_truth)
    assert (absent.case, absent.name) == ("c", "core")
    assert [score.in_truth for score in run.read_scores() if score.case == "e"] == [False]

    shutil.rmtree(run.scores_of_last)  # not there where the last checkpoint is the chosen one
    assert run.read_scores("last") == run.read_scores()
    make_scores(run.scores_of_last, 0.05)
    assert run.read_scores("last")[0].dice == pytest.approx(0.95)
    assert run.read_scores()[0].dice == pytest.approx(0.9)


def test_a_run_is_scored_when_the_manifest_is_there_and_nothing_failed(run):
    (run.scores / "failed.csv").touch()
    assert not run.scored
    (run.scores / "failed.csv").unlink()
    (run.scores / "manifest.json").unlink()
    assert not run.scored


HEAD = "case,class,value,kind,state,dice,in_truth\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "metrics.csv: got no column case, class, value, state, dice, in_truth, expected the metrics.csv of"),
        (HEAD.replace("dice,", ""), "metrics.csv: got no column dice, expected .*; evaluate again with --overwrite"),
        (f"{HEAD}a,core,1,class,ok,1.5,True\n", "metrics.csv, line 2: got 1.5 as dice"),
        (f"{HEAD}a,core,1,class,ok,-1e308,True\n", r"metrics.csv, line 2: got -1e\+308 as dice"),
        (f"{HEAD}a,core,1,class,ok,nan,True\n", "metrics.csv, line 2: got nan as dice"),
        (f"{HEAD}a,core,1,class,ok,high,True\n", "metrics.csv, line 2: got could not convert string to float: 'high'"),
        (
            f"{HEAD}a,core,1,class,ok,0.5,True\na,core\n",
            "metrics.csv, line 3: got another number of cells than the header has, expected the metrics",
        ),
        (
            f"{HEAD}a,core,1,class,ok,0.5,True,7\n",
            "metrics.csv, line 2: got another number of cells than the header has, expected the metrics",
        ),
    ],
)
def test_a_damaged_table_of_scores_is_named(tmp_path, text, said):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_scores(tmp_path / "metrics.csv")


def test_no_other_module_reads_the_files_of_a_run():
    named = re.compile(
        r'"(result\.json|metrics\.jsonl|splits\.json|env\.json)"|\.(result|splits|log|config)\.(read|open)'
    )
    found = {
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in SOURCE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if named.search(line) and path.name != "folder.py"
    }
    assert not {line for line in found if not line.startswith("jobs/")}  # a job has a log of its own


def test_two_processes_never_train_in_one_folder(tmp_path):
    """The second is told who holds it; a holder that was killed holds nothing."""
    run = RunFolder(tmp_path)
    script = (
        "import sys, time; from pathlib import Path; from semiseg.runs.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).alone():\n    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"another process that trains here \(process {other.pid} on \S+\), expected"):
        run.alone().__enter__()
    half = run.last.with_name(".semiseg-00000000-1-00000000.tmp.safetensors")  # of another machine
    half.parent.mkdir()
    half.touch()
    with pytest.raises(UserError, match="another process"):
        run.alone().__enter__()
    assert half.exists()
    other.kill()
    other.wait()
    other.stdout.close()
    with run.alone(), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        RunFolder(tmp_path).alone().__enter__()
    assert not half.exists()
    with run.alone():
        pass
