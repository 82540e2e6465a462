"""The whole path on simulated scans: a few labels, many scans without, three methods, one report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semiseg.data.dataset import Case
from semiseg.data.layouts import open_dataset
from semiseg.devices import chosen_device
from semiseg.errors import SomeCasesFailed
from semiseg.evaluation.evaluate import evaluate_folder
from semiseg.experiments.experiment import train_run
from semiseg.experiments.run_settings import DataConfig, RunSettings
from semiseg.models.model import load_model
from semiseg.prediction.cases import predict_cases
from semiseg.progress import say
from semiseg.report.page import write_report
from semiseg.report.sources import runs_study
from semiseg.report.study import Result, Summary, summarise
from semiseg.simulate.brain import simulate_brains
from semiseg.training.session import TrainingConfig

METHODS = ("supervised", "roam", "equireg")
LABELLED, VALIDATION = 3, 2
PLAN: dict[str, Any] = {"network": {"widths": (16, 32, 64, 128)}, "batch": 4, "unlabelled_batch": 4}
"""A small network and batch: three methods have to be trained within minutes on two processor cores."""


def run_demo(
    out: Path,
    *,
    steps: int = 500,
    unlabelled: int = 20,
    test: int = 8,
    spacing_mm: float = 3.0,
    device: str = "auto",
    seed: int = 0,
) -> Path:
    """Simulate a cohort, train every method on it, score held-out subjects, and return the report's path.

    steps: of each method. unlabelled, test: subjects beside the 3 labelled ones and the 2 for validation.
    seed: of the subjects and the training. Parts that `out` already holds are kept; UserError or InputError
    if it was begun with other numbers.
    """
    out = Path(out)
    chosen_device(device)  # before minutes of simulating
    data = simulate_brains(
        out / "data",
        subjects=LABELLED + VALIDATION + unlabelled,
        test=test,
        spacing_mm=spacing_mm,
        seed=seed,
    )
    cases = [case for case in open_dataset(data).cases if case.split == "test"]
    results = [_run_method(out, data, name, cases, steps, device, seed) for name in METHODS]
    title = f"Simulated brains: {LABELLED} labelled scans, {unlabelled} without labels"
    report = write_report(
        [runs_study(results, title, commands=_commands(out, seed))],
        out / "report.html",
        title=title,
        remarks=[
            "Simulated scans: every subject is a deformed copy of one template with made-up contrast, bias "
            "field and noise. The scores show that the program works; they do not carry over to real scans.",
        ],
    )
    print(_table(summarise(results)))
    print(f"Simulated scans; full report: {report}")
    return report


def _run_method(out: Path, data: Path, name: str, cases: Sequence[Case], steps: int, device: str, seed: int) -> Result:
    run, evaluation, predictions = out / name, out / "scores" / name, out / "predictions" / name
    settings = RunSettings(
        data=DataConfig(path=str(data), labelled=str(LABELLED), val=str(VALIDATION)),
        method={"name": name},
        training=TrainingConfig(steps=steps),
        plan=PLAN,
        dims="2",
        seed=seed,
    )
    say(f"demo: {name}")
    train_run(settings, run, resume=True, device=device)
    predicted = predict_cases([load_model(run)], cases, predictions, device=device)
    scores = evaluate_folder(predictions, data / "labelsTs", evaluation)
    if predicted.exit_code or scores.exit_code:
        raise SomeCasesFailed(
            f"{predictions}: got failed scans, expected a prediction for each of {len(cases)}; "
            f"see failed.csv there and in {evaluation}"
        )
    return Result(name, run, evaluation, predictions)


def _table(summaries: Sequence[Summary]) -> str:
    lines = [f"{'method':<12} {'labelled':>8} {'unlabelled':>10} {'seconds':>8}   Dice on held-out scans"]
    for row in summaries:
        dice = f"{row.dice.mean:.3f}" + (f" ± {row.dice.sd:.3f}" if row.dice.sd is not None else "")
        lines.append(f"{row.method:<12} {row.labels:>8} {row.unlabelled:>10} {row.duration_s:>8.0f}   {dice}")
    return "\n".join(lines)


def _commands(out: Path, seed: int) -> list[str]:
    last = METHODS[-1]
    return [
        "# everything",
        f"semiseg demo --out {out} --seed {seed}",
        f"# one method alone, such as {last}",
        f"semiseg train {out}/data --config {out}/{last}/config.yaml --out again/{last}",
        f"semiseg predict again/{last} {out}/data/imagesTs --out again/predictions",
        f"semiseg evaluate again/predictions {out}/data/labelsTs --out again/scores",
    ]
