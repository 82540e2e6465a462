import csv
import json

import nibabel as nib
import numpy as np
import pytest

from semiseg.errors import InputError, UserError
from semiseg.evaluation.evaluate import COLUMNS, evaluate_folder
from semiseg.manifest import file_hash, write_manifest
from semiseg.runs.contents import read_scores

SPACING = (1.0, 2.0, 5.0)
SHAPE = (8, 6, 4)
ABSENT = {"n": 0, "mean": None, "sd": None, "median": None}
CLASSES = {"background": 0, "organ": 1, "tumour": 2}


def labels_of(**spans):
    """An integer array; organ=[(0, 2), (0, 3), (0, 1)] fills that box with the organ's value."""
    array = np.zeros(SHAPE, np.uint8)
    for name, span in spans.items():
        array[tuple(slice(*side) for side in span)] = {"organ": 1, "tumour": 2, "other": 7, "ignore": 9}[name]
    return array


ORGAN = [(0, 4), (0, 2), (0, 1)]  # 8 voxels of 0.01 mL
ORGAN_SHIFTED = [(1, 5), (0, 2), (0, 1)]  # 6 of them, and 2 others 1 mm on
TUMOUR = [(6, 8), (4, 6), (2, 3)]  # 4 voxels


def save(folder, arrays, shift_mm=0.0):
    affine = np.diag([*SPACING, 1.0])
    affine[0, 3] = shift_mm
    folder.mkdir(parents=True, exist_ok=True)
    for case, array in arrays.items():
        nib.save(nib.Nifti1Image(array, affine), folder / f"{case}.nii.gz")
    return folder


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "predictions", tmp_path / "labels", tmp_path / "out"


