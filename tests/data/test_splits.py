"""Splits: draws nest, groups stay together, hidden labels are gone, and what a mistake says."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import equireg as oracle

from semiseg.data.dataset import Case, Dataset
from semiseg.data.splits import Splits, make_splits
from semiseg.errors import InputError, UserError

HERE = Path("nowhere")


def case(name: str, **kwargs: Any) -> Case:
    return Case(name, (Path(f"{name}.nii.gz"),), Path(f"{name}_label.nii.gz"), **kwargs)


def bare(name: str, **kwargs: Any) -> Case:
    return replace(case(name, **kwargs), label=None)


CASES = [case(f"case{index:02d}") for index in range(30)]
PATIENTS = [case(f"scan{index:02d}", group=f"patient{index // 3}") for index in range(30)]


def draw(cases: list[Case] = CASES, **kwargs: Any) -> Splits:
    return make_splits(cases, base=kwargs.pop("base", HERE), **kwargs)


def names(cases: tuple[Case, ...]) -> set[str]:
    return {case.name for case in cases}


def test_default_takes_every_label() -> None:
    splits = draw([*CASES, bare("x"), case("y", split="unlabelled")])
    assert names(splits.labelled) == names(tuple(CASES))
    assert names(splits.unlabelled) == {"x", "y"}
    assert splits.val == splits.test == splits.notes == ()
    assert all(case.label is None for case in splits.unlabelled)


def test_counts_fill_all_lists_and_hide_labels() -> None:
    splits = draw(labelled="4", val="3", test="10")
    sizes = [len(part) for part in (splits.labelled, splits.unlabelled, splits.val, splits.test)]
    assert sizes == [4, 13, 3, 10]
    assert len(names(splits.labelled + splits.unlabelled + splits.val + splits.test)) == 30
    assert all(case.label is None for case in splits.unlabelled)
    assert all(case.label is not None for case in splits.labelled + splits.val + splits.test)


@pytest.mark.parametrize(
    ("spec", "count"),
    [("1", 1), ("1.0", 30), ("100%", 30), ("0.1", 3), ("10%", 3), (".11", 4), ("0.5%", 1), ("30", 30)],
)
def test_counts_and_fractions(spec: str, count: int) -> None:
    assert len(draw(labelled=spec).labelled) == count


def test_fraction_of_labelled_is_of_what_test_and_val_leave() -> None:
    splits = draw(test="0.2", val="10%", labelled="1.0")
    assert [len(part) for part in (splits.test, splits.val, splits.labelled)] == [6, 3, 21]


def test_draws_nest() -> None:
    draws = [names(draw(labelled=str(count), test="10", draw=3).labelled) for count in range(1, 21)]
    for smaller, larger in itertools.pairwise(draws):
        assert smaller < larger


def test_seeds_change_one_thing_each() -> None:
    first = draw(labelled="4", test="10", val="4")
    other_draw = draw(labelled="4", test="10", val="4", draw=1)
    assert names(other_draw.test) == names(first.test)
    assert names(other_draw.val) == names(first.val)
    assert names(other_draw.labelled) != names(first.labelled)
    assert names(draw(test="10", split_seed=1).test) != names(first.test)
    assert first == draw(CASES[::1], labelled="4", test="10", val="4")
    assert names(draw(CASES[::-1], labelled="4", test="10", val="4").labelled) == names(first.labelled)


def test_known_draw() -> None:
    """Draws must never change between versions: results would no longer be comparable."""
    splits = draw(labelled="3", test="3", val="2")
    assert names(splits.test) == {"case13", "case18", "case21"}
    assert names(splits.val) == {"case03", "case14"}
    assert names(splits.labelled) == {"case22", "case27", "case28"}


@given(st.integers(0, 29))
@settings(max_examples=30, deadline=None)
def test_one_dropped_case_reshuffles_nothing(index: int) -> None:
    whole = draw(labelled="5", test="10", val="5")
    dropped = CASES[index]
    less = draw([case for case in CASES if case != dropped], labelled="5", test="10", val="5")
    for before, after in ((whole.test, less.test), (whole.val, less.val), (whole.labelled, less.labelled)):
        assert len(names(before) - names(after)) <= 1
    if dropped in whole.labelled + whole.test + whole.val:
        return
    unlabelled = names(whole.unlabelled) - {dropped.name}
    assert less.test == whole.test
    assert less.val == whole.val
    assert less.labelled == whole.labelled
    assert names(less.unlabelled) == unlabelled


@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 2), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_groups_stay_together(test: int, val: int, labelled: int, seed: int) -> None:
    extra = [bare(f"extra{index}", group=f"patient{index}") for index in range(10)]
    splits = draw(PATIENTS + extra, test=str(test), val=str(val), labelled=str(labelled), split_seed=seed, draw=seed)
    train = splits.labelled + splits.unlabelled
    groups = [{case.group for case in part} for part in (train, splits.val, splits.test)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10
    assert len(splits.test) == 3 * test
    assert len(splits.val) == 3 * val
    assert len(splits.labelled) == 3 * labelled
    assert len({case.group for case in splits.labelled}) == labelled
    assert all(case.label for case in splits.test + splits.val)
    assert bool(splits.notes) == bool(test + val)


def test_unused_scans_are_named() -> None:
    (note,) = draw([case("a", group="g", split="test"), bare("b", group="g"), case("c")]).notes
    assert note == "1 unlabelled scan(s) of validation or test groups are not used: b"


def test_the_datasets_own_splits_are_kept() -> None:
    own = [
        case("t", split="test"),
        bare("t2", split="test"),
        case("v", split="val"),
        bare("u", split="unlabelled"),
    ]
    trained = [case(f"train{index}", split="train") for index in range(5)]
    splits = draw([*CASES[:4], *own, *trained], test="2", val="2", labelled="100%")
    assert {"t", "t2"} < names(splits.test)
    assert len(splits.test) == 4
    assert "v" in names(splits.val)
    assert len(splits.val) == 3
    assert names(splits.labelled) == {case.name for case in trained}
    assert names(splits.unlabelled) == {"u"}


def test_files_of_names(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("case03\n\n  case05 \r\nx\n")
    (tmp_path / "four.txt").write_text("\ufeffcase00\ncase01\n")
    cases = [*CASES, bare("x")]
    splits = draw(cases, test=str(tmp_path / "test.txt"), labelled="four.txt", val="5", base=tmp_path)
    assert names(splits.test) == {"case03", "case05", "x"}
    assert names(splits.labelled) == {"case00", "case01"} - names(splits.val)
    assert len(splits.val) == 5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"test": "31"}, "--test: got '31' (31 groups), expected at most 30, the groups with labels"),
        ({"test": "20", "val": "11"}, "--val: got '11' (11 groups), expected at most 10"),
        ({"test": "20", "labelled": "11"}, "--labelled: got '11' (11 groups), expected at most 10"),
        (
            {"test": "20", "val": "10"},
            "--labelled: got no case with a label for training (30 cases are held out)",
        ),
        ({"labelled": "0"}, "--labelled: got '0', expected at least one labelled case"),
        ({"labelled": "0.0"}, "--labelled: got '0.0', expected at least one labelled case"),
        ({"labelled": "1.5"}, "--labelled: got '1.5', expected a fraction up to 1.0 or 100%"),
        ({"labelled": "120%"}, "--labelled: got '120%', expected a fraction up to 1.0 or 100%"),
        (
            {"val": "-1"},
            "--val: got '-1', expected a count (4), a fraction (0.1 or 10%) or a file of case names",
        ),
        ({"labelled": "none.txt"}, "--labelled: got 'none.txt', expected a count"),
        ({"labelled": "x" * 300}, "--labelled: got 'xxx"),  # longer than any name of a file
        ({"labelled": "x\0"}, r"--labelled: got 'x\x00', expected a count"),
        ({"labelled": "9" * 5000}, "--labelled: got '999"),  # more digits than Python takes for a number
        ({"test": "0." + "1" * 5000}, "--test: got '0.111"),
        ({"val": "9" * 5000 + "%"}, "--val: got '999"),
    ],
)
def test_mistakes_in_counts(kwargs: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        draw(**kwargs)


@pytest.mark.parametrize(
    ("text", "flag", "message"),
    [
        ("case3", "test", "got case 'case3', expected one of the 33 cases; did you mean 'case"),
        (
            "\n \n",
            "labelled",
            "names.txt: got no case name, expected some, one a line; write them, or leave --labelled",
        ),
        ("", "test", "names.txt: got no case name"),
        ("case00\ncase00", "val", "got case 'case00' twice, expected it once"),
        (
            "x",
            "labelled",
            "--labelled: got case 'x', expected cases with a label that are not validation, test",
        ),
        ("v", "labelled", "--labelled: got case 'v', expected cases with a label"),
        ("x", "val", "--val: got case 'x' without a label, expected a labelled one"),
        ("t", "test", "--test: got case 't', which the dataset puts in 'train'"),
        ("v", "test", "group 'v': got cases in test and in val, expected one split"),
    ],
)
def test_mistakes_in_files_of_names(tmp_path: Path, text: str, flag: str, message: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    cases = [*CASES, bare("x"), case("v", split="val"), case("t", split="train")]
    with pytest.raises(InputError, match=re.escape(message)):
        draw(cases, base=tmp_path, **{flag: "names.txt"})


def test_parted_groups_are_refused(tmp_path: Path) -> None:
    cases = [case("a", group="g", split="train"), case("b", group="g", split="test"), case("c")]
    with pytest.raises(InputError, match="group 'g': got cases in train and in test, expected one split"):
        draw(cases)
    (tmp_path / "test.txt").write_text("b")
    cases[1] = replace(cases[1], split=None)
    with pytest.raises(InputError, match="group 'g': got cases in train and in test"):
        draw(cases, test="test.txt", base=tmp_path)


def test_saved_and_loaded(tmp_path: Path) -> None:
    splits = draw(labelled="4", val="3", test="10", split_seed=5, draw=6)
    splits.save(tmp_path / "splits.json")
    (written,) = json.loads((tmp_path / "splits.json").read_text())
    assert list(written) == ["train", "val", "unlabelled", "test", "split_seed", "draw"]
    assert written["train"] == [case.name for case in splits.labelled]
    dataset = Dataset(HERE, "plain", tuple(CASES))
    assert Splits.load(tmp_path / "splits.json", dataset) == splits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "got Expecting value"),
        ("[]", "expected a list with one split"),
        ('[{"train": ["case0"]}]', "got case 'case0', expected one of the 30 cases; did you mean 'case"),
        ('[{"train": ["case00"], "val": ["case00"]}]', "got case 'case00' twice"),
    ],
)
def test_mistakes_in_a_splits_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        Splits.load(tmp_path / "splits.json", Dataset(HERE, "plain", tuple(CASES)))


def test_a_part_of_the_unlabelled_groups_nests_and_leaves_all_else() -> None:
    whole = draw(PATIENTS, labelled="2", val="1", test="1")
    parts = [draw(PATIENTS, labelled="2", val="1", test="1", unlabelled_part=str(count)) for count in range(7)]
    for count, part in enumerate(parts):
        assert len(part.unlabelled) == 3 * count
        assert len({case.group for case in part.unlabelled}) == count
        assert (part.labelled, part.val, part.test) == (whole.labelled, whole.val, whole.test)
    for smaller, larger in itertools.pairwise(parts):
        assert names(smaller.unlabelled) < names(larger.unlabelled)
    assert parts[6].unlabelled == whole.unlabelled
    for spec, count in (("50%", 3), ("0.1", 1), ("100%", 6), ("0%", 0)):
        assert (
            draw(PATIENTS, labelled="2", val="1", test="1", unlabelled_part=spec).unlabelled == parts[count].unlabelled
        )
    others = [names(draw(labelled="2", unlabelled_part="10", draw=number).unlabelled) for number in range(3)]
    assert len(set(map(frozenset, others))) == 3


def test_labelled_cases_without_their_labels_may_be_unlabelled_too(tmp_path: Path) -> None:
    plain = draw(labelled="4", val="3", test="10")
    splits = draw(labelled="4", val="3", test="10", unlabelled_part="2", reuse_labelled=True)
    assert splits.labelled == plain.labelled
    assert names(splits.unlabelled) - names(splits.labelled) < names(plain.unlabelled)
    assert len(splits.unlabelled) == 6
    assert names(splits.labelled) < names(splits.unlabelled)
    assert all(case.label is None for case in splits.unlabelled)
    assert all(case.label is not None for case in splits.labelled)
    assert len(splits.not_test) == len({case.name for case in splits.not_test}) == 9
    assert {case.name for case in splits.not_test if case.label} == names(splits.labelled + splits.val)
    splits.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json", Dataset(HERE, "plain", tuple(CASES))) == splits
    alone = draw(reuse_labelled=True)
    assert names(alone.unlabelled) == names(alone.labelled) == names(tuple(CASES))


def test_unlabelled_patients_are_the_last_of_the_shuffle_that_labels_the_first() -> None:
    """268 patients, as in the thesis: 10 % labels are 27, half of all are 134, however many are labelled."""
    patients = [case(f"patient{index:03d}") for index in range(268)]
    shuffled: list[str] = []
    for count in range(1, 269):
        (new,) = names(draw(patients, labelled=str(count)).labelled) - {*shuffled}
        shuffled.append(new)
    for labelled, unlabelled in itertools.product((1, 5, 10, 60, 100), (0, 1, 33, 50, 95, 100)):
        splits = draw(patients, labelled=f"{labelled}%", unlabelled_part=f"{unlabelled}%", unlabelled_of="all")
        first, last = oracle.cut(shuffled, labelled, unlabelled)
        assert names(splits.labelled) == {*first}
        assert names(splits.unlabelled) == {*last}
        assert all(case.label is None for case in splits.unlabelled)
    sizes = [(len(part.labelled), len(part.unlabelled)) for part in (
        draw(patients, labelled=spec, unlabelled_part="50%", unlabelled_of="all") for spec in ("10%", "100%", "3")
    )]  # fmt: skip
    assert sizes == [(27, 134), (268, 134), (3, 134)]
    assert len(draw(patients, labelled="10%", unlabelled_of="all").unlabelled) == 268
    assert len(draw(patients, labelled="10%", unlabelled_part="7", unlabelled_of="all").unlabelled) == 7
    assert len(draw(patients, labelled="10%", unlabelled_part="50%").unlabelled) == 121  # half of the rest, rounded up


def test_parts_of_all_keep_groups_whole_and_leave_held_out_ones() -> None:
    splits = draw(
        [*PATIENTS, bare("new", group="new")],
        labelled="2",
        val="1",
        test="1",
        unlabelled_part="90%",
        unlabelled_of="all",
    )
    groups = {one.group for one in splits.unlabelled}
    assert len(groups) == 8  # 90 % of the nine that are neither validation nor test, rounded down
    assert len(splits.unlabelled) == sum(one.group in groups for one in [*PATIENTS, bare("new", group="new")])
    assert not groups & {one.group for one in splits.val + splits.test}
    with pytest.raises(UserError, match=r"data\.reuse_labelled: got true with data\.unlabelled_of all.*; leave it out"):
        draw(labelled="2", reuse_labelled=True, unlabelled_of="all")
    with pytest.raises(
        UserError, match=r"data\.unlabelled_part: got '31' \(31 groups\), expected at most 30, the training"
    ):
        draw(labelled="2", unlabelled_part="31", unlabelled_of="all")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("31", "data.unlabelled_part: got '31' (31 groups), expected at most 26, the groups without labels; ask for"),
        ("1.5", "data.unlabelled_part: got '1.5', expected a fraction up to 1.0 or 100%"),
        ("few.txt", "data.unlabelled_part: got 'few.txt', expected a count (4) or a fraction (0.1 or 10%)"),
    ],
)
def test_mistakes_in_the_unlabelled_part(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        draw(labelled="4", unlabelled_part=spec)


@pytest.mark.parametrize(("cases", "folds"), [(CASES, 5), (CASES, 4), (CASES, 30), (PATIENTS, 3)])
def test_folds_are_disjoint_and_cover_everything(cases: list[Case], folds: int) -> None:
    extra = [bare("x"), case("y", split="unlabelled"), case("z", split="train"), case("t", split="test")]
    parts = [draw([*cases, *extra], fold=f"{fold}/{folds}", split_seed=7) for fold in range(1, folds + 1)]
    tests = [names(part.test) - {"t"} for part in parts]
    assert sum(map(len, tests)) == len(set.union(*tests)) == 30
    groups = [len({case.group_name for case in part.test} - {"t"}) for part in parts]
    assert max(groups) - min(groups) <= 1
    for part, following in zip(parts, tests[1:] + tests[:1], strict=True):
        assert names(part.val) == following
        assert names(part.labelled) == names(tuple(cases)) - names(part.test) - names(part.val) | {"z"}
        assert names(part.unlabelled) == {"x", "y"}


def test_folds_of_twenty_slices() -> None:
    slices = [case(f"slice_{index:03d}") for index in range(100)]
    splits = draw(slices, fold="5/5")
    assert [len(part) for part in (splits.labelled, splits.val, splits.test)] == [60, 20, 20]
    assert names(splits.val) == names(draw(slices, fold="1/5").test)
    assert names(splits.test) != names(draw(slices, fold="5/5", split_seed=1).test)
    assert splits.labelled == draw(slices, fold="5/5", draw=3, labelled="100%").labelled
    assert len(draw(slices, fold="1/5", labelled="10").unlabelled) == 50


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"fold": "1/5", "test": "3"}, "--fold: got '1/5' together with --test 3, expected one of them; leave one"),
        ({"fold": "1/5", "val": "10%"}, "--fold: got '1/5' together with --val 10%, expected one of them"),
        ({"fold": "1/31"}, "--fold: got '1/31', expected at most 30 folds, one a group with labels; ask for fewer"),
        *(
            ({"fold": wrong}, f"--fold: got '{wrong}', expected K/N with K from 1 to N and N from 3; 1/5 is the first")
            for wrong in ("0/5", "6/5", "1/2", "2", "one/five", "1/5/")
        ),
        *(
            ({"fold": wrong}, f"--fold: got '{wrong:.90}")
            for wrong in ("1" * 5000 + "/" + "2" * 5000, "1/" + "2" * 5000, "\u0661/\u0665")
        ),
    ],
)
def test_mistakes_in_folds(kwargs: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        draw(**kwargs)
