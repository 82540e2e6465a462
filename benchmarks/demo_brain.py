"""Make the model that comes with the package, `demo-brain`, from simulated brains, and measure it on others.

    python benchmarks/demo_brain.py WORK

WORK gets the cohort, the run, the predictions and the scores (a quarter of an hour on one core); the bundle replaces
the one in src/semiseg/bundles.
"""

import sys
from pathlib import Path

from semiseg.data.layouts import open_dataset
from semiseg.evaluation.evaluate import evaluate_folder
from semiseg.experiments.experiment import train_run
from semiseg.experiments.run_settings import DataConfig, RunSettings
from semiseg.files import write_text
from semiseg.models.bundle import export_bundle
from semiseg.models.model import BUNDLES, load_model
from semiseg.prediction.cases import predict_cases
from semiseg.simulate.brain import simulate_brains
from semiseg.training.session import TrainingConfig

DESCRIPTION = (
    "Grey matter, white matter and fluid (ventricles, cisterns, wide sulci) in T1-weighted MR of the brain, skull "
    "removed. **For demonstration, not for clinical use**: every scan that it learnt from was simulated, a deformed "
    "copy of the MNI152 template (ICBM 2009a, as distributed with nilearn) with made-up contrast, bias field and noise."
)


def main(work: Path) -> None:
    data = simulate_brains(work / "data", subjects=40, test=6, spacing_mm=2.0, seed=20)
    settings = RunSettings(
        data=DataConfig(path=str(data), labelled="16", val="4"),
        method={"name": "roam"},
        training=TrainingConfig(steps=3000),
        dims="2",
        plan={"network": {"widths": (16, 32, 64, 128)}, "batch": 4, "unlabelled_batch": 4},
    )
    run = train_run(settings, work / "run", resume=True).path
    bundle = export_bundle(
        run, BUNDLES / "demo-brain", half=True, licence="Apache-2.0", description=DESCRIPTION, overwrite=True
    )
    rows = ["## Scores", "", "Mean Dice on simulated subjects that training never saw:", ""]
    rows += ["| subjects | grey matter | white matter | fluid |", "|---|---|---|---|"]
    for name, folder in {
        "6 at 2 mm": data,
        "6 at 3 mm": simulate_brains(work / "coarse", subjects=1, test=6, spacing_mm=3.0, seed=21),
        "4 at 1.5 mm": simulate_brains(work / "fine", subjects=1, test=4, spacing_mm=1.5, seed=22),
    }.items():
        cases = [case for case in open_dataset(folder).cases if case.split == "test"]
        found, scores = work / "predictions" / folder.name, work / "scores" / folder.name
        predict_cases([load_model(bundle)], cases, found, overwrite=True)
        classes = evaluate_folder(found, folder / "labelsTs", scores, overwrite=True).summary["classes"]
        rows.append(" | ".join([f"| {name}", *(f"{row['dice']['mean']:.3f}" for row in classes.values())]) + " |")
    card = bundle / "README.md"
    write_text(card, card.read_text(encoding="utf-8") + "\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
