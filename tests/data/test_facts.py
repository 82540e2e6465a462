"""Facts: measured right, the same whatever the file is called, and read once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.scans import write_nifti

from semiseg.data import facts
from semiseg.data.dataset import Case
from semiseg.data.facts import ImageFacts, LabelFacts, Unreadable, all_facts, case_facts, source_hash
from semiseg.data.layouts import open_dataset
from semiseg.errors import InputError
from semiseg.manifest import file_hash

AFFINE = np.array([[0, 2.0, 0, 5], [-1.0, 0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])


@pytest.fixture
def array() -> np.ndarray:
    voxels = np.zeros((5, 6, 7), np.float32)
    voxels[1:3, 2:6, 0:4] = np.random.default_rng(0).uniform(1, 9, (2, 4, 4))
    return voxels


def image(path: Path, array: np.ndarray) -> ImageFacts | Unreadable:
    return case_facts(Case("a", (write_nifti(path, array, AFFINE),))).images[0]


def test_image(tmp_path: Path, array: np.ndarray) -> None:
    found = image(tmp_path / "a.nii.gz", array)
    assert isinstance(found, ImageFacts)
    assert found.shape == (5, 6, 7)
    np.testing.assert_array_equal(found.affine, AFFINE)
    assert found.spacing_mm == (1.0, 2.0, 3.0)
    assert found.box == ((1, 3), (2, 6), (0, 4))
    assert found.zero_share == pytest.approx(1 - 32 / 210)
    assert (found.lowest, found.highest) == (0.0, pytest.approx(array.max()))
    assert found.non_finite == 0


def test_non_finite_voxels_are_counted_and_left_out_of_the_range(tmp_path: Path, array: np.ndarray) -> None:
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    found = image(tmp_path / "a.nii.gz", array)
    assert isinstance(found, ImageFacts)
    assert found.non_finite == 3
    assert found.highest == pytest.approx(array[np.isfinite(array)].max())
    nothing = image(tmp_path / "b.nii.gz", np.full((2, 2, 2), np.nan, np.float32))
    assert isinstance(nothing, ImageFacts)
    assert (nothing.non_finite, nothing.lowest, nothing.highest) == (8, 0, 0)
    zeros = image(tmp_path / "c.nii.gz", np.zeros((2, 2, 2), np.float32))
    assert isinstance(zeros, ImageFacts)
    assert (zeros.box, zeros.zero_share) == (None, 1)


def test_hash_is_of_the_content(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(0, 99, (3, 4, 5)).astype(np.int16)
    same = [
        image(tmp_path / "a.nii.gz", whole),
        image(tmp_path / "b.nii", whole.astype(np.float32)),
        image(tmp_path / "c.nii", whole[..., None]),
        image(tmp_path / "f.nii", whole.T[::-1]),
    ]
    changed = whole.copy()
    changed[2, 3, 4] += 1
    others = [
        image(tmp_path / "d.nii", changed),
        image(tmp_path / "e.nii", whole.reshape(3, 5, 4)),
    ]
    hashes = [one.content_hash for one in same + others if isinstance(one, ImageFacts)]
    assert len(hashes) == 6
    assert len(set(hashes[:4])) == 1
    assert len(set(hashes)) == 3


@pytest.mark.parametrize("offset", [0, 70000, -3])
def test_label_values(tmp_path: Path, offset: int) -> None:
    array = np.zeros((3, 4, 5), np.float32) + offset
    array[0] += 2
    case = Case("a", (), write_nifti(tmp_path / "a.nii.gz", array, AFFINE))
    label = case_facts(case).label
    assert isinstance(label, LabelFacts)
    assert label.values == {offset: 40, offset + 2: 20}
    np.testing.assert_array_equal(label.affine, AFFINE)


def test_failures_are_facts_and_are_not_remembered(tmp_path: Path, array: np.ndarray) -> None:
    case = Case("a", (tmp_path / "none.nii.gz",), write_nifti(tmp_path / "l.nii.gz", array))
    found = case_facts(case)
    assert found.images == (
        Unreadable(found="no such file", expected="a NIfTI file", action="restore it or leave the case out"),
    )
    assert isinstance(found.label, Unreadable)
    assert "values that are not whole numbers" in found.label.found
    write_nifti(tmp_path / "none.nii.gz", array)
    assert isinstance(case_facts(case).images[0], ImageFacts)


def test_files_are_read_once(tmp_path: Path, array: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    for name in ("read_image", "read_label"):
        real = getattr(facts, name)
        monkeypatch.setattr(facts, name, lambda path, real=real: (read.append(path), real(path))[1])
    path = write_nifti(tmp_path / "a.nii.gz", array)
    label = write_nifti(tmp_path / "l.nii.gz", (array > 0).astype(np.uint8))
    case = Case("a", (path,), label)
    first = case_facts(case)
    assert case_facts(case) == first
    assert case_facts(replace(case, label=None)).label is None
    assert read == [path, label]
    write_nifti(path, array + 1)
    os.utime(path, ns=(1, 1))
    assert case_facts(case) != first
    assert read == [path, label, path]
    for place in (facts.cache_folder() / "facts").iterdir():
        place.write_text("{")
    assert case_facts(case).label == first.label
    assert read == [path, label, path, path, label]


def test_several_processes_find_the_same(plain_cohort: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cases = open_dataset(plain_cohort(labelled=3)).cases
    monkeypatch.setattr(facts, "_WORTH_PROCESSES", 2)
    several = all_facts(cases, workers=2)
    monkeypatch.setenv("SEMISEG_CACHE", str(facts.cache_folder() / "fresh"))
    assert several == all_facts(cases)
    assert list(several) == ["case0", "case1", "case2"]


def test_what_is_known_starts_no_process(plain_cohort: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cases = open_dataset(plain_cohort(labelled=3)).cases
    monkeypatch.setattr(facts, "_WORTH_PROCESSES", 1)
    first = all_facts(cases)
    new: list[list[str]] = []
    real = facts.each
    monkeypatch.setattr(facts, "each", lambda f, c, *a: (new.append([one.name for one in c]), real(f, c, *a))[1])
    assert all_facts(cases, workers=2) == first
    write_nifti(cases[1].images[0], np.zeros((3, 4, 5), np.float32))
    assert all_facts(cases)["case1"] != first["case1"]
    assert new == [[], ["case1"]]


def test_a_source_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(facts, "file_hash", lambda path: (hashed.append(path), file_hash(path))[1])
    path = tmp_path / "a.nii"
    path.write_bytes(b"one")
    assert source_hash(path) == source_hash(path) == file_hash(path)
    path.write_bytes(b"another")
    assert source_hash(path) == file_hash(path)
    assert hashed == [path, path]


def test_a_source_that_cannot_be_read_is_told_apart_from_a_cache_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"absent\.nii\.gz: got No such file or directory, expected a readable file"):
        source_hash(tmp_path / "absent.nii.gz")
    with pytest.raises(InputError, match=r"expected a readable file; restore it or leave the case out"):
        source_hash(tmp_path / "a\0b.nii.gz")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(facts, "write_text", full)
    (tmp_path / "scan.nii.gz").write_bytes(b"voxels")
    with pytest.raises(OSError, match="No space left on device"):
        source_hash(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize("damage", [b"", b"0123", b"\xff" * 32, b"g" * 32, b"0" * 33])
def test_a_damaged_hash_in_the_cache_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    """An emptied file would give every scan the same hash, and so the same prepared image."""
    first, second = (write_nifti(tmp_path / f"{name}.nii.gz", np.full((3, 3, 3), name, np.uint8)) for name in (1, 2))
    hashes = source_hash(first), source_hash(second)
    for place in (facts.cache_folder() / "facts").iterdir():
        place.write_bytes(damage)
    assert (source_hash(first), source_hash(second)) == hashes == (file_hash(first), file_hash(second))
