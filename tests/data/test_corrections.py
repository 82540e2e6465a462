"""Corrected labels on their way back: which count, which scan they belong to, and what must never be trained on."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.scans import write_nifti

from semiseg.data.corrections import (
    RECORD,
    SHEET,
    correct_splits,
    provenance,
    read_corrections,
    refuse_changed,
    voxel_hash,
    with_corrections,
)
from semiseg.data.dataset import Case, Dataset
from semiseg.data.splits import Splits, make_splits
from semiseg.errors import InputError
from semiseg.manifest import file_hash


@pytest.fixture
def dataset(tmp_path):
    """Six cases with labels, in three groups of two."""
    cases = []
    for index in range(6):
        image = write_nifti(tmp_path / "images" / f"c{index}.nii.gz", np.full((3, 3, 3), index, np.float32))
        label = write_nifti(tmp_path / "labels" / f"c{index}.nii.gz", np.ones((3, 3, 3), np.uint8))
        cases.append(Case(f"c{index}", (image,), label))
    return Dataset(tmp_path, "plain", tuple(cases), classes={"background": 0, "object": 1})


def write_review(folder, cases, sheet="case,status,who\n", changed=()):
    """A review of `cases`, of which those in `changed` have another label by now."""
    record = {"weights": [], "cases": {}}
    for case in cases:
        path = write_nifti(folder / f"001_{case.name}.nii.gz", np.zeros((3, 3, 3), np.uint8))
        images = [file_hash(one) for one in case.images]
        written = {"number": 1, "label": path.name, "voxels": voxel_hash(path), "images": images, "files": [path.name]}
        record["cases"][case.name] = written
        if case.name in changed:
            write_nifti(path, np.eye(3, dtype=np.uint8)[None].repeat(3, 0))
    (folder / RECORD).write_text(json.dumps(record))
    (folder / SHEET).write_text(sheet, encoding="utf-8-sig")
    return folder


def statuses(folder):
    return {one.case: (one.status, one.who) for one in read_corrections(folder)}


def test_what_counts(dataset, tmp_path):
    sheet = "case;look_at;status;who\nc0;x;;\nc1;x;;Anna\nc2;x;Accepted ;Ben\nc3;x;skip;\nc4;x;corrected; Ann\n"
    folder = write_review(tmp_path / "r", dataset.cases[:5], sheet, changed=("c1", "c3", "c4"))
    assert statuses(folder) == {"c1": ("corrected", "Anna"), "c2": ("accepted", "Ben"), "c4": ("corrected", "Ann")}
    (folder / SHEET).unlink()
    assert statuses(folder) == dict.fromkeys(("c1", "c3", "c4"), ("corrected", ""))


def test_a_file_that_was_only_saved_again_is_not_a_correction(dataset, tmp_path):
    folder = write_review(tmp_path / "r", dataset.cases[:1])
    (folder / "001_c0.nii.gz").unlink()
    assert statuses(folder) == {}  # nor is one that was thrown away
    write_nifti(folder / "001_c0.nii.gz", np.zeros((3, 3, 3), np.float64))
    assert statuses(folder) == {}


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        ("case,status,who\nc0,corrected,\n", r"001_c0\.nii\.gz: got the label as it was written, .*or say `accepted`"),
        ("case,status,who\nc0,done,\n", r"review\.csv: got status 'done' of c0, expected corrected, accepted, skip"),
        ("case,stat,who\nc0,,\n", r"review\.csv: got no column status, expected the table of a review; restore the"),
    ],
)
def test_a_table_that_makes_no_sense(dataset, tmp_path, sheet, message):
    with pytest.raises(InputError, match=message):
        read_corrections(write_review(tmp_path / "r", dataset.cases[:1], sheet))


def test_a_table_in_which_a_name_was_kept_from_being_a_formula(dataset, tmp_path):
    """As spreadsheets save it again: the apostrophe stays, and the name is the scan's."""
    named = replace(dataset.cases[0], name="=1+1")
    folder = write_review(tmp_path / "r", [named], "number;case;status;who\r\n1;'=1+1;accepted;'=who\r\n")
    (found,) = read_corrections(folder)
    assert (found.case, found.status, found.who) == ("=1+1", "accepted", "=who")


def test_a_folder_that_is_no_review(tmp_path):
    with pytest.raises(InputError, match=r"review\.json: got .*expected what `semiseg review --out .*writes"):
        read_corrections(tmp_path)


