import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import pytest

from semiseg.manifest import file_hash, write_manifest


def test_hash_is_blake2b_of_the_bytes_whatever_the_name(tmp_path):
    content = bytes(range(256)) * 5000  # several buffers long
    for name in ("a.bin", "b.nii.gz"):
        (tmp_path / name).write_bytes(content)
    expected = hashlib.blake2b(content, digest_size=16).hexdigest()
    assert file_hash(tmp_path / "a.bin") == file_hash(tmp_path / "b.nii.gz") == expected
    (tmp_path / "a.bin").write_bytes(content[:-1] + b"x")
    assert file_hash(tmp_path / "a.bin") != expected


def test_manifest_names_what_was_read_and_written(tmp_path, monkeypatch):
    (tmp_path / "in.txt").write_text("scan")
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    outputs = [out / "case.nii.gz", "labels.json"]
    write_manifest(out, "predict", [tmp_path / "in.txt"], outputs, 1.23456, requested=["case"])
    assert json.loads((out / "manifest.json").read_text()) == {
        "command": "predict",
        "version": version("semiseg"),
        "inputs": {str(tmp_path / "in.txt"): hashlib.blake2b(b"scan", digest_size=16).hexdigest()},
        "outputs": ["case.nii.gz", "labels.json"],
        "duration_s": 1.235,
        "requested": ["case"],
    }


def test_relative_folder_and_inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("scan")
    write_manifest(Path("out"), "evaluate", [Path("in.txt")], [Path("out/metrics.csv"), Path("summary.json")], 0.0)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert list(manifest["inputs"]) == [str(tmp_path / "in.txt")]
    assert manifest["outputs"] == ["metrics.csv", "summary.json"]


def test_a_missing_input_leaves_no_manifest(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_manifest(tmp_path, "predict", [tmp_path / "absent"], [], 0.0)
    assert not (tmp_path / "manifest.json").exists()
