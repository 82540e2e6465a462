"""A ranking with what its run knows: teacher and student, volumes, and Dice estimated from validation scans."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr
from support.command_line import rows_of, semiseg
from support.runs import settings_of
from support.scans import ball, write_nifti

from semiseg.experiments.experiment import train_run
from semiseg.models.model import load_model, load_teacher_and_student
from semiseg.rank.scans import rank_scans


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a few steps with two labelled, three validation and two test scans, and its dataset."""
    root = tmp_path_factory.mktemp("rank")
    for index in range(9):
        image, label = ball((12, 14, 10), index)
        write_nifti(root / "data" / "images" / f"case{index}.nii.gz", image)
        write_nifti(root / "data" / "labels" / f"case{index}.nii.gz", label)
    document = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "ball": 1}}
    (root / "data" / "dataset.json").write_text(json.dumps(document))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMISEG_CACHE", str(root / "cache"))
        settings = settings_of(root / "data", steps=30, data={"val": "3", "test": "2"}, training={"validate_every": 30})
        run = train_run(settings, root / "run", device="cpu", workers=1)
    return SimpleNamespace(run=run, data=root / "data", split=json.loads(run.splits.read_text())[0])


def test_a_run_calibrates_on_its_validation_scans_and_on_nothing_else(trained, tmp_path, monkeypatch):
    from semiseg.rank import scans as runs

    opened = []
    real = runs.evaluate_folder
    monkeypatch.setattr(runs, "evaluate_folder", lambda *a, **more: opened.append(more["cases"]) or real(*a, **more))
    ranking = rank_scans([trained.run.path], [trained.data], tmp_path / "out", only=trained.run.splits, device="cpu")
    assert [sorted(names) for names in opened] == [sorted(trained.split["val"])]
    made = rows_of(tmp_path / "out" / "calibration" / "scores" / "metrics.csv")
    assert {row["case"] for row in made} == set(trained.split["val"])
    estimate = json.loads((tmp_path / "out" / "summary.json").read_text())["estimate"]
    assert estimate["calibrated"]
    assert estimate["scans"]["n"] == estimate["structures"]["n"] == 3
    assert 0 <= estimate["scans"]["mae"] < 1
    assert estimate["note"] in ranking.text()
    rows = rows_of(tmp_path / "out" / "ranking.csv")
    assert {row["case"] for row in rows} == set(trained.split["test"])
    by_case = [float(row["estimated_dice"]) for row in rows if row["class"] == "mean"]
    assert by_case == sorted(by_case)
    assert all(abs(float(row["volume_z"])) < 10 for row in rows if row["class"] == "ball")


def test_teacher_and_student_are_compared(trained, tmp_path):
    teacher, student = load_teacher_and_student(trained.run.path)
    exported = load_model(trained.run.path).network.state_dict()
    assert all((value == exported[name]).all() for name, value in teacher.network.state_dict().items())
    assert any((value != exported[name]).any() for name, value in student.network.state_dict().items())
    assert load_teacher_and_student(trained.run.model) is None
    scan = next((trained.data / "images").iterdir())
    with_run = rank_scans([trained.run.path], [scan], tmp_path / "run", device="cpu")
    alone = rank_scans([trained.run.model], [scan], tmp_path / "model", device="cpu")
    assert with_run.rows[1]["disagreement"] is not None
    assert alone.rows[1]["disagreement"] is None
    assert alone.rows[1]["equivariance_dice"] == with_run.rows[1]["equivariance_dice"]
    assert alone.rows[1]["volume_z"] == with_run.rows[1]["volume_z"] is not None
    assert alone.rows[1]["estimated_dice"] is None
    assert "no estimate of the Dice: got 0 validation scans, expected at least 2" in alone.text()


def test_validation_scans_that_are_gone(trained, tmp_path):
    hidden = trained.data.with_name("elsewhere")
    scan = write_nifti(tmp_path / "new.nii.gz", ball((12, 14, 10), 20)[0])
    trained.data.rename(hidden)
    try:
        ranking = rank_scans([trained.run.path], [scan], tmp_path / "out", device="cpu")
    finally:
        hidden.rename(trained.data)
    assert ranking.done == ("new",)
    assert "no estimate of the Dice: the validation scans could not be used" in ranking.text()
    assert "no such file or folder" in ranking.text()


def test_an_implausible_volume_is_pointed_out(trained, tmp_path):
    image, _ = ball((12, 14, 10), 1)
    scan = write_nifti(tmp_path / "huge.nii.gz", image, np.diag([2.0, 2.0, 2.0, 1.0]))
    ranking = rank_scans([trained.run.model], [scan], tmp_path / "out", device="cpu")
    assert ranking.rows[1]["volume_z"] > 3
    assert "huge: implausible volume of ball: " in ranking.text()


@pytest.mark.slow
def test_estimates_follow_the_true_dice_of_simulated_brains(tmp_path, monkeypatch):
    """Some test scans are spoilt by noise, as validation scans are: the estimate must tell them from the others."""
    import nibabel as nib

    from semiseg.simulate.brain import simulate_brains

    monkeypatch.setenv("SEMISEG_WORKERS", "1")
    data = simulate_brains(tmp_path / "brains", subjects=14, test=0, spacing_mm=5.0)
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted((data / "imagesTr").glob("*.nii.gz"))):
        if number % 2:
            scan = nib.load(path)
            noisy = scan.get_fdata() + rng.normal(0, 0.05 * (number % 5 + 1) * scan.get_fdata().max(), scan.shape)
            nib.save(nib.Nifti1Image(noisy.astype(np.float32), scan.affine), path)
    words = (
        *("--dims", "2", "--steps", "80", "--precision", "32", "--set", "training.tensorboard=false"),
        *("--set", "plan.network={widths: [8, 16], strides: [[2, 2]]}", "--set", "plan.batch=4"),
        *("--labelled", "2", "--val", "5", "--test", "7", "--score", "--device", "cpu"),
    )
    code, _, err = semiseg("train", data, "--out", tmp_path / "run", *words)
    assert code == 0, err
    ranking = rank_scans(
        [tmp_path / "run"], [data], tmp_path / "out", only=tmp_path / "run" / "splits.json", device="cpu"
    )
    true: dict[str, list[float]] = {}
    for row in rows_of(tmp_path / "run" / "scores" / "metrics.csv"):
        true.setdefault(row["case"], []).append(float(row["dice"]))
    estimates = {row["case"]: row["estimated_dice"] for row in ranking.rows if row["class"] == "mean"}
    pairs = [(estimates[name], np.mean(values)) for name, values in true.items()]
    assert len(pairs) == 7
    assert spearmanr(*zip(*pairs, strict=True)).statistic > 0.7
    assert np.mean([abs(value - dice) for value, dice in pairs]) < 0.15
