"""Which cases are labelled, unlabelled, validation and test: drawn by ranking hashes, so that draws nest."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal

from semiseg.data.dataset import Case, Dataset
from semiseg.errors import InputError, UserError
from semiseg.files import is_there, read_json, write_json

_SHARE = re.compile(r"[0-9]{1,9}|([0-9]{1,9}\.[0-9]{0,9}|\.[0-9]{1,9})|([0-9]{1,9}\.?[0-9]{0,9}|\.[0-9]{1,9})%")
"""A count, a fraction with a point, or a percentage. More digits mean nothing, and some thousands are no number."""


@dataclass(frozen=True)
class Splits:
    """Four lists of cases, each case in one at most, but that labelled ones may be unlabelled ones too.

    Unlabelled cases carry no label, so it cannot leak.
    """

    labelled: tuple[Case, ...]
    unlabelled: tuple[Case, ...]
    val: tuple[Case, ...]
    test: tuple[Case, ...]
    split_seed: int = 0
    draw: int = 0
    notes: tuple[str, ...] = ()

    @property
    def not_test(self) -> tuple[Case, ...]:
        """Every labelled, unlabelled and validation case, once."""
        labelled = {case.name for case in self.labelled}
        return (*self.labelled, *(case for case in self.unlabelled if case.name not in labelled), *self.val)

    def to_json(self) -> list[dict[str, Any]]:
        """nnU-Net's splits_final shape: a list with one split; `train` are the labelled names."""
        lists = {"train": self.labelled, "val": self.val, "unlabelled": self.unlabelled, "test": self.test}
        names = {key: [case.name for case in cases] for key, cases in lists.items()}
        return [{**names, "split_seed": self.split_seed, "draw": self.draw}]

    def save(self, path: Path) -> None:
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path, dataset: Dataset) -> Splits:
        """The split that `save` wrote, or nnU-Net's with a single fold; names are looked up in `dataset`."""
        names = SplitNames.load(path)
        parts = {"train": names.train, "unlabelled": names.unlabelled, "val": names.val, "test": names.test}
        chosen = {key: _by_name(part, dataset.cases, str(path)) for key, part in parts.items()}
        for stream in ("train", "unlabelled"):  # a labelled case may be unlabelled too
            refuse_twice([case.name for key in (stream, "val", "test") for case in chosen[key]], str(path))
        _need_labels(chosen["train"] + chosen["val"], str(path))
        hidden = tuple(replace(case, label=None) for case in chosen["unlabelled"])
        return cls(
            tuple(chosen["train"]), hidden, tuple(chosen["val"]), tuple(chosen["test"]), names.split_seed, names.draw
        )


