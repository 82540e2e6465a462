"""Every number that `evaluate` writes equals the slow, obvious one, and what is not there gives none."""

import csv
import math

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import surfaces

from semiseg.evaluation.evaluate import COLUMNS, evaluate_folder
from semiseg.evaluation.metrics import FAR_MM
from semiseg.evaluation.summary import DISTANCES, OVERLAPS

CLASSES = {"background": 0, "organ": 3, "tumour": 40}
MEASURED = [name for name in COLUMNS if name not in ("case", "class", "value", "kind", "state", "tolerance_mm")]
IGNORE = 9
TOLERANCE_MM = 1.5


def slowly(prediction, truth, spacing_mm, foreground):
    """A row of the table from two masks, and the voxels of any class in the truth. None: nothing to say."""
    voxel_ml = math.prod(spacing_mm) / 1000
    predicted, true = ({tuple(index) for index in np.argwhere(mask).tolist()} for mask in (prediction, truth))
    both, either = len(predicted & true), len(predicted | true)
    row = {
        "dice": 2 * both / (len(predicted) + len(true)) if either else 1.0,  # two empty masks agree, by definition
        "iou": both / either if either else 1.0,
        "surface_dice": float(not either),
        **dict.fromkeys(DISTANCES),
        "prediction_ml": len(predicted) * voxel_ml,
        "truth_ml": len(true) * voxel_ml,
        "difference_ml": (len(predicted) - len(true)) * voxel_ml,
        "in_truth": bool(true),
        "in_prediction": bool(predicted),
        "false_positive_ml": None if true else len(predicted) * voxel_ml,
        "far_ml": None,
    }
    if predicted and true:
        row |= surfaces.scores(prediction, truth, spacing_mm, TOLERANCE_MM)
    if foreground.any():
        places = np.argwhere(foreground) * spacing_mm
        far = [one for one in predicted if min(math.dist(np.multiply(one, spacing_mm), at) for at in places) > FAR_MM]
        row["far_ml"] = len(far) * voxel_ml
    return row | {"dice_brats": row["dice"]}


def write(folder, name, array, spacing_mm):
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.astype(np.uint8), np.diag([*spacing_mm, 1.0])), folder / f"{name}.nii.gz")


def evaluated(root, pairs, spacing_mm, **options):
    for name, (prediction, truth) in pairs.items():
        write(root / "predictions", name, prediction, spacing_mm)
        write(root / "labels", name, truth, spacing_mm)
    result = evaluate_folder(
        root / "predictions", root / "labels", root / "scores", classes=CLASSES, tolerance_mm=TOLERANCE_MM, **options
    )
    with (root / "scores" / "metrics.csv").open(newline="") as file:
        return result.summary, {(row["case"], row["class"]): row for row in csv.DictReader(file)}


def value_of(text):
    return {"": None, "True": True, "False": False}[text] if text in ("", "True", "False") else float(text)


@st.composite
def pairs_of_maps(draw):
    """Sparse and dense ones, of thin and thick shapes, empty ones among them."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    spacing_mm = draw(st.tuples(*[st.sampled_from([0.5, 1.0, 1.75, 4.0, 11.0])] * 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    shares = [draw(st.sampled_from([0.0, 0.05, 0.4])) for _ in range(4)]

    def drawn(organ, tumour, ignored):
        place = generator.random(shape)
        bounds = np.cumsum([organ, tumour, ignored])
        return np.select([place < bound for bound in bounds], [3, 40, IGNORE], 0)

    return drawn(*shares[:2], 0), drawn(*shares[2:], draw(st.sampled_from([0, 0.1]))), spacing_mm


@settings(max_examples=60, deadline=None, derandomize=True)
@given(drawn=pairs_of_maps())
def test_every_column_of_the_table_equals_brute_force(tmp_path_factory, drawn):
    prediction, truth, spacing_mm = drawn
    _, rows = evaluated(tmp_path_factory.mktemp("maps"), {"a": (prediction, truth)}, spacing_mm, ignore=IGNORE)
    foreground = (truth == 3) | (truth == 40)
    for name, value in CLASSES.items():
        if value:
            expected = slowly((prediction == value) & (truth != IGNORE), truth == value, spacing_mm, foreground)
            assert {*expected} == {*MEASURED}
            for column in MEASURED:
                found = value_of(rows["a", name][column])
                assert (found is None) == (expected[column] is None), column
                assert found == pytest.approx(expected[column], abs=1e-12), column


EMPTY = np.zeros((4, 4, 4), np.uint8)


def with_organ(*index, value=3):
    array = EMPTY.copy()
    array[index] = value
    return array


@pytest.mark.parametrize("guess", [EMPTY, with_organ(1, 1)], ids=["nothing predicted", "something predicted"])
def test_a_scan_without_a_structure_gives_no_number_to_any_mean_of_it(tmp_path, guess):
    """Whatever is predicted there: it would count as perfect, or as a total failure, and be neither."""
    pairs = {"a": (with_organ(1), with_organ(1, slice(0, 3))), "b": (with_organ(2), with_organ(0))}
    before, _ = evaluated(tmp_path / "two", pairs, (1, 2, 3))
    pairs |= dict.fromkeys("cdef", (guess, EMPTY))
    after, rows = evaluated(tmp_path / "more", pairs, (1, 2, 3))
    for metric in (*OVERLAPS, *DISTANCES, "difference_ml"):
        assert after["classes"]["organ"][metric] == before["classes"]["organ"][metric], metric
        assert after["per_case"][metric] == before["per_case"][metric], metric
        assert after["mean"][metric] == before["mean"][metric], metric
    assert after["classes"]["organ"]["n"] == 2
    for name in "cdef":
        for column in DISTANCES:
            assert rows[name, "organ"][column] == ""  # no distance to what is not there: not 0, not the image's size
        assert rows[name, "organ"]["far_ml"] == ""


def test_a_structure_that_is_nowhere_has_no_mean_at_all(tmp_path):
    summary, _ = evaluated(tmp_path, dict.fromkeys("ab", (EMPTY, EMPTY)), (1, 1, 1))
    for name in ("organ", "tumour"):
        entry = summary["classes"][name]
        assert {entry[metric]["mean"] for metric in (*OVERLAPS, *DISTANCES, "difference_ml")} == {None}
    assert {summary["mean"][metric] for metric in (*OVERLAPS, *DISTANCES)} == {None}
    assert {entry["mean"] for entry in summary["per_case"].values()} == {None}
    assert summary["absent_classes"] == ["organ", "tumour"]