def test_the_scan_is_the_one_that_was_reviewed_whatever_its_name(dataset, tmp_path):
    renamed = replace(dataset.cases[1], name="c0")  # reviewed from a folder where c1's image is called c0
    folder = write_review(tmp_path / "r", [renamed], changed=("c0",))
    found = with_corrections(dataset, [folder])
    assert list(found.corrections) == ["c1"]
    assert found.cases[1].label == folder / "001_c0.nii.gz"
    assert found.cases[0] == dataset.cases[0]
    other = Case("c0", (write_nifti(tmp_path / "other.nii.gz", np.full((3, 3, 3), 99, np.float32)),))
    folder = write_review(tmp_path / "r2", [other], changed=("c0",))
    with pytest.raises(InputError, match=r"not among the 6 given \(its scan .*c0\.nii\.gz is another\)"):
        with_corrections(dataset, [folder])


def test_a_later_folder_wins_and_an_empty_one_is_refused(dataset, tmp_path):
    first, second = (write_review(tmp_path / n, dataset.cases[:1], changed=("c0",)) for n in ("a", "b"))
    assert with_corrections(dataset, [first, second]).corrections["c0"].folder == second
    with pytest.raises(InputError, match=r"--corrected .*c: got no corrected or accepted label, expected at least one"):
        with_corrections(dataset, [first, write_review(tmp_path / "c", dataset.cases[:1])])


def drawn(dataset, **more):
    return make_splits(dataset.cases, labelled="1", val="1", test="1", base=dataset.root, **more)


def test_corrected_scans_come_on_top_of_the_drawn_ones(dataset, tmp_path):
    splits = drawn(dataset)
    case = next(one for one in dataset.cases if one.name == splits.unlabelled[0].name)
    corrected = with_corrections(dataset, [write_review(tmp_path / "r", [case], changed=(case.name,))])
    usable = [one.name for one in dataset.cases]
    made = correct_splits(splits, corrected, usable)
    assert [one.name for one in made.labelled] == [splits.labelled[0].name, case.name]
    assert made.labelled[1].label == tmp_path / "r" / f"001_{case.name}.nii.gz"
    assert [one.name for one in made.unlabelled] == [one.name for one in splits.unlabelled[1:]]
    assert (made.val, made.test) == (splits.val, splits.test)
    made.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json", corrected) == made
    reused = correct_splits(drawn(dataset, reuse_labelled=True), corrected, usable)
    assert case.name in {one.name for one in reused.unlabelled}
    assert all(one.label is None for one in reused.unlabelled)
    rows = provenance(made, corrected)
    assert [row["from"] for row in rows] == ["dataset", "corrected", "dataset"]
    assert (rows[1]["who"], rows[1]["review"]) == ("not stated", str(tmp_path / "r"))
    (tmp_path / "provenance.json").write_text(json.dumps(rows))
    refuse_changed(tmp_path / "provenance.json", rows)
    later = [rows[0], {**rows[1], "hash": "0"}, rows[2]]
    with pytest.raises(InputError, match=rf"001_{case.name}\.nii\.gz: got other labels than the run was begun with"):
        refuse_changed(tmp_path / "provenance.json", later)
    for other in (rows[1:], [*rows, {**rows[0], "case": "t"}]):
        with pytest.raises(InputError, match=r"got splits\.json with other labelled or validation scans .*\.json"):
            refuse_changed(tmp_path / "provenance.json", other)


@pytest.mark.parametrize(
    ("place", "why"), [("test", "of test scans"), ("val", "of validation scans"), ("labelled", "have a label already")]
)
def test_what_must_not_be_trained_on(dataset, tmp_path, place, why):
    splits = drawn(dataset)
    (case,) = getattr(splits, place)
    corrected = with_corrections(dataset, [write_review(tmp_path / "r", [case], changed=(case.name,))])
    with pytest.raises(InputError, match=rf"--corrected: got corrections .*{why}.*{case.name}, expected .*`skip`"):
        correct_splits(splits, corrected, [one.name for one in dataset.cases])


def test_another_scan_of_a_test_patient_and_a_label_on_another_grid(dataset, tmp_path):
    grouped = replace(dataset, cases=tuple(replace(case, group=f"p{k // 2}") for k, case in enumerate(dataset.cases)))
    splits = make_splits(grouped.cases, labelled="1", test="1", base=grouped.root)
    held = {case.name for case in splits.test}
    splits = replace(splits, test=splits.test[:1])
    case = next(one for one in grouped.cases if one.name in held and one.name != splits.test[0].name)
    corrected = with_corrections(grouped, [write_review(tmp_path / "r", [case], changed=(case.name,))])
    names = [one.name for one in dataset.cases]
    with pytest.raises(InputError, match="of test scans"):
        correct_splits(splits, corrected, names)
    with pytest.raises(InputError, match=r"got a label that cannot be used with its scan, expected one on its grid"):
        correct_splits(splits, corrected, [name for name in names if name != case.name])
