"""What tests share: single-threaded torch, a cache of their own, and tiny cohorts written as NIfTI files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from jaxtyping import install_import_hook
from support.scans import ball, write_nifti

# the shapes in the annotations of what computes are checked wherever a test calls it
CHECKED = (
    *("losses", "methods", "networks", "transforms", "data.intensities", "data.resample", "data.space"),
    *("models.windows", "prediction.cases", "rank.scores"),
)
install_import_hook([f"semiseg.{module}" for module in CHECKED], "beartype.beartype")

from semiseg.methods.own import METHODS, OWN  # noqa: E402  (after the hook)
from semiseg.progress import set_quiet  # noqa: E402

torch.set_num_threads(1)  # several times faster for tiny networks


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("nnUNet_raw", raising=False)


@pytest.fixture(autouse=True)
def not_quiet() -> None:
    """A command that an earlier test ran with --quiet."""
    set_quiet(False)


@pytest.fixture(autouse=True)
def built_in_methods() -> Iterator[None]:
    """A command that an earlier test ran with a method of its own."""
    with patch.dict(METHODS), patch.dict(OWN):
        yield


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run in this process use one core, no GPU, and a wide terminal."""
    monkeypatch.setenv("SEMISEG_WORKERS", "1")
    monkeypatch.setenv("SEMISEG_DEVICE", "cpu")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five labelled scans and two without labels; see command_line."""
    from support.command_line import write_study

    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def run_folder(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run on the study."""
    from support.command_line import train_run_on

    return train_run_on(study, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def plain_cohort(tmp_path: Path) -> Callable[..., Path]:
    """Write images/ and labels/ (and unlabelled/) of balls; returns the folder."""

    def write(
        labelled: int = 4,
        unlabelled: int = 0,
        shape: tuple[int, int, int] = (12, 14, 10),
        name: str = "plain",
    ) -> Path:
        root = tmp_path / name
        for index in range(labelled + unlabelled):
            image, label = ball(shape, index)
            folder = "images" if index < labelled else "unlabelled"
            write_nifti(root / folder / f"case{index}.nii.gz", image)
            if index < labelled:
                write_nifti(root / "labels" / f"case{index}.nii.gz", label)
        document = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "ball": 1}}
        (root / "dataset.json").write_text(json.dumps(document))
        return root

    return write


@pytest.fixture
def nnunet_cohort(tmp_path: Path) -> Callable[..., Path]:
    """Write an nnU-Net v2 raw dataset of balls with any number of channels; returns its folder."""

    def write(
        labelled: int = 3,
        unlabelled: int = 0,
        test: int = 0,
        channels: int = 1,
        shape: tuple[int, int, int] = (12, 14, 10),
        name: str = "Dataset001_Balls",
    ) -> Path:
        root = tmp_path / name
        places = ["imagesTr"] * labelled + ["imagesUn"] * unlabelled + ["imagesTs"] * test
        for index, folder in enumerate(places):
            image, label = ball(shape, index)
            for channel in range(channels):
                write_nifti(root / folder / f"ball_{index:03d}_{channel:04d}.nii.gz", image + channel)
            if folder == "imagesTr":
                write_nifti(root / "labelsTr" / f"ball_{index:03d}.nii.gz", label)
        document = {
            "channel_names": {str(channel): f"MRI{channel}" for channel in range(channels)},
            "labels": {"background": 0, "ball": 1},
            "numTraining": labelled,
            "file_ending": ".nii.gz",
        }
        (root / "dataset.json").write_text(json.dumps(document))
        return root

    return write


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans, or a skip that says where it was looked for."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("SEMISEG_TEST_DATA", default))
    if not (folder / "hippocampus").is_dir():
        pytest.skip(f"no real scans in {folder} (set SEMISEG_TEST_DATA)")
    return folder