@dataclass(frozen=True)
class SplitNames:
    """Who plays which part in a file of splits, by name; `Splits` has the cases themselves."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    unlabelled: tuple[str, ...]
    test: tuple[str, ...]
    split_seed: int = 0
    draw: int = 0

    @classmethod
    def load(cls, path: Path) -> SplitNames:
        """Raises InputError for anything but a list with one split."""
        try:
            (split,) = read_json(path, "a list with one split", "write it anew")
            parts = [split.get(key, []) for key in ("train", "val", "unlabelled", "test")]
            if not all(isinstance(part, list) and all(isinstance(name, str) for name in part) for part in parts):
                raise TypeError("parts that are no lists of names")
            train, val, unlabelled, test = (tuple(part) for part in parts)
            return cls(train, val, unlabelled, test, int(split.get("split_seed", 0)), int(split.get("draw", 0)))
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: got {error}, expected a list with one split; write it anew") from None


def make_splits(
    cases: Sequence[Case],
    *,
    labelled: str | None = None,
    val: str | None = None,
    test: str | None = None,
    fold: str | None = None,
    unlabelled_part: str | None = None,
    unlabelled_of: Literal["rest", "all"] = "rest",
    reuse_labelled: bool = False,
    split_seed: int = 0,
    draw: int = 0,
    base: Path,
) -> Splits:
    """Divide cases into test, validation, labelled and unlabelled ones, keeping every group together.

    labelled, val, test: a count of groups ("4"; "1" is one group), a fraction of groups with a point or %
    ("0.1", "10%", "1.0"; rounded up), or a file of case names, one a line (looked for as given, then in
    `base`). Default: every case with a label, none, none. fold: "K/N", instead of val and test.
    unlabelled_part: a count or fraction of the groups of unlabelled cases, all unless told. unlabelled_of: whose
    part that is, of the groups that are not labelled (rest) or of all training groups, labelled ones among them
    (all; a fraction is rounded down). reuse_labelled: labelled cases are unlabelled ones too, their labels hidden
    there.

    Groups that have labels are ranked by a hash of (split_seed, group): the first are test, the next are
    validation. With a fold they are cut into N parts, whose sizes differ by one at most: part K is test, the next
    (after the last, the first) is validation. Cases that the dataset itself puts somewhere stay there and are
    not counted. The remaining groups with labels are ranked by a hash of (draw, group) and the first are
    labelled; all others lose their labels here. If only a part of the unlabelled groups is used, it is the first
    by another hash of (draw, group); of all groups, the last by the hash that labels the first, so that as few as
    possible are both. So draws nest, and a dropped case moves no other past its neighbours.
    Unlabelled scans of a validation or test group are not used. Raises InputError if a group would part,
    UserError if more is asked than there is.
    """
    _refuse_parted_groups(cases)
    named = {name: _names(spec, name, cases, base) for name, spec in (("test", test), ("val", val))}
    places = _fixed_places(cases, named)
    pool = _rank("split", split_seed, _groups_with_labels(cases) - places.keys() - _kept_for_training(cases))
    places |= _fold(fold, pool, test, val)
    for place, spec in (("test", test), ("val", val)):
        if named[place] is None:
            count = _count(spec or "0", f"--{place}", pool_size=len(pool), left=_unplaced(pool, places))
            for group in _unplaced(pool, places)[:count]:
                places[group] = place
    explicit = {case.name for case in cases if case.split in ("test", "val")}.union(*filter(None, named.values()))
    free = [case for case in cases if case.group_name not in places]
    held_out = [case for case in cases if case.group_name in places]
    chosen = _labelled_names(free, labelled, draw, base, held_out)
    lists: dict[str, list[Case]] = {"test": [], "val": [], "unused": []}
    for case in held_out:
        used = case.name in explicit or (case.label is not None and case.split != "unlabelled")
        lists[places[case.group_name] if used else "unused"].append(case)
    _need_labels(lists["val"], "--val")
    labelled_cases = tuple(case for case in free if case.name in chosen)
    if unlabelled_of == "all":
        if reuse_labelled:
            raise UserError(
                "data.reuse_labelled: got true with data.unlabelled_of all, which has the labelled scans among them; "
                "leave it out"
            )
        others = _last(free, unlabelled_part, draw)
    else:
        others = _part([case for case in free if case.name not in chosen], unlabelled_part, draw)
    return Splits(
        labelled=labelled_cases,
        unlabelled=tuple(replace(case, label=None) for case in (*others, *labelled_cases * reuse_labelled)),
        val=tuple(lists["val"]),
        test=tuple(lists["test"]),
        split_seed=split_seed,
        draw=draw,
        notes=_unused_note(lists["unused"]),
    )


def _fold(spec: str | None, pool: list[str], test: str | None, val: str | None) -> dict[str, str]:
    """Group to `test` or `val`; nothing without a fold."""
    if spec is None:
        return {}
    for flag, other in (("--test", test), ("--val", val)):
        if other is not None:
            raise UserError(f"--fold: got {spec!r} together with {flag} {other}, expected one of them; leave one out")
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", spec)
    fold, folds = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= fold <= folds or folds < 3:  # of two, nothing would be left to train on
        raise UserError(
            f"--fold: got {spec!r:.100}, expected K/N with K from 1 to N and N from 3; 1/5 is the first of five"
        )
    if folds > len(pool):
        raise UserError(
            f"--fold: got {spec!r}, expected at most {len(pool)} folds, one a group with labels; ask for fewer"
        )

    def part(index: int) -> list[str]:
        return pool[index * len(pool) // folds : (index + 1) * len(pool) // folds]

    return dict.fromkeys(part(fold - 1), "test") | dict.fromkeys(part(fold % folds), "val")


def _labelled_names(free: list[Case], spec: str | None, draw: int, base: Path, held_out: list[Case]) -> set[str]:
    able = [case for case in free if case.label is not None and case.split != "unlabelled"]
    if not able:
        raise InputError(
            f"--labelled: got no case with a label for training ({len(held_out)} cases are held out), "
            "expected at least one; ask for fewer validation and test cases"
        )
    if spec is None:
        return {case.name for case in able}
    names = _names(spec, "labelled", [*free, *held_out], base)
    if names is not None:
        if wrong := names - {case.name for case in able}:
            raise InputError(
                f"--labelled: got case {min(wrong)!r}, expected cases with a label that are not "
                "validation, test or unlabelled; remove it from the file"
            )
        return names
    ranked = _rank("labelled", draw, {case.group_name for case in able})
    count = _count(spec, "--labelled", pool_size=len(ranked), left=ranked)
    if count == 0:
        raise UserError(f"--labelled: got {spec!r}, expected at least one labelled case; ask for more")
    groups = set(ranked[:count])
    return {case.name for case in able if case.group_name in groups}


def _part(cases: list[Case], spec: str | None, draw: int) -> list[Case]:
    """The cases of the first of their ranked groups, as many as asked."""
    if spec is None:
        return cases
    ranked = _rank("unlabelled", draw, {case.group_name for case in cases})
    groups = set(ranked[: _count_of_part(spec, ranked, "the groups without labels")])
    return [case for case in cases if case.group_name in groups]


def _last(cases: list[Case], spec: str | None, draw: int) -> list[Case]:
    """The cases of the last of the groups as labels are drawn, as many as asked (EquiReg's `unsup_cut`)."""
    if spec is None:
        return cases
    ranked = _rank("labelled", draw, {case.group_name for case in cases})
    groups = set(ranked[len(ranked) - _count_of_part(spec, ranked, "the training groups", floor) :])
    return [case for case in cases if case.group_name in groups]


def _count_of_part(spec: str, ranked: list[str], which: str, rounded: Callable[[Fraction], int] = ceil) -> int:
    if not _SHARE.fullmatch(spec):
        raise UserError(f"data.unlabelled_part: got {spec!r}, expected a count (4) or a fraction (0.1 or 10%)")
    return _count(spec, "data.unlabelled_part", len(ranked), ranked, which, rounded)


def _rank(purpose: str, seed: int, groups: Iterable[str]) -> list[str]:
    def key(group: str) -> bytes:
        return hashlib.blake2b(f"{purpose}/{seed}/{group}".encode(), digest_size=16).digest()

    return sorted(groups, key=key)


def _count(
    spec: str,
    flag: str,
    pool_size: int,
    left: Sequence[str],
    which: str = "the groups with labels that are still free",
    rounded: Callable[[Fraction], int] = ceil,
) -> int:
    """How many groups a count or fraction asks for, in exact arithmetic: 10% of 30 is 3, never 4."""
    percent = spec.endswith("%")
    share = Fraction(spec.rstrip("%")) / (100 if percent else 1)
    is_count = "." not in spec and not percent
    if not is_count and share > 1:
        raise UserError(f"{flag}: got {spec!r}, expected a fraction up to 1.0 or 100%; a count has no point")
    count = int(share) if is_count else rounded(share * pool_size)
    if count > len(left):
        raise UserError(f"{flag}: got {spec!r} ({count} groups), expected at most {len(left)}, {which}; ask for fewer")
    return count


def _names(spec: str | None, name: str, cases: Sequence[Case], base: Path) -> set[str] | None:
    """The case names in the file that `spec` names; None if it is a count or a fraction."""
    if spec is None or _SHARE.fullmatch(spec):
        return None
    path = next((path for path in (Path(spec), base / spec) if is_there(path) and path.is_file()), None)
    if path is None:
        raise UserError(
            f"--{name}: got {spec!r:.100}, expected a count (4), a fraction (0.1 or 10%) or a file of case names; "
            "no such file"
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: got {error}, expected case names, one a line; write it anew") from None
    names = [line for line in lines if line]
    if not names:
        raise InputError(f"{path}: got no case name, expected some, one a line; write them, or leave --{name} out")
    refuse_twice(names, str(path))
    return {case.name for case in _by_name(names, cases, str(path))}


def _by_name(names: Sequence[str], cases: Sequence[Case], where: str) -> list[Case]:
    known = {case.name: case for case in cases}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "remove it"
            raise InputError(f"{where}: got case {name!r}, expected one of the {len(known)} cases; {hint}")
    return [known[name] for name in names]


def _fixed_places(cases: Sequence[Case], named: dict[str, set[str] | None]) -> dict[str, str]:
    """Group to `test` or `val` where the dataset or a file of names says so."""
    places: dict[str, str] = {}
    for case in cases:
        asked = {place for place, names in named.items() if names is not None and case.name in names}
        if case.split in ("test", "val"):
            asked.add(case.split)
        if asked and case.split in ("train", "unlabelled"):
            raise InputError(
                f"--{min(asked)}: got case {case.name!r}, which the dataset puts in {case.split!r}, "
                "expected another; remove it from the file"
            )
        for place in asked:
            if places.setdefault(case.group_name, place) != place:
                raise InputError(_parted(case.group_name, "test", "val"))
    for case in cases:
        if case.split == "train" and case.group_name in places:
            raise InputError(_parted(case.group_name, "train", places[case.group_name]))
    return places


def _refuse_parted_groups(cases: Sequence[Case]) -> None:
    placed: dict[str, str] = {}
    for case in cases:
        if case.split in ("train", "val", "test") and placed.setdefault(case.group_name, case.split) != case.split:
            raise InputError(_parted(case.group_name, placed[case.group_name], case.split))


def _parted(group: str, first: str, second: str) -> str:
    return f"group {group!r}: got cases in {first} and in {second}, expected one split; correct the lists"


def _groups_with_labels(cases: Sequence[Case]) -> set[str]:
    return {case.group_name for case in cases if case.label is not None and case.split != "unlabelled"}


def _kept_for_training(cases: Sequence[Case]) -> set[str]:
    return {case.group_name for case in cases if case.split == "train"}


def _unplaced(pool: list[str], places: dict[str, str]) -> list[str]:
    return [group for group in pool if group not in places]


def refuse_twice(names: Sequence[str], where: str) -> None:
    """Raise InputError, which begins with `where`, for a name that is in a list twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{where}: got case {name!r} twice, expected it once; remove one")


def _need_labels(cases: Sequence[Case], where: str) -> None:
    for case in cases:
        if case.label is None:
            raise InputError(f"{where}: got case {case.name!r} without a label, expected a labelled one; remove it")


def _unused_note(cases: Sequence[Case]) -> tuple[str, ...]:
    if not cases:
        return ()
    names = ", ".join([case.name for case in cases[:3]] + ["..."] * (len(cases) > 3))
    return (f"{len(cases)} unlabelled scan(s) of validation or test groups are not used: {names}",)
