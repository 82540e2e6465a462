"""Nothing half-written is ever left under its final name."""

import os
from pathlib import Path

import pytest

from semiseg.files import cache_folder, replacing, write_json, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"é": [1]})
    assert path.read_text(encoding="utf-8") == '{\n  "é": [\n    1\n  ]\n}\n'
    with pytest.raises(RuntimeError), replacing(path) as temporary:  # noqa: PT012 - the block is what is tested
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert '"é"' in path.read_text(encoding="utf-8")
    assert os.listdir(path.parent) == ["a.json"]  # noqa: PTH208


def test_whoever_reads_the_old_file_goes_on_reading_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new and longer")
        assert reader.read() == "old"
    assert path.read_text() == "new and longer"


def test_the_ending_says_the_format(tmp_path: Path) -> None:
    with replacing(tmp_path / "case.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        assert temporary.name.startswith(".")  # no listing of scans finds it
        temporary.touch()


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("SEMISEG_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    monkeypatch.delenv("SEMISEG_CACHE")
    assert cache_folder() == tmp_path / "semiseg"
