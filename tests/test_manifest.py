import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from semiseg.errors import InputError, UserError
from semiseg.manifest import (
    BEGUN,
    MANIFEST,
    begin_anew,
    claim,
    file_hash,
    file_hashes,
    json_hash,
    read_manifest,
    sealed,
    unsealed,
    write_manifest,
)


def test_hash_is_blake2b_of_the_bytes_whatever_the_name(tmp_path):
    content = bytes(range(256)) * 5000  # several buffers long
    for name in ("a.bin", "b.nii.gz"):
        (tmp_path / name).write_bytes(content)
    expected = hashlib.blake2b(content, digest_size=16).hexdigest()
    assert file_hash(tmp_path / "a.bin") == file_hash(tmp_path / "b.nii.gz") == expected
    (tmp_path / "a.bin").write_bytes(content[:-1] + b"x")
    assert file_hash(tmp_path / "a.bin") != expected


def test_what_cannot_be_read_has_no_hash(tmp_path):
    (tmp_path / "a").write_text("scan")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    found = file_hashes([tmp_path / name for name in ("nowhere", "a", "folder", "pipe")])
    assert found == {str(tmp_path / "a"): file_hash(tmp_path / "a")}


def test_hash_of_values():
    assert json_hash({"a": (1, 2.5)}) == json_hash({"a": [1, 2.5]}) != json_hash({"a": [1, 2.6]})


def test_a_seal_tells_of_a_change():
    values = {"a": 1, "b": [0.5, None]}
    assert unsealed(json.loads(json.dumps(sealed(values)))) == values
    for changed in ({**sealed(values), "a": 2}, values, {**sealed(values), "c": 3}, [], None, 5):
        with pytest.raises(ValueError, match="values that were changed"):
            unsealed(changed)


def test_a_manifest_is_read_back(tmp_path):
    assert read_manifest(tmp_path) is None
    write_manifest(tmp_path, "predict", [], [], 1.0, models=["run"], weights=["0"])
    made = read_manifest(tmp_path)
    assert (made.command, made.inputs, made.models, made.weights) == ("predict", {}, ("run",), ("0",))
    for text in ("5", '{"models": 5}', '{"inputs": []}', "{"):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(InputError, match=r"manifest\.json: got .*, expected what semiseg left there"):
            read_manifest(tmp_path)


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


def test_a_folder_is_claimed_kept_and_given_back(tmp_path):
    out = tmp_path / "new" / "out"
    claim(out, "rank", ["ranking.csv"])
    assert json.loads((out / BEGUN).read_text())["command"] == "rank"
    (out / "ranking.csv").write_text("half")
    claim(out, "rank", ["ranking.csv"])  # it was interrupted
    write_manifest(out, "rank", [], ["ranking.csv"], 1.0)
    assert not (out / BEGUN).exists()
    claim(out, "rank", ["ranking.csv"])
    begin_anew(out, "rank")
    assert not (out / MANIFEST).exists()
    with pytest.raises(UserError, match=r"got the results of `semiseg rank`, expected an empty folder or an earlier"):
        claim(out, "evaluate", ["metrics.csv"])


def test_a_foreign_file_is_named_and_nothing_is_touched(tmp_path):
    (tmp_path / "metrics.csv").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine too")
    with pytest.raises(UserError, match=r"it holds metrics\.csv, which semiseg did not write here; choose another"):
        claim(tmp_path, "evaluate", ["summary.json", "metrics.csv"])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "metrics.csv": "mine",
        "notes.txt": "mine too",
    }
    claim(tmp_path, "rank", ["ranking.csv"])  # other files do no harm


def test_a_folder_of_the_input_and_a_file_are_refused(tmp_path):
    scan = tmp_path / "images" / "a.nii.gz"
    scan.parent.mkdir()
    scan.write_text("scan")
    with pytest.raises(UserError, match=r"got a folder of the input, which holds a\.nii\.gz, expected another --out"):
        claim(tmp_path / "labels" / ".." / "images", "predict", [], inputs=[scan])
    with pytest.raises(UserError, match=r"got a file, expected a folder to write to"):
        claim(scan, "predict", [])


@pytest.mark.parametrize("text", ["[]", "{}", "nonsense", '{"command": 5}', "[" * 100000])
def test_a_damaged_manifest_is_nobodys(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json: got .*, expected what semiseg left there"):
        claim(tmp_path, "predict", [])
