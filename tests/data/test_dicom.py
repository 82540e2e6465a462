"""DICOM, which is not read, is answered by how to convert it, wherever data or scans are given."""

import json

import numpy as np
import pytest
from support.command_line import semiseg
from support.scans import write_nifti

from semiseg.data import dicom
from semiseg.data.dicom import FILES, refuse_dicom
from semiseg.data.layouts import open_dataset, open_inputs
from semiseg.errors import InputError


def write_dicom(path):
    """The least that makes a file DICOM: preamble, four letters, and the length of what follows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + bytes(4))
    return path


@pytest.fixture
def series(tmp_path):
    """As scanners and archives leave it: patient, study, series, files without an ending."""
    for index in range(3):
        write_dicom(tmp_path / "archive of 2024" / "patient" / "study" / "CT" / f"CT.1.3.12.{index}")
    return tmp_path / "archive of 2024"


def test_the_message_has_the_command_that_converts_it(series):
    with pytest.raises(InputError) as refused:
        refuse_dicom(series)
    assert str(refused.value) == (
        f"{series}: got DICOM files, expected NIfTI; convert each series with dcm2niix (pip install dcm2niix; "
        f"mkdir -p NIFTI_FOLDER/images; dcm2niix -z y -f %s_%d -o NIFTI_FOLDER/images '{series}') and give NIFTI_FOLDER"
    )
    file = write_dicom(series.parent / "one" / "IM000001")
    with pytest.raises(InputError, match=f"^{file}: got DICOM files.* {file.parent}\\)"):
        refuse_dicom(file)


def test_the_folder_of_a_disc_is_known_by_its_dicomdir(tmp_path):
    for index in range(FILES + 1):
        (tmp_path / f"A viewer {index}.exe").write_bytes(bytes(200))
    refuse_dicom(tmp_path)
    (tmp_path / "dicomdir").touch()
    with pytest.raises(InputError, match="got DICOM files"):
        refuse_dicom(tmp_path)


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(128) + b"DIC", bytes(127) + b"DICM", bytes(129) + b"DICM"])
def test_anything_else_is_not_dicom(tmp_path, content):
    (tmp_path / "scan.dcm").write_bytes(content)
    (tmp_path / ".hidden").mkdir()
    write_dicom(tmp_path / ".hidden" / "a")
    write_dicom(tmp_path / "._scan")
    refuse_dicom(tmp_path)
    refuse_dicom(tmp_path / "scan.dcm")
    refuse_dicom(tmp_path / "nowhere")
    with pytest.raises(InputError, match="got no layout that fits"):
        open_dataset(tmp_path)


def test_few_files_are_opened(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        for index in range(100):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / f"{index}").touch()
    opened = []
    monkeypatch.setattr(dicom, "_is_dicom", lambda path: opened.append(path))
    refuse_dicom(tmp_path)
    assert len(opened) == 2 * FILES


def test_scans_beside_dicom_are_read(series):
    image = np.zeros((4, 4, 4), np.float32)
    write_nifti(series / "scan.nii.gz", image)
    assert [case.name for case in open_inputs([series], 1)] == ["scan"]
    write_nifti(series / "images" / "scan.nii.gz", image)
    assert [case.name for case in open_dataset(series).cases] == ["scan"]


def test_dicom_inside_the_folders_of_a_layout(tmp_path):
    write_dicom(tmp_path / "images" / "patient" / "0001")
    for opened in (lambda: open_dataset(tmp_path), lambda: open_inputs([tmp_path], 1)):
        with pytest.raises(InputError, match="got DICOM files"):
            opened()
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1}}))
    with pytest.raises(InputError, match="got DICOM files"):
        open_dataset(tmp_path, layout="plain")


@pytest.mark.usefixtures("one_core")
def test_every_command_answers_with_one_sentence(series, study, run_folder, tmp_path):
    file = next(series.rglob("CT.*.0"))
    out = ("--out", tmp_path / "out")
    words = {
        "check": [series],
        "plan": [series, *out],
        "prepare": [series],
        "train": [series, *out],
        "train --unlabelled": [study, *out, "--unlabelled", series],
        "bench": [series, "--out", tmp_path / "bench", "--labelled", "2"],
        "predict": [run_folder, series, *out],
        "predict files": [run_folder, *sorted(series.rglob("CT.*")), *out],
        "rank": [run_folder, file, *out],
        "review": [run_folder, series, *out],
        "evaluate": [series, study, *out],
        "evaluate against": [study / "labels", series, *out],
    }
    for name, given in words.items():
        code, _, err = semiseg(name.split()[0], *given)
        (line,) = err.splitlines()
        assert (code, line.partition(": got ")[2].partition(";")[0]) == (3, "DICOM files, expected NIfTI"), name
        assert "dcm2niix -z y -f %s_%d -o NIFTI_FOLDER/images" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.realdata
def test_real_dicom_is_recognised(real_data):
    if not (real_data / "dicom").is_dir():
        pytest.skip(f"no DICOM in {real_data}")
    for place in sorted((real_data / "dicom").iterdir()):
        with pytest.raises(InputError, match=f"^{place}: got DICOM files"):
            open_dataset(place)
        file = next(path for path in place.rglob("*") if path.is_file())
        with pytest.raises(InputError, match="got DICOM files"):
            open_inputs([file], 1)
