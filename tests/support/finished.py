"""Folders as finished work leaves them, without any training: runs, a bench, a ranking, of a few simulated scans."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import yaml

from semiseg.bench.grid import BenchSettings, planned_runs
from semiseg.data.plan import Normalisation, Plan
from semiseg.evaluation.evaluate import COLUMNS
from semiseg.experiments.run_settings import DataConfig, RunSettings
from semiseg.manifest import write_manifest
from semiseg.rank.ranking import COLUMNS as RANKED

CLASSES = {"core": 1, "shell <b>&": 4}
CASES = ("a", "b", "c", "d", "e")
DICE = {"a": (0.9, 0.8), "b": (0.7, 0.6), "c": (0.5, 0.2), "d": (0.8, 0.7)}
"""Of core and shell; e has no core, and no shell either: nothing of it is scored but a false positive."""
SHAPE, AFFINE = (20, 16, 6), np.diag([2.0, 3.0, 4.0, 1.0])


def make_label(shift=0):
    label = np.zeros(SHAPE, np.uint8)
    label[4 + shift : 14 + shift, 4:12, 2:5] = 4
    label[7 + shift : 11 + shift, 6:10, 3] = 1
    return label


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return path


def make_dataset(root):
    rng = np.random.default_rng(0)
    for case in CASES:
        image = 40.0 * make_label() + rng.normal(100, 10, SHAPE)
        save(image.astype(np.float32), root / "images" / f"{case}.nii.gz")
        save(make_label(), root / "labels" / f"{case}.nii.gz")
    document = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, **CLASSES}}
    (root / "dataset.json").write_text(json.dumps(document))
    return root


def make_plan():
    return Plan(
        dims=2, channels=("MRI",), classes={"background": 0, **CLASSES}, slice_axis=2, spacing_mm=(2.0, 3.0, None),
        normalisation=(Normalisation(scheme="zscore"),), patch=(8, 8), batch=1, unlabelled_batch=1,
    )  # fmt: skip


def make_run(run, data, *, method="supervised", shift=0.0, labelled=3, validation=True, scored=True, term="supervised"):
    """A finished run whose Dice is `shift` above DICE; predictions are the truth, moved by a voxel."""
    run.mkdir(parents=True)
    settings = RunSettings(data=DataConfig(path=str(data), labelled=str(labelled)), method={"name": method})
    (run / "config.yaml").write_text(yaml.safe_dump(settings.resolved()) + "# <script>alert(1)</script>\n")
    make_plan().save(run / "plan.json")
    split = {"train": ["f"], "val": [], "unlabelled": [], "test": [*DICE], "split_seed": 0, "draw": 0}
    (run / "splits.json").write_text(json.dumps([split]))
    environment = {
        "python": "3.11",
        "cores": 2,
        "packages": {"torch": "2.0"},
        "command": ["/bin/semiseg", "train", "x y"],
    }
    (run / "env.json").write_text(json.dumps({**environment, "seed": 0}))
    lines = [
        {"step": step, "kind": "train", "lr": 0.01, "terms": {term: 1 / step}, "duration_s": 0.3 * step}
        for step in range(1, 41)
    ]
    if validation:
        dice = {step: step / 80 + shift for step in (20, 40)}
        lines += [{"step": k, "kind": "validation", "dice": {"core": d}, "dice_mean": d} for k, d in dice.items()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = {
        "checkpoint": "best" if validation else "last",
        "last": {"step": 40, "validation_dice": 0.5 + shift if validation else None},
        "best": {"step": 40 if validation else None, "validation_dice": 0.5 + shift if validation else None},
        "labelled": labelled,
        "validation": 2 * validation,
        "labels_used": f"{labelled} + {2 * validation} labelled",
        "unlabelled": 20 if method != "supervised" else 0,
        "duration_s": 12.3,
        "memory_gb": 1.5,
    }
    (run / "result.json").write_text(json.dumps(facts))
    if scored:
        make_scores(run / "scores", shift)
        for case in DICE:
            save(make_label(1), run / "predictions" / f"{case}.nii.gz")
        images = [path for path in (data / "images" / f"{case}.nii.gz" for case in CASES) if path.exists()]
        write_manifest(run / "predictions", "predict", images, [], 1.0, models=[str(run)])
        labels = [path for path in (data / "labels" / f"{case}.nii.gz" for case in CASES) if path.exists()]
        files = [*(run / "predictions" / f"{case}.nii.gz" for case in DICE), *labels]
        write_manifest(run / "scores", "evaluate", files, [], 1.0, settings={})
        if validation:
            shutil.copytree(run / "scores", run / "scores-last")
    return run


def make_scores(folder, shift):
    folder.mkdir()
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for case, values in DICE.items():
            for (name, value), dice in zip(CLASSES.items(), values, strict=True):
                hd95 = "" if (case, name) == ("c", "core") else 3.0
                writer.writerow(
                    {"case": case, "class": name, "value": value, "kind": "class", "state": "ok", "dice": dice + shift,
                     "hd95_mm": hd95, "far_ml": 0.1 + shift, "in_truth": True}
                )  # fmt: skip
            whole = {"case": case, "class": "whole", "value": "1+4", "kind": "region", "state": "ok"}
            writer.writerow({**whole, "dice": 0.95, "hd95_mm": 1.0, "in_truth": True})
        row = {"case": "e", "class": "core", "value": 1, "kind": "class", "state": "ok", "dice": 0.0, "in_truth": False}
        writer.writerow(row)


def make_bench(out, data, *, runs=9, leave_out=(), **choice):
    """Three methods with 2 and 4 labels and the upper bound; roam is 4 points better, equireg like the baseline."""
    settings = BenchSettings(
        run=RunSettings(data=DataConfig(path=str(data), test="4")).model_dump(mode="json"),
        methods={name: {"name": name} for name in ("supervised", "roam", "equireg")},
        labelled=("2", "4"),
        runs=runs,
        upper_runs=3,
        **choice,
    )
    out.mkdir(parents=True)
    (out / "bench.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
    rng = np.random.default_rng(1)
    gains = {"supervised": 0.0, "roam": 0.04, "equireg": 0.0}
    for run in planned_runs(settings):
        labels = 8 if run.labelled == "all" else int(run.labelled)
        level = {2: -0.1, 4: -0.06, 8: 0.02}[labels] + gains[run.method] * (labels < 8)
        if run.name not in leave_out:
            shift = level + rng.normal(0, 0.008)
            make_run(out / "runs" / run.name, data, method=run.method, shift=shift, labelled=labels)
    return out


def make_ranking(out, run, estimates=True):
    out.mkdir(parents=True)
    with (out / "ranking.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, RANKED)
        writer.writeheader()
        for case, values in DICE.items():
            for (name, value), dice in zip(CLASSES.items(), values, strict=True):
                scores = {"equivariance_dice": dice - 0.1} | ({"estimated_dice": dice - 0.05} if estimates else {})
                writer.writerow({"case": case, "class": name, "value": value, "kind": "class", **scores})
    write_manifest(out, "rank", [], [], 1.0, models=[str(run / "model")])
    return out
