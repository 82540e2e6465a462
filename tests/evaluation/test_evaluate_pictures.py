"""Label pictures against labels in other files of the same slice."""

import csv

import numpy as np
import pytest
from PIL import Image
from support.scans import write_nifti

from semiseg.evaluation.evaluate import evaluate_folder


def test_a_label_picture_is_scored_against_any_label_of_the_slice(tmp_path):
    """The same slice as PNG, and as NIfTI towards left and posterior, right and anterior, and with turned axes."""
    shown = np.zeros((6, 9), np.uint8)  # rows x columns, as a radiologist sees it
    shown[1, 2:5], shown[4, 7] = 1, 2
    predicted = shown.copy()
    predicted[1, 4] = 0
    slices = {"png": None, "lps": (shown.T, (-0.5, -0.5)), "ras": (shown.T[::-1, ::-1], (0.5, 0.5))}
    for name in [*slices, "turned"]:
        (tmp_path / "predictions").mkdir(exist_ok=True)
        (tmp_path / "labels").mkdir(exist_ok=True)
        Image.fromarray(predicted).save(tmp_path / "predictions" / f"{name}.png")
    Image.fromarray(shown).save(tmp_path / "labels" / "png.png")
    for name in ("lps", "ras"):
        array, steps = slices[name]
        write_nifti(tmp_path / "labels" / f"{name}.nii.gz", array[..., None], np.diag([*steps, 3, 1]))
    turned = np.array([[0, 0.5, 0, 40], [-0.5, 0, 0, 50], [0, 0, 3, 60], [0, 0, 0, 1]])  # towards P, R, S
    write_nifti(tmp_path / "labels" / "turned.nii.gz", shown[:, ::-1, None], turned)
    evaluate_folder(tmp_path / "predictions", tmp_path / "labels", tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").read_text().splitlines()))
    assert {row["state"] for row in rows} == {"ok"}
    assert {(row["class"], float(row["dice"])) for row in rows} == {("1", 0.8), ("2", 1.0)}
    volumes = {row["case"]: float(row["truth_ml"]) for row in rows if row["class"] == "1"}
    assert volumes["png"] == pytest.approx(3 * 1 / 1000)  # mm of the picture
    assert volumes["ras"] == volumes["turned"] == pytest.approx(3 * 0.5 * 0.5 * 3 / 1000)  # of the other file
    back = evaluate_folder(tmp_path / "labels", tmp_path / "predictions", tmp_path / "back")
    assert not back.failed


def test_a_picture_of_another_size_is_a_mismatch(tmp_path):
    for folder, size in (("predictions", (5, 4)), ("labels", (4, 5))):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.ones(size, np.uint8)).save(tmp_path / folder / "a.png")
    result = evaluate_folder(tmp_path / "predictions", tmp_path / "labels", tmp_path / "out")
    assert result.failed == ("a",)
