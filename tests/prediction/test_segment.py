"""Which scans a path stands for; prediction itself is in test_predict.py."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.scans import ball, write_nifti

from semiseg.errors import InputError
from semiseg.prediction import segment


@pytest.fixture
def asked(monkeypatch):
    """Runs `segment` with models that have no network and returns the names of the cases it would predict."""

    def run(*scans, suffix=False, channels=1, only=None):
        plan = SimpleNamespace(channels=("MRI",) * channels, channel_suffix=suffix)
        monkeypatch.setattr(segment, "load_model", lambda *_: SimpleNamespace(plan=plan))
        monkeypatch.setattr(segment, "predict_cases", lambda _models, cases, _out, **_: cases)
        cases = segment.segment([Path("model")], list(scans), None, only=only)
        return {case.name: len(case.images) for case in cases}

    return run


def write(folder, *names):
    for index, name in enumerate(names):
        write_nifti(folder / f"{name}.nii.gz", ball((6, 6, 6), index)[0])
    return folder


def test_a_suffix_is_removed_only_if_the_model_was_trained_on_suffixes(asked, tmp_path):
    folder = write(tmp_path / "scans", "anna_0000", "ben_0000")
    assert asked(folder, suffix=True) == {"anna": 1, "ben": 1}
    assert asked(folder, suffix=False) == {"anna_0000": 1, "ben_0000": 1}
    assert asked(folder / "anna_0000.nii.gz", suffix=False) == {"anna_0000": 1}


def test_several_channels_are_found_by_their_suffixes_whatever_the_layout_was(asked, tmp_path):
    folder = write(tmp_path / "scans", "anna_0000", "anna_0001")
    assert asked(folder, suffix=False, channels=2) == {"anna": 2}


def test_only_some_cases(asked, tmp_path):
    folder = write(tmp_path / "scans", "anna", "ben", "cleo", "eva maria")
    (tmp_path / "names.txt").write_text("\n eva maria\n\n")
    assert list(asked(folder, only=tmp_path / "names.txt")) == ["eva maria"]
    (tmp_path / "names.txt").write_text("cleo\nanna\n")
    (tmp_path / "splits.json").write_text(json.dumps([{"train": ["anna"], "test": ["ben"]}]))
    assert list(asked(folder, only=tmp_path / "names.txt")) == ["cleo", "anna"]
    assert list(asked(folder, only=tmp_path / "splits.json")) == ["ben"]
    (tmp_path / "names.txt").write_text("dora")
    with pytest.raises(InputError, match=r"got dora, expected names of the 4 scans given"):
        asked(folder, only=tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("anna\nben\nanna\n")
    with pytest.raises(InputError, match=r"--cases .*names\.txt: got case 'anna' twice, expected it once; remove one"):
        asked(folder, only=tmp_path / "names.txt")
    with pytest.raises(InputError, match=r"none\.txt.*expected case names"):
        asked(folder, only=tmp_path / "none.txt")


def test_the_unknown_spacing_of_arrays_is_said_once(asked, tmp_path, capsys):
    folder = write(tmp_path / "scans", "anna")
    asked(folder)
    assert "spacing" not in capsys.readouterr().err
    for name in ("ben", "cleo"):
        np.save(folder / f"{name}.npy", np.zeros((3, 4, 5)))
    assert asked(folder) == {"anna": 1, "ben": 1, "cleo": 1}
    said = capsys.readouterr().err
    assert said.count("spacing") == 1
    assert (
        "spacing and place of NumPy arrays (.npy) are not known, number of scans: 2; they are taken for axial" in said
    )
    assert asked(folder / "ben.npy") == {"ben": 1}
