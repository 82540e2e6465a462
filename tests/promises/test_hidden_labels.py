"""Training opens no label of a test scan, no hidden one, and nothing that was derived from one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from support.bench_grid import write_balls
from support.command_line import TINY, semiseg
from support.runs import PLAN
from support.scans import ball, write_nifti
from support.watched import heard, needs_inotify, opened_in

from semiseg.bench.grid import begin, bench_settings
from semiseg.data.dataset import Case
from semiseg.data.facts import case_facts, source_hash
from semiseg.data.splits import SplitNames
from semiseg.errors import InputError
from semiseg.experiments.experiment import checked_splits, plan_dataset
from semiseg.experiments.run_settings import DataConfig, RunSettings
from semiseg.files import cache_folder
from semiseg.runs.checkpoint import read_checkpoint

pytestmark = [pytest.mark.usefixtures("one_core"), needs_inotify]

PARTS = ("--labelled", "2", "--val", "1", "--test", "3")
PLANNED = ("--dims", "2", *TINY[6:])


def train(root: Path, out: Path, *more: str) -> SplitNames:
    code, _, err = semiseg("train", root, "--out", out, "--method", "equireg", *PARTS, *TINY, *more)
    assert code == 0, err
    return SplitNames.load(out / "splits.json")


def label_of(root: Path, name: str) -> Path:
    return root / "labels" / f"{name}.nii.gz"


@pytest.fixture
def root(tmp_path):
    return write_balls(tmp_path / "balls", labelled=10)


def poison(path: Path, number: int) -> None:
    """Something else in the place of a label file; `number` chooses what."""
    kind = number % 6
    if kind == 0:
        path.write_bytes(b"no label at all")
    elif kind == 1:
        path.write_bytes(path.read_bytes()[:50])
    elif kind == 2:
        path.write_bytes(b"")
    elif kind == 3:
        path.unlink()
        path.symlink_to("nowhere.nii.gz")  # its name is there, its content is not
    elif kind == 4:
        write_nifti(path, np.full((5, 5, 5), 7, np.uint8))  # another grid, and a value that is no class
    else:
        write_nifti(path, 1 - ball((12, 14, 10), 3)[1])  # as good a label as any, and wrong


def bits(run: Path) -> dict[str, bytes]:
    """Weights, averages and moments of the last checkpoint, and what decided them."""
    tensors = read_checkpoint(run / "checkpoints" / "last.safetensors").tensors
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()} | {
        name: (run / name).read_bytes() for name in ("splits.json", "plan.json", "model/model.safetensors")
    }


def test_the_same_bits_whatever_is_in_the_label_files_of_test_and_hidden_scans(root, tmp_path):
    names = train(root, tmp_path / "run")
    hidden = sorted({*names.unlabelled, *names.test} - {"case10", "case11"})  # these never had a label
    assert len(hidden) == 7
    for number, name in enumerate(hidden):
        poison(label_of(root, name), number)
    assert train(root, tmp_path / "again") == names
    assert bits(tmp_path / "run") == bits(tmp_path / "again")
    poison(label_of(root, names.train[0]), 5)  # but a visible label does decide
    train(root, tmp_path / "other")
    assert bits(tmp_path / "run") != bits(tmp_path / "other")


def derived_from(labels: list[Path], elsewhere: Path) -> set[Path]:
    """What the cache holds of these label files: facts, hashes, prepared arrays."""
    known = cache_folder()
    with patch.dict(os.environ, SEMISEG_CACHE=str(elsewhere)):
        for path in labels:
            case_facts(Case("a", (), path))
            source_hash(path)
    facts = {known / "facts" / path.name for path in (elsewhere / "facts").iterdir()}
    prepared = {
        file
        for folder in (known / "prepared" / "labels").iterdir()
        if Path(json.loads((folder / "meta.json").read_text())["source"]) in labels
        for file in folder.iterdir()
    }
    assert len(facts) == 2 * len(labels)
    assert len(prepared) == 3 * len(labels)
    assert all(path.is_file() for path in facts | prepared)
    return facts | prepared


def test_no_process_opens_one_nor_what_the_cache_knows_of_it(root, tmp_path):
    for words in (("check", root), ("prepare", root, *PLANNED)):  # both may open every label
        code, _, err = semiseg(*words)
        assert code == 0, err
    hidden = [label_of(root, f"case{index}") for index in range(10)]
    derived = derived_from(hidden, tmp_path / "elsewhere")
    folders = {path.parent for path in derived}
    with opened_in(root / "labels", *folders) as opened, heard("open") as events:
        names = train(root, tmp_path / "run")
    told = {Path(os.fsdecode(arguments[0])).absolute() for _, arguments in events if not isinstance(arguments[0], int)}
    assert opened <= told  # nothing here reads behind the interpreter's back
    visible = {label_of(root, name) for name in (*names.train, *names.val)}
    assert {path for path in told if path.parent == root / "labels"} <= visible
    assert not told & derived_from([path for path in hidden if path not in visible], tmp_path / "of hidden ones")
    assert told & derived_from([*visible], tmp_path / "of visible ones")  # so the watch sees what there is to see


def test_nor_where_nothing_is_known_yet(root, tmp_path):
    with opened_in(root / "labels") as opened:
        names = train(root, tmp_path / "run")
    assert opened == {label_of(root, name) for name in (*names.train, *names.val)}
    (tmp_path / "run" / "result.json").unlink()
    with opened_in(root / "labels") as opened:
        assert train(root, tmp_path / "run", "--resume") == names
    assert opened == set()  # remembered


@pytest.mark.parametrize("command", ["plan", "prepare"])
def test_nor_do_plan_and_prepare(root, tmp_path, command):
    more = ("--out", tmp_path / "plan.json") if command == "plan" else ()
    with opened_in(root / "labels") as opened:
        code, _, err = semiseg(command, root, *PARTS, *PLANNED, *more)
    assert code == 0, err
    assert len(opened) == 3


def test_nor_does_a_bench_before_its_runs(root, tmp_path):
    values = {"data": {"path": str(root), "val": "1", "test": "3"}, "dims": "2", "plan": PLAN}
    settings = bench_settings(values, labelled=["1", "2"])
    with opened_in(root / "labels") as opened:
        begin(settings, tmp_path / "bench", workers=1)
    assert len(opened) == 3  # draws nest


FREESURFER = np.array([0, 2, 3, 41, 42, 10, 49, 17, 53], np.int16)
QUICKNAT = np.arange(28, dtype=np.int16)


@pytest.mark.parametrize("more", [{"classes": "roam28"}, {"layout": "malc"}], ids=["--classes", "layout"])
def test_nor_does_the_numbering_of_a_table_depend_on_one(tmp_path, more):
    """The values of a label say which numbering a dataset has; of a hidden one they say nothing."""
    for index in range(5):
        write_nifti(tmp_path / "images" / f"case{index}.nii.gz", ball((12, 14, 10), index)[0])
        values = np.resize(FREESURFER, (12, 14, 10))
        write_nifti(tmp_path / "labels" / f"case{index}.nii.gz", values)
    data = DataConfig(path=str(tmp_path), labelled="1", test="1", **more)
    labelled = checked_splits(data, 1)[1].labelled[0].name
    for index in range(5):
        if f"case{index}" != labelled:
            write_nifti(tmp_path / "labels" / f"case{index}.nii.gz", np.resize(QUICKNAT, (12, 14, 10)))
    with opened_in(tmp_path / "labels") as opened:
        plan = plan_dataset(RunSettings(data=data, dims="2", plan=PLAN), 1, announce=False)
    assert opened == set()  # the visible label is remembered
    assert plan.classes["left hippocampus"] == 17
    assert plan.relabel[1003] == 3
    assert checked_splits(data, 1)[0].notes[-1] == "classes roam28, FreeSurfer numbering"


def test_a_label_that_cannot_be_used_is_replaced_by_the_next_of_the_draw(root):
    """As a scan without that label would be; what comes before and after it in the draw stays."""
    data = DataConfig(path=str(root), labelled="2", val="1", test="3")
    _, before, _ = checked_splits(data, 1)
    _, wider, _ = checked_splits(data.model_copy(update={"labelled": "3"}), 1)
    first, second = (case.name for case in before.labelled)
    (third,) = {case.name for case in wider.labelled} - {first, second}
    poison(label_of(root, first), 0)
    _, after, report = checked_splits(data, 1)
    assert {case.name for case in after.labelled} == {second, third}
    assert (after.val, after.test) == (before.val, before.test)
    assert first not in {case.name for case in after.unlabelled}
    assert any(line.endswith("(case left out)") and f"{first}.nii.gz" in line for line in report.lines())
    poison(label_of(root, after.val[0].name), 2)
    _, moved, _ = checked_splits(data, 1)
    assert moved.val != before.val
    assert after.val[0].name not in {case.name for part in (moved.labelled, moved.test) for case in part}


def test_strictly_such_a_label_stops_training(root):
    data = DataConfig(path=str(root), labelled="2", strict=True)
    poison(label_of(root, checked_splits(data, 1)[1].labelled[0].name), 0)
    with pytest.raises(InputError, match="training cannot start; see the lines above"):
        checked_splits(data, 1)
    hidden = DataConfig(path=str(root), labelled="2", strict=True, draw=3)
    poisoned = {path.name for path in (root / "labels").iterdir() if path.stat().st_size < 20}
    assert not poisoned & {f"{case.name}.nii.gz" for case in checked_splits(hidden, 1)[1].labelled}


@pytest.mark.slow
def test_nor_do_worker_processes(root, tmp_path):
    """The command as it is, with two workers for every step that has any; the kernel tells of all processes."""
    environment = {**os.environ, "SEMISEG_WORKERS": "2", "SEMISEG_CACHE": str(tmp_path / "cache")}
    words = ["train", str(root), "--out", str(tmp_path / "run"), "--method", "roam", *PARTS, *TINY]
    for index in range(10, 30):  # enough for `check` to share them out
        image, label = ball((12, 14, 10), index)
        write_nifti(root / "images" / f"case{index}.nii.gz", image)
        write_nifti(label_of(root, f"case{index}"), label)
    with opened_in(root / "labels") as opened, opened_in(root / "images") as images:
        done = subprocess.run(
            [sys.executable, "-m", "semiseg", *words], env=environment, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    names = SplitNames.load(tmp_path / "run" / "splits.json")
    assert opened == {label_of(root, name) for name in (*names.train, *names.val)}
    assert len(images) == 30  # test scans too: their images are compared with those of training
