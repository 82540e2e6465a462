"""What the tests of the command line share: running it here, a small study, tiny settings."""

import contextlib
import csv
import io
import json
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from support.scans import ball, write_nifti

from semiseg.cli import main

TINY = (
    *("--dims", "2", "--steps", "2", "--precision", "32", "--set", "training.tensorboard=false"),
    *("--set", "plan.patch=[8,8]", "--set", "plan.batch=2", "--set", "plan.unlabelled_batch=2"),
    *("--set", "plan.network={widths: [4, 8], strides: [[2, 2]]}"),
)
VALUE = 17
"""Of the only structure, as FreeSurfer numbers the left hippocampus."""


def semiseg(*words: object) -> tuple[int, str, str]:
    """Run a command line on one core; returns exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["semiseg", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main()
    code = stop.value.code or 0
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_study(root: Path) -> Path:
    """Plain folders of oblique, anisotropic, mirrored scans of different shapes; five of seven have labels."""
    turned = np.eye(4)
    angle = 0.2
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    for index in range(7):
        image, label = ball((12 + index % 2, 14, 10), index)
        mirrored = np.diag([-0.9, 1.1, 1.3 + 0.1 * index, 1.0]) if index % 2 else np.diag([0.9, 1.1, 1.3, 1.0])
        affine = turned @ mirrored
        affine[:3, 3] = (-7.5, 3.25, index)
        write_nifti(root / "images" / f"case{index}.nii.gz", image, affine)
        if index < 5:
            write_nifti(root / "labels" / f"case{index}.nii.gz", label * np.uint8(VALUE), affine)
    document = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "hippocampus": VALUE}}
    (root / "dataset.json").write_text(json.dumps(document))
    return root


def train_run_on(study: Path, out: Path) -> Path:
    """One tiny finished run: two labelled scans, one for validation, one for testing."""
    words = ("train", study, "--out", out, "--method", "equireg", "--labelled", "2", "--val", "1", "--test", "1")
    with patch.dict("os.environ", SEMISEG_CACHE=str(out.parent / "cache"), SEMISEG_WORKERS="1", SEMISEG_DEVICE="cpu"):
        code, _, err = semiseg(*words, *TINY)
    assert code == 0, err
    return out