def rows_of(out, name="metrics.csv"):
    with (out / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_per_case_and_class_with_hand_computed_numbers(folders):
    predictions, labels, out = folders
    save(labels, {"a": labels_of(organ=ORGAN, tumour=TUMOUR)})
    save(predictions, {"a": labels_of(organ=ORGAN_SHIFTED)})
    evaluation = evaluate_folder(predictions, labels, out, classes=CLASSES, tolerance_mm=0.5)
    organ, tumour = rows_of(out)
    assert tuple(organ) == COLUMNS
    assert organ | {"case": "a", "class": "organ", "value": "1", "state": "ok"} == organ
    # All voxels are surface (one slice thick). Of 8 distances each way, 6 are 0 mm and 2 are 1 mm.
    expected = {
        "dice": 12 / 16,
        "iou": 6 / 10,
        "hd95_mm": 1,
        "hausdorff_mm": 1,
        "assd_mm": 0.25,
        "msd_mm": 0.25,
    }
    expected |= {"surface_dice": 0.75, "tolerance_mm": 0.5, "dice_brats": 0.75}
    expected |= {"prediction_ml": 0.08, "truth_ml": 0.08, "difference_ml": 0}
    for name, value in expected.items():
        assert float(organ[name]) == pytest.approx(value), name
    assert (organ["in_truth"], organ["in_prediction"], organ["false_positive_ml"]) == ("True", "True", "")

    assert [float(tumour[name]) for name in ("dice", "iou", "surface_dice", "dice_brats")] == [0, 0, 0, 0]
    assert [tumour[name] for name in ("hd95_mm", "hausdorff_mm", "assd_mm", "msd_mm")] == [""] * 4
    assert float(tumour["difference_ml"]) == pytest.approx(-0.04)
    assert (tumour["in_truth"], tumour["in_prediction"]) == ("True", "False")

    summary = json.loads((out / "summary.json").read_text())
    assert summary == evaluation.summary
    assert summary["classes"]["tumour"]["hd95_mm"] == ABSENT | {"absent": 1}
    assert summary["mean"]["dice"] == pytest.approx(0.375)
    assert summary["mean"]["hd95_mm"] == pytest.approx(1.0)
    assert (evaluation.failed, evaluation.exit_code) == ((), 0)
    assert not (out / "failed.csv").exists()


def test_far_is_the_volume_more_than_10_mm_from_every_class_of_the_truth(folders):
    predictions, labels, out = folders
    truth, empty = np.zeros((30, 4, 4), np.uint8), np.zeros((30, 4, 4), np.uint8)
    truth[0, 0, 0], truth[2, 0, 0] = 1, 2
    guess = empty.copy()
    guess[12, 0, 0] = 1  # 12 mm from the organ, but 10 mm from the tumour: near
    guess[13, 0, 0] = guess[0, 0, 3] = 1  # 11 mm and 15 mm: far
    guess[20:22, 0, 0] = 2  # far
    save(labels, {"a": truth, "b": truth, "c": empty})
    save(predictions, {"a": guess, "b": truth, "c": guess})
    summary = evaluate_folder(predictions, labels, out, classes=CLASSES).summary
    far = {(row["case"], row["class"]): row["far_ml"] for row in rows_of(out)}
    voxel_ml = 0.01
    assert float(far["a", "organ"]) == pytest.approx(2 * voxel_ml)
    assert float(far["a", "tumour"]) == pytest.approx(2 * voxel_ml)
    assert float(far["b", "organ"]) == float(far["b", "tumour"]) == 0
    assert far["c", "organ"] == far["c", "tumour"] == ""  # nothing is true there, so nothing is far from it
    assert summary["per_case"]["far_ml"]["n"] == 2
    assert summary["per_case"]["far_ml"]["mean"] == pytest.approx((4 + 0) / 2 * voxel_ml)


def test_means_take_the_cases_that_have_the_class(folders):
    predictions, labels, out = folders
    organ = {"organ": ORGAN}
    save(labels, {"a": labels_of(**organ, tumour=TUMOUR), "b": labels_of(**organ), "c": labels_of(**organ)})
    half = [(6, 8), (4, 6), (2, 4)]  # twice as large as the tumour
    save(
        predictions,
        {
            "a": labels_of(**organ, tumour=half),
            "b": labels_of(**organ),
            "c": labels_of(**organ, tumour=TUMOUR),
        },
    )
    summary = evaluate_folder(predictions, labels, out, classes=CLASSES).summary
    tumour = summary["classes"]["tumour"]
    assert tumour["n"] == tumour["dice"]["n"] == 1
    assert tumour["dice"]["mean"] == pytest.approx(2 / 3)
    assert tumour["false_positives"] == {"cases": 1, "of": 2, "total_ml": pytest.approx(0.04)}
    assert tumour["dice_brats"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert summary["mean"]["dice"] == pytest.approx((1 + 2 / 3) / 2)
    assert summary["per_case"]["dice"]["mean"] == pytest.approx((5 / 6 + 1 + 1) / 3)
    by_case = {row["case"]: row for row in rows_of(out) if row["class"] == "tumour"}
    assert (by_case["b"]["dice"], by_case["b"]["hd95_mm"], by_case["b"]["in_truth"]) == ("1.0", "", "False")
    assert float(by_case["b"]["false_positive_ml"]) == 0
    assert float(by_case["c"]["false_positive_ml"]) == pytest.approx(0.04)


def test_a_missing_prediction_counts_with_dice_0(folders):
    predictions, labels, out = folders
    truth = labels_of(organ=ORGAN)
    save(labels, {"a": truth, "b": truth})
    save(predictions, {"a": truth})
    evaluation = evaluate_folder(predictions, labels, out, classes=CLASSES)
    assert (evaluation.failed, evaluation.exit_code) == (("b",), 4)
    organ, tumour = (row for row in rows_of(out) if row["case"] == "b")
    assert organ["state"] == tumour["state"] == "missing"
    assert organ["dice"] == tumour["dice"] == tumour["dice_brats"] == "0.0"
    assert organ["hd95_mm"] == organ["prediction_ml"] == organ["difference_ml"] == ""
    assert float(organ["truth_ml"]) == pytest.approx(0.08)
    entry = evaluation.summary["classes"]["organ"]
    assert (entry["dice"]["mean"], entry["hd95_mm"]["n"], entry["hd95_mm"]["absent"]) == (0.5, 1, 1)
    assert evaluation.summary["cases"] == {"total": 2, "ok": 1, "missing": 1, "mismatch": 0, "unreadable": 0}
    assert [(row["case"], row["state"]) for row in rows_of(out, "failed.csv")] == [("b", "missing")]
    assert "failed.csv" in json.loads((out / "manifest.json").read_text())["outputs"]


def test_the_predictions_manifest_says_which_cases_were_asked_for(folders):
    predictions, labels, out = folders
    truth = labels_of(organ=ORGAN)
    save(labels, dict.fromkeys(("train1", "test1", "test2"), truth))
    save(predictions, {"test1": truth})
    write_manifest(predictions, "predict", [], [], 0.0, requested=["test2", "test1", "no_label"])
    evaluation = evaluate_folder(predictions, labels, out, classes=CLASSES)
    assert [row["case"] for row in rows_of(out)[::2]] == ["test2", "test1"]
    assert evaluation.failed == ("test2",)


def test_chosen_cases_and_unscored_predictions(folders):
    predictions, labels, out = folders
    truth = labels_of(organ=ORGAN)
    save(labels, {"a": truth, "b": truth})
    save(predictions, {"a": truth, "a_prob": truth, "stray": truth})
    evaluation = evaluate_folder(predictions, labels, out, cases=["a"], classes=CLASSES)
    assert {row["case"] for row in rows_of(out)} == {"a"}
    assert evaluation.summary["unscored"] == ["stray"]  # a_prob holds the probabilities of a
    with pytest.raises(InputError, match=r"cases: got case_a, expected a case with a label in .*; check"):
        evaluate_folder(predictions, labels, out, cases=["a", "case_a"], overwrite=True)


@pytest.mark.parametrize(
    ("shift_mm", "state", "notes"),
    [(0.005, "ok", 0), (0.05, "ok", 1), (0.2, "mismatch", 0), (500, "mismatch", 0)],
)
def test_geometry_that_differs(folders, shift_mm, state, notes):
    predictions, labels, out = folders  # smallest spacing 1 mm
    save(labels, {"a": labels_of(organ=ORGAN)})
    save(predictions, {"a": labels_of(organ=ORGAN)}, shift_mm)
    evaluation = evaluate_folder(predictions, labels, out, classes={"organ": 1})
    row = rows_of(out)[0]
    assert (row["state"], row["dice"]) == (state, "1.0" if state == "ok" else "")
    assert len(evaluation.summary["notes"]) == notes
    assert evaluation.exit_code == (0 if state == "ok" else 4)
    if state == "mismatch":
        message = rows_of(out, "failed.csv")[0]["message"]
        assert f"{predictions / 'a.nii.gz'}: got corners up to {shift_mm:g} mm away from those of" in message
        assert evaluation.summary["classes"]["organ"]["n"] == 0


def test_a_turned_grid_is_a_mismatch(folders):
    predictions, labels, out = folders  # the first corner stays where it is, the others move
    save(labels, {"a": labels_of(organ=ORGAN)})
    predictions.mkdir()
    turned = nib.Nifti1Image(labels_of(organ=ORGAN), np.diag([-1.0, 2.0, 5.0, 1.0]))
    nib.save(turned, predictions / "a.nii.gz")
    evaluate_folder(predictions, labels, out, classes=CLASSES)
    assert "corners up to 14 mm" in rows_of(out, "failed.csv")[0]["message"]


def test_bad_files_do_not_stop_the_others(folders):
    predictions, labels, out = folders
    truth = labels_of(organ=ORGAN)
    save(labels, dict.fromkeys("abc", truth))
    save(predictions, {"a": truth[:-1], "b": truth, "c": truth})
    content = (predictions / "b.nii.gz").read_bytes()
    (predictions / "b.nii.gz").write_bytes(content[: len(content) // 2])
    evaluation = evaluate_folder(predictions, labels, out, classes=CLASSES)
    assert evaluation.failed == ("a", "b")
    failed = rows_of(out, "failed.csv")
    assert [row["state"] for row in failed] == ["mismatch", "unreadable"]
    assert "got shape (7, 6, 4), expected (8, 6, 4)" in failed[0]["message"]
    assert str(predictions / "b.nii.gz") in failed[1]["message"]
    assert evaluation.summary["classes"]["organ"]["dice"] == ABSENT | {"n": 1, "mean": 1, "median": 1}
    assert all(row["dice"] == row["in_truth"] == "" for row in rows_of(out) if row["case"] != "c")


def test_ignored_voxels_are_left_out_of_both_masks(folders):
    predictions, labels, out = folders
    save(labels, {"a": labels_of(organ=ORGAN, ignore=[(4, 8), (0, 6), (0, 4)])})
    save(predictions, {"a": labels_of(organ=[(0, 8), (0, 2), (0, 1)])})
    evaluation = evaluate_folder(predictions, labels, out, classes={"organ": 1}, ignore=9)
    assert rows_of(out)[0]["dice"] == "1.0"
    assert float(rows_of(out)[0]["prediction_ml"]) == pytest.approx(0.08)
    assert evaluation.summary["notes"] == []
    assert evaluation.summary["ignore"] == 9


def test_values_that_are_no_class_are_noted(folders):
    predictions, labels, out = folders
    save(labels, {"a": labels_of(organ=ORGAN, other=TUMOUR)})
    save(predictions, {"a": labels_of(organ=ORGAN, ignore=TUMOUR)})
    notes = evaluate_folder(predictions, labels, out, classes=CLASSES).summary["notes"]
    assert notes == [
        "labels: values that are no class count as background: 7",
        "predictions: values that are no class count as background: 9",
        "labels: no case has these classes, which are left out of the means: tumour",
    ]


def test_where_class_names_come_from(folders):
    predictions, labels, out = folders
    save(labels, {"a": labels_of(organ=ORGAN)})
    save(predictions, {"a": labels_of(organ=ORGAN, tumour=TUMOUR)})

    def names(**options):
        summary = evaluate_folder(predictions, labels, out, overwrite=True, **options).summary
        return {name: entry["value"] for name, entry in summary["classes"].items()}

    assert names() == {"1": 1, "2": 2}  # 2 is in the prediction alone
    document = {"labels": {"background": 0, "declared": 1, "ignore": 9}}
    (labels.parent / "dataset.json").write_text(json.dumps(document))
    assert names() == {"declared": 1}
    (predictions / "labels.json").write_text(json.dumps({"background": 0, "left atrium": 1}))
    assert names() == {"left atrium": 1}
    assert names(classes={"given": 2}) == {"given": 2}


def test_labels_of_a_dataset(folders, nnunet_cohort, plain_cohort, tmp_path):
    predictions, _, out = folders
    for root, folder in ((nnunet_cohort(), "labelsTr"), (plain_cohort(), "labels")):
        for place in (root, root / folder):
            summary = evaluate_folder(root / folder, place, out, overwrite=True).summary
            assert list(summary["classes"]) == ["ball"]
            assert summary["mean"]["dice"] == 1
            assert summary["cases"]["ok"] == len(list((root / folder).iterdir()))
    table = tmp_path / "table.csv"
    table.write_text("case,image,label\nmine,plain/images/case0.nii.gz,plain/labels/case0.nii.gz\n")
    predictions.mkdir()
    (root / "labels" / "case0.nii.gz").rename(predictions / "mine.nii.gz")
    evaluation = evaluate_folder(predictions, table, out, overwrite=True, classes={"ball": 1})
    assert evaluation.failed == ("mine",)  # the table names a label file that is gone
    assert "case0.nii.gz" in rows_of(out, "failed.csv")[0]["message"]


REGIONS = {"all": (1, 2, 7), "part": (2, 7)}


def test_regions_are_scored_after_the_classes_by_hand(folders):
    predictions, labels, out = folders
    save(labels, {"a": labels_of(organ=ORGAN, tumour=TUMOUR), "b": labels_of(organ=ORGAN)})
    save(predictions, {"a": labels_of(organ=TUMOUR, tumour=ORGAN)})  # 8 + 4 voxels, all in the wrong class
    document = {"labels": {"background": 0, "organ": 1, **{name: list(values) for name, values in REGIONS.items()}}}
    (labels.parent / "dataset.json").write_text(json.dumps(document))
    summary = evaluate_folder(predictions, labels, out).summary
    rows = [row for row in rows_of(out) if row["case"] == "a"]
    assert [(row["class"], row["value"], row["kind"]) for row in rows] == [
        ("organ", "1", "class"), ("2", "2", "class"), ("7", "7", "class"),
        ("all", "1+2+7", "region"), ("part", "2+7", "region"),
    ]  # fmt: skip
    assert [float(row["dice"]) for row in rows] == [0, 0, 1, 1, 0]
    assert [float(row["truth_ml"]) for row in rows] == pytest.approx([0.08, 0.04, 0, 0.12, 0.04])
    assert summary["regions"]["all"]["dice"]["mean"] == 0.5  # b is missing
    assert summary["regions"]["all"]["value"] == "1+2+7"
    assert summary["regions_mean"]["dice"] == pytest.approx((0.5 + 0) / 2)
    assert summary["mean"]["dice"] == 0
    assert summary["per_case"]["dice"]["mean"] == 0
    assert summary["absent_classes"] == ["7"]


def test_a_class_that_no_label_has_is_left_out_and_listed(folders):
    predictions, labels, out = folders
    save(labels, {"a": labels_of(organ=ORGAN), "b": labels_of(organ=ORGAN)})
    save(predictions, {"a": labels_of(organ=ORGAN), "b": labels_of(organ=ORGAN, tumour=TUMOUR)})
    summary = evaluate_folder(predictions, labels, out, classes=CLASSES).summary
    assert summary["absent_classes"] == ["tumour"]
    assert summary["mean"]["dice"] == summary["mean"]["dice_brats"] == 1
    assert "labels: no case has these classes, which are left out of the means: tumour" in summary["notes"]


def test_several_processes_give_the_same_files(folders):
    predictions, labels, out = folders
    save(labels, {name: labels_of(organ=ORGAN) for name in "abcd"})
    save(predictions, {name: labels_of(organ=ORGAN_SHIFTED) for name in "abd"})
    one, two = (evaluate_folder(predictions, labels, out / str(workers), workers=workers) for workers in (1, 2))
    for name in ("metrics.csv", "summary.json", "failed.csv"):
        assert (out / "1" / name).read_bytes() == (out / "2" / name).read_bytes()
    assert one.failed == two.failed == ("c",)


def test_finished_work_is_skipped_and_other_work_is_not_overwritten_unasked(folders):
    predictions, labels, out = folders
    truth = labels_of(organ=ORGAN)
    save(labels, {"a": truth, "b": truth})
    save(predictions, {"a": truth})
    first = evaluate_folder(predictions, labels, out, classes=CLASSES)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["command"] == "evaluate"
    assert manifest["inputs"][str(predictions / "a.nii.gz")] == file_hash(predictions / "a.nii.gz")
    assert set(manifest["outputs"]) == {path.name for path in out.iterdir()} - {"manifest.json"}
    before = (out / "metrics.csv").stat().st_mtime_ns
    (out / "begun.json").write_text('{"command": "evaluate"}')  # it was killed after its manifest
    again = evaluate_folder(predictions, labels, out, classes=CLASSES)
    assert not (out / "begun.json").exists()
    assert again.skipped
    assert not first.skipped
    assert (again.summary, again.exit_code) == (first.summary, 4)
    assert (out / "metrics.csv").stat().st_mtime_ns == before

    with pytest.raises(UserError, match=r"got an evaluation of other files or settings, .* pass --overwrite"):
        evaluate_folder(predictions, labels, out, classes=CLASSES, tolerance_mm=2.0)
    save(predictions, {"b": truth})
    with pytest.raises(UserError, match="got an evaluation of other files or settings"):
        evaluate_folder(predictions, labels, out, classes=CLASSES)
    assert evaluate_folder(predictions, labels, out, classes=CLASSES, overwrite=True).exit_code == 0
    assert not (out / "failed.csv").exists()


def test_a_case_that_fails_is_told_and_a_damaged_summary_is_made_anew(folders, capsys):
    predictions, labels, out = folders
    truth = labels_of(organ=ORGAN)
    save(labels, {"a": truth, "b": truth, "c": truth})
    save(predictions, {"a": truth, "c": truth[:4]})
    whole = evaluate_folder(predictions, labels, out, classes=CLASSES).summary
    missing, mismatch = capsys.readouterr().err.splitlines()
    assert missing.startswith("b: missing: ")
    assert mismatch.startswith("c: mismatch: ")
    for damage in ("{}", (out / "summary.json").read_text().replace('"total": 3', '"total": 2')):
        (out / "summary.json").write_text(damage)
        again = evaluate_folder(predictions, labels, out, classes=CLASSES)
        assert (again.skipped, again.summary) == (False, whole)


def test_an_interrupted_evaluation_does_not_look_finished(folders, monkeypatch):
    predictions, labels, out = folders
    save(labels, {"a": labels_of(organ=ORGAN)})
    save(predictions, {"a": labels_of(organ=ORGAN)})
    evaluate_folder(predictions, labels, out, classes=CLASSES)

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("semiseg.evaluation.evaluate.score_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_folder(predictions, labels, out, classes=CLASSES, overwrite=True)
    assert not (out / "manifest.json").exists()
    assert not [path for path in out.iterdir() if "tmp" in path.name]


def test_user_mistakes(folders):
    predictions, labels, out = folders
    truth = labels_of(organ=ORGAN)
    save(labels, {"a": truth})
    with pytest.raises(InputError, match=r"predictions: got no such folder, expected one with CASE.nii.gz"):
        evaluate_folder(predictions, labels, out)
    save(predictions, {"x": truth})
    with pytest.raises(InputError, match=r"got 1 predictions, none of them for .* such as a.nii.gz; check"):
        evaluate_folder(predictions, labels, out)
    save(predictions, {"a": truth})
    with pytest.raises(UserError, match=r"predictions: got a folder of the input as --out, expected another"):
        evaluate_folder(predictions, labels, predictions)
    with pytest.raises(UserError, match="tolerance_mm: got -1"):
        evaluate_folder(predictions, labels, out, tolerance_mm=-1)
    with pytest.raises(InputError, match=r"classes: got .*, expected a whole number per class, each once"):
        evaluate_folder(predictions, labels, out, classes={"a": 1, "b": 1})
    with pytest.raises(InputError, match=r"classes: got .*, expected a class besides the background"):
        evaluate_folder(predictions, labels, out, classes={"background": 0})
    (predictions / "labels.json").write_text("{")
    with pytest.raises(InputError, match=r"labels.json: got .*, expected JSON"):
        evaluate_folder(predictions, labels, out)
    (predictions / "labels.json").unlink()
    write_manifest(out, "predict", [], [], 0.0)
    with pytest.raises(UserError, match=r"got the results of `semiseg predict`, .*; choose another --out"):
        evaluate_folder(predictions, labels, out, overwrite=True)


@pytest.mark.realdata
def test_real_labels_against_themselves(real_data, tmp_path):
    root = real_data / "hippocampus" / "Dataset004_Hippocampus"
    labels = root / "labelsTr"
    cases = sorted(path.name.removesuffix(".nii.gz") for path in labels.glob("*.nii.gz"))[:3]
    evaluation = evaluate_folder(labels, root, tmp_path / "out", cases=cases)
    assert evaluation.exit_code == 0
    assert len(evaluation.summary["classes"]) == 2
    for entry in evaluation.summary["classes"].values():
        assert entry["n"] == 3
        assert (entry["dice"]["mean"], entry["hausdorff_mm"]["mean"]) == (1, 0)


def test_names_of_cases_and_classes_that_begin_like_formulas(folders):
    predictions, labels, out = folders
    array = labels_of(organ=ORGAN, tumour=TUMOUR)
    save(labels, {"=1+1": array, "@b": array})
    save(predictions, {"=1+1": array})
    evaluate_folder(predictions, labels, out, classes={"background": 0, "-organ": 1, "+tumour": 2})
    for name in ("metrics.csv", "failed.csv"):
        assert not [cell for row in rows_of(out, name) for cell in row.values() if cell[:1] in {*"=+-@"}]
    scores = read_scores(out / "metrics.csv")
    assert {(score.case, score.name) for score in scores} == {
        (case, name) for case in ("=1+1", "@b") for name in ("-organ", "+tumour")
    }
