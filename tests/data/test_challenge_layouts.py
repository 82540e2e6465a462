"""Layouts of challenge data: MALC, IBSR, CANDI and BraTS as their users have them on disk."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.scans import write_nifti

from semiseg.data.dataset import Dataset
from semiseg.data.label_tables import CHALLENGE, FREESURFER
from semiseg.data.layouts import open_dataset, open_inputs
from semiseg.errors import InputError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def cases(dataset: Dataset) -> dict[str, tuple[str | None, str, str | None]]:
    return {case.name: (case.label.name if case.label else None, case.group_name, case.split) for case in dataset.cases}


def patient(root: Path, name: str, *modalities: str, between: str = "_") -> Path:
    return touch(root, *(f"{name}/{name}{between}{modality}.nii.gz" for modality in modalities))


def test_malc_in_plain_folders(tmp_path: Path) -> None:
    touch(tmp_path, "images/1000_3.nii.gz", "images/1000_4.nii.gz", "images/1001_3.nii.gz", "unlabelled/1002_3.nii.gz")
    touch(tmp_path, "labels/1000_4_glm.nii.gz", "labels/1003_3_glm.nii.gz")
    label = np.zeros((4, 4, 4), np.int16)
    label[0], label[1], label[2] = 44, 45, 207
    write_nifti(tmp_path / "labels" / "1000_3_glm.nii.gz", label)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "malc"
    assert cases(dataset) == {
        "1000_3": ("1000_3_glm.nii.gz", "1000", None),
        "1000_4": ("1000_4_glm.nii.gz", "1000", None),
        "1001_3": (None, "1001", None),
        "1002_3": (None, "1002", "unlabelled"),
    }
    assert [path.name for path in dataset.orphan_labels] == ["1003_3_glm.nii.gz"]
    assert dataset.classes == {name: values[0] for name, values in CHALLENGE.items()}
    assert dataset.relabel[207] == 101
    assert dataset.other_is_background


def test_malc_as_the_challenge_has_it(tmp_path: Path) -> None:
    touch(tmp_path, "training-images/1000_3.nii.gz", "training-labels/1000_3_glm.nii.gz")
    touch(tmp_path, "testing-images/1003_3.nii.gz", "testing-labels/1003_3_glm.nii.gz")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "malc"
    assert cases(dataset) == {
        "1000_3": ("1000_3_glm.nii.gz", "1000", None),
        "1003_3": ("1003_3_glm.nii.gz", "1003", "test"),
    }


def test_malc_by_name_reads_plain_folders_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path, "study/images/anna.nii.gz", "study/labels/anna.nii.gz", "other/anna.nii.gz")
    assert open_dataset(tmp_path / "study").layout == "plain"
    dataset = open_dataset(tmp_path / "study", "malc")
    assert cases(dataset) == {"anna": ("anna.nii.gz", "anna", None)}
    with pytest.raises(InputError, match=r"other: got no layout that fits, expected one of \[malc: images/1000_3"):
        open_dataset(tmp_path / "other", "malc")


def test_ibsr(tmp_path: Path) -> None:
    touch(tmp_path, "IBSR_01/IBSR_01_ana.nii.gz", "IBSR_01/IBSR_01_ana_strip.nii.gz", "IBSR_01/IBSR_01_seg_ana.nii.gz")
    touch(tmp_path, "IBSR_02/IBSR_02_ana_strip.nii", "IBSR_03/IBSR_03_brainmask.nii.gz")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "ibsr"
    assert cases(dataset) == {
        "IBSR_01": ("IBSR_01_seg_ana.nii.gz", "IBSR_01", None),
        "IBSR_02": (None, "IBSR_02", None),
    }
    assert [case.images[0].name for case in dataset.cases] == ["IBSR_01_ana.nii.gz", "IBSR_02_ana_strip.nii"]
    assert dataset.classes == {name: values[0] for name, values in FREESURFER.items()}
    assert dataset.relabel[44] == 43


def test_candi(tmp_path: Path) -> None:
    touch(tmp_path, "HC/HC_001/HC_001_procimg.nii.gz", "HC/HC_001/HC_001_seg.nii.gz")
    touch(tmp_path, "BPDwoPsy/BPDwoPsy_030/BPDwoPsy_030_procimg.nii", "BPDwoPsy/BPDwoPsy_030/BPDwoPsy_030_seg.nii")
    for root in (tmp_path, tmp_path / "HC"):
        dataset = open_dataset(root)
        assert dataset.layout == "candi"
        assert cases(dataset)["HC_001"] == ("HC_001_seg.nii.gz", "HC_001", None)
    assert cases(open_dataset(tmp_path))["BPDwoPsy_030"][0] == "BPDwoPsy_030_seg.nii"


def test_brats_2019_tree(tmp_path: Path) -> None:
    root = tmp_path / "MICCAI BraTS 2019 Data"
    patient(root / "HGG", "BraTS19_A_1", "t2", "t1", "t1ce", "flair", "seg")
    patient(root / "LGG", "BraTS19_B_1", "flair", "t1ce", "t2", "seg")
    patient(root / "LGG", "BraTS19_C_1", "flair", "t1", "t1ce", "t2")
    touch(root, "name_mapping.csv", "HGG/BraTS19_A_1/._BraTS19_A_1_seg.nii.gz")
    for place in (root, tmp_path):
        dataset = open_dataset(place)
        assert dataset.layout == "brats"
        assert dataset.channels == ("flair", "t1ce", "t2")
        assert cases(dataset) == {
            "BraTS19_A_1": ("BraTS19_A_1_seg.nii.gz", "BraTS19_A_1", None),
            "BraTS19_B_1": ("BraTS19_B_1_seg.nii.gz", "BraTS19_B_1", None),
            "BraTS19_C_1": (None, "BraTS19_C_1", None),
        }
        names = [path.name.removeprefix("BraTS19_A_1_") for path in dataset.cases[0].images]
        assert names == ["flair.nii.gz", "t1ce.nii.gz", "t2.nii.gz"]
        assert dataset.notes == ("t1 is left out: 1 of 3 patients lack it, the first BraTS19_B_1",)
        assert dataset.classes == {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
        assert dataset.regions == {"whole": (1, 2, 4), "core": (1, 4), "enhancing": (4,)}


def test_brats_2023_names_and_values(tmp_path: Path) -> None:
    for name in ("BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00002-000"):
        patient(tmp_path, name, "t2w", "t1n", "t1c", "t2f", "seg", between="-")
    dataset = open_dataset(tmp_path)
    assert dataset.channels == ("flair", "t1", "t1ce", "t2")
    assert [path.name[-10:] for path in dataset.cases[0].images] == [
        "t2f.nii.gz", "t1n.nii.gz", "t1c.nii.gz", "t2w.nii.gz",
    ]  # fmt: skip
    assert [case.group for case in dataset.cases] == ["BraTS-GLI-00000", "BraTS-GLI-00000", "BraTS-GLI-00002"]
    assert (dataset.classes or {})["enhancing"] == 3
    assert dataset.regions == {"whole": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}
    assert dataset.relabel == {}
    patient(tmp_path, "BraTS2021_00001", "flair", "t1", "t1ce", "t2", "seg")
    mixed = open_dataset(tmp_path)
    assert (mixed.classes or {})["enhancing"] == 4
    assert mixed.relabel == {3: 4}


def test_the_segmentation_with_another_name(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"BraTS20_Training_355/BraTS20_Training_355_{name}.nii" for name in ("flair", "t1", "t1ce", "t2"))
    )
    touch(tmp_path, "BraTS20_Training_355/W39_1998.09.19_Segm.nii")
    assert cases(open_dataset(tmp_path))["BraTS20_Training_355"][0] == "W39_1998.09.19_Segm.nii"


def test_one_patient_to_segment(tmp_path: Path) -> None:
    patient(tmp_path, "BraTS19_A_1", "flair", "t1ce", "seg")
    (case,) = open_inputs([tmp_path / "BraTS19_A_1"], channels=2)
    assert (case.name, len(case.images), case.label) == ("BraTS19_A_1", 2, None)


def test_mistakes_in_brats(tmp_path: Path) -> None:
    patient(tmp_path / "a", "P1", "flair")
    patient(tmp_path / "a", "P2", "t2")
    with pytest.raises(InputError, match="got no modality that all patients have, expected one of flair, t1, t1ce, t2"):
        open_dataset(tmp_path / "a")
    patient(tmp_path / "b" / "HGG", "P1", "flair")
    patient(tmp_path / "b" / "LGG", "P1", "flair")
    with pytest.raises(InputError, match=re.escape("LGG/P1: got patient 'P1' a second time, expected each once")):
        open_dataset(tmp_path / "b")


@pytest.mark.realdata
def test_real_tumours(real_data: Path) -> None:
    dataset = open_dataset(real_data / "tumour")
    assert dataset.layout == "brats"
    assert dataset.channels == ("flair", "t1ce")
    assert len(dataset.cases) == 4
    assert all(case.label is not None for case in dataset.cases)
