"""A round of review: what is written for people, what is never overwritten, and training on what comes back."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from support.command_line import TINY, VALUE, rows_of, semiseg, train_run_on, write_study

from semiseg.data.corrections import read_corrections, read_sheet
from semiseg.rank.correlation import read_ranking


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("review")
    study = write_study(root / "study")
    return study, train_run_on(study, root / "run")


@pytest.fixture
def study(made):
    return made[0]


@pytest.fixture
def run(made):
    return made[1]


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    monkeypatch.setenv("SEMISEG_WORKERS", "1")
    monkeypatch.setenv("SEMISEG_DEVICE", "cpu")


@pytest.fixture
def reviewed(study, run, tmp_path):
    code, text, err = semiseg("review", run, study, "--out", tmp_path / "r", "--count", "2", "--quiet")
    assert code == 0, err
    assert "4 labelled, validation or test scans of the run left out" in text
    return tmp_path / "r"


def known(run):
    (split,) = json.loads((run / "splits.json").read_text())
    return {name for part in ("train", "val", "test") for name in split[part]}


def test_the_worst_come_first_on_the_grid_of_their_scans(reviewed, study, run):
    rows = rows_of(reviewed / "review.csv")
    ranked = [row["case"] for row in rows_of(reviewed / "ranking" / "ranking.csv") if row["class"] == "mean"]
    assert [row["case"] for row in rows] == ranked[:2]
    assert not known(run) & set(ranked)
    for number, row in enumerate(rows, start=1):
        assert row["label"] == f"00{number}_{row['case']}.nii.gz"
        assert (row["status"], row["who"]) == ("", "")
        source = study / "images" / f"{row['case']}.nii.gz"
        image = reviewed / row["label"].replace(".nii.gz", "_image.nii.gz")
        assert image.read_bytes() == source.read_bytes()
        uncertainty = nib.load(str(image).replace("_image", "_uncertainty"))
        assert uncertainty.get_data_dtype() == np.uint8
        for other in (nib.load(reviewed / row["label"]), uncertainty):
            assert other.shape == nib.load(source).shape
            np.testing.assert_array_equal(other.affine, nib.load(source).affine)
        bits = uncertainty.get_fdata()
        assert 0 <= bits.min() < bits.max() <= 1.0001  # two classes
        assert set(np.unique(np.asarray(nib.load(reviewed / row["label"]).dataobj))) <= {0, VALUE}
    assert {"labels.txt", "labels.ctbl", "labels.json", "README.txt"} <= {path.name for path in reviewed.iterdir()}
    assert f"--corrected {reviewed}" in (reviewed / "README.txt").read_text()


def test_the_label_is_what_predict_writes(reviewed, study, run, tmp_path):
    (row, *_) = rows_of(reviewed / "review.csv")
    code, _, err = semiseg("predict", run, study / "images" / f"{row['case']}.nii.gz", "--out", tmp_path / "p")
    assert code == 0, err
    assert (tmp_path / "p" / f"{row['case']}.nii.gz").read_bytes() == (reviewed / row["label"]).read_bytes()


def edit(folder, row, change):
    path = folder / row["label"]
    label = nib.load(path)
    array = np.asarray(label.dataobj).copy()
    change(array)
    nib.save(nib.Nifti1Image(array, label.affine, label.header), path)


def swap(array):
    array[:] = np.where(array == 0, VALUE, 0)


def test_work_is_never_overwritten(reviewed, study, run):
    first, _ = rows_of(reviewed / "review.csv")
    edit(reviewed, first, swap)
    table = (reviewed / "review.csv").read_text().replace(",,,\n", ",,Anna,\n", 1)
    (reviewed / "review.csv").write_text(table)
    before = {path.name: path.read_bytes() for path in reviewed.glob("0*")}
    again = ("review", run, study, "--out", reviewed, "--count", "3", "--quiet")
    code, text, err = semiseg(*again)
    assert code == 0, err
    assert "1 scans written, 2 already there" in text
    assert {name: (reviewed / name).read_bytes() for name in before} == before
    rows = rows_of(reviewed / "review.csv")
    assert [row["number"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["who"] == "Anna"
    code, _, err = semiseg(*again, "--overwrite")
    assert code == 2
    assert f"got --overwrite, but {first['label']} were corrected or have a status" in err
    edit(reviewed, first, swap)
    code, _, err = semiseg(*again, "--overwrite")
    assert code == 0, err
    assert [row["who"] for row in rows_of(reviewed / "review.csv")] == ["", "", ""]
    shutil.move(reviewed / "review.json", reviewed / "lost.json")
    code, _, err = semiseg(*again)
    assert code == 2
    assert "expected a review or nothing" in err


def test_a_ranking_that_is_there(reviewed, study, run, tmp_path):
    words = ("review", run, study, "--quiet", "--ranking")
    code, _, err = semiseg(*words, reviewed / "ranking", "--out", tmp_path / "other", "--count", "1")
    assert code == 0, err
    assert not (tmp_path / "other" / "ranking").exists()
    assert rows_of(tmp_path / "other" / "review.csv") == rows_of(reviewed / "review.csv")[:1]
    manifest = json.loads((reviewed / "ranking" / "manifest.json").read_text())
    (reviewed / "ranking" / "manifest.json").write_text(json.dumps({**manifest, "weights": ["0"]}))
    code, _, err = semiseg(*words, reviewed / "ranking", "--out", tmp_path / "third")
    assert code == 3
    assert "got a ranking by other models, expected one by these" in err
    code, _, err = semiseg(*words, tmp_path, "--out", tmp_path / "third")
    assert code == 3
    assert "expected what `semiseg rank` writes; check --ranking" in err


def test_only_scans_that_the_run_knows(run, study, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(known(run)))
    code, _, err = semiseg("review", run, study, "--cases", tmp_path / "names.txt", "--out", tmp_path / "r")
    assert code == 3
    assert "got only scans that the run has labels of, or tests on" in err


def test_the_next_round_trains_on_what_was_corrected(reviewed, study, run, tmp_path):
    first, _ = rows_of(reviewed / "review.csv")
    edit(reviewed, first, swap)
    words = ("train", study, "--method", "equireg", "--labelled", "2", "--val", "1", "--test", "1", "--quiet")
    words = (*words, *TINY, "--corrected", reviewed, "--score", "--out", tmp_path / "next")
    code, _, err = semiseg(*words)
    assert code == 0, err
    before, after = (json.loads((folder / "splits.json").read_text())[0] for folder in (run, tmp_path / "next"))
    assert after["train"] == [*before["train"], first["case"]]
    assert first["case"] in before["unlabelled"]
    assert after["unlabelled"] == [name for name in before["unlabelled"] if name != first["case"]]
    assert (after["val"], after["test"]) == (before["val"], before["test"])
    result = json.loads((tmp_path / "next" / "result.json").read_text())
    assert (result["labels_used"], result["corrected"]) == ("3 + 1 labelled", 1)
    rows = json.loads((tmp_path / "next" / "provenance.json").read_text())
    assert {row["case"]: row["from"] for row in rows}[first["case"]] == "corrected"
    (tmp_path / "next" / "result.json").unlink()  # as if it had not been finished
    edit(reviewed, first, lambda array: array.fill(0))
    code, _, err = semiseg(*words, "--resume")
    assert code == 3
    assert f"{first['label']}: got other labels than the run was begun with" in err
    edit(reviewed, first, lambda array: array.fill(3))
    code, _, err = semiseg(*words[:-1], tmp_path / "another")
    assert code == 3
    assert f"--corrected {reviewed / first['label']}: got a label that cannot be used with its scan" in err


@pytest.mark.parametrize(
    "name", ["../precious.nii.gz", "/{root}/precious.nii.gz", "..", "", "a/b.nii.gz", "a\\b", "a\nb"]
)
@pytest.mark.parametrize("key", ["files", "label"])
def test_names_in_a_record_that_lead_out_of_its_folder_touch_nothing(reviewed, study, run, tmp_path, name, key):
    """A folder that somebody sends is enough: `--overwrite` removed whatever its record named."""
    precious = tmp_path / "precious.nii.gz"
    precious.write_text("mine")
    record = json.loads((reviewed / "review.json").read_text())
    first = next(iter(record["cases"].values()))
    evil = name.format(root=str(tmp_path).lstrip("/"))
    first[key] = [evil] if key == "files" else evil
    (reviewed / "review.json").write_text(json.dumps(record))
    for words in (("review", run, study, "--overwrite", "--out", reviewed), ("train", study, "--corrected", reviewed)):
        code, _, err = semiseg(*words, *(("--out", tmp_path / "again") if words[0] == "train" else ()))
        assert code == 3, err
        assert "review.json: got" in err
        assert "expected what `semiseg review --out" in err
    assert precious.read_text() == "mine"


def cells_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [cell for row in csv.reader(file) for cell in row]


def test_names_that_begin_like_formulas_are_none_in_any_table_and_come_back_whole(run, study, tmp_path):
    names = ["=1+1", "@x", "-y", "'=z"]
    (tmp_path / "scans").mkdir()
    for name in names:
        shutil.copy(study / "images" / "case5.nii.gz", tmp_path / "scans" / f"{name}.nii.gz")
    (tmp_path / "scans" / "+broken.nii.gz").write_bytes(b"")
    out = tmp_path / "r"
    code, _, err = semiseg("review", run, tmp_path / "scans", "--out", out, "--quiet")
    assert code in (0, 4), err
    code, _, err = semiseg("predict", run, tmp_path / "scans", "--out", tmp_path / "p", "--quiet")
    assert code == 4, err
    tables = [
        out / "review.csv",
        out / "ranking" / "ranking.csv",
        out / "ranking" / "failed.csv",
        tmp_path / "p/failed.csv",
    ]
    for table in tables:
        assert not [cell for cell in cells_of(table) if cell[:1] in {*"=@+-\t\r"} and not is_number(cell)]
    assert "'+broken" in cells_of(tables[-1])
    assert {row["case"] for row in read_ranking(tables[1], ("case",))} == {*names}
    assert {*read_sheet(out)} == {*names}
    code, _, err = semiseg("review", run, tmp_path / "scans", "--out", out, "--quiet")  # all of them are there
    assert {*read_sheet(out)} == {*names}
    path = out / "review.csv"
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()).replace(",,,\n", ",accepted,me,\n"))
    assert {one.case for one in read_corrections(out)} == {*names}


def is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True
