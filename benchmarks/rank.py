"""How well label-free scores follow the true Dice, over the runs of a comparison that ranked their test scans.

    python benchmarks/rank.py runs/bench/tumour --picture benchmarks/tumour-equivariance.png

Prints Spearman's rank correlation of a score (equivariance Dice) with the true Dice per scan, as mean over replicates,
a row a setting and a column a structure. Where the Dice was estimated, also by how much the mean Dice of a scan was
missed, how much that was foretold from the validation scans, and how much their mean Dice would have missed it. Draws
the pairs of all runs. A region that is one class is shown once.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import spearmanr

from semiseg import Correlation, draw_correlation, rank_correlation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--score", default="equivariance_dice", help="a column of ranking.csv")
    arguments = parser.parse_args()
    found: dict[str, list[list[Correlation]]] = defaultdict(list)
    errors: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for ranking in sorted(arguments.results.glob("*/rank/ranking.csv")):
        folder = ranking.parents[1]
        setting = folder.name.rpartition("-")[0]
        metrics = folder / "scores" / "metrics.csv"
        pairs = rank_correlation(ranking, metrics, arguments.score)
        found[setting].append(list({each.name: each for each in pairs}.values()))
        estimates = [each for each in rank_correlation(ranking, metrics, "estimated_dice") if each.name == "mean"]
        errors[setting] += [errors_of(each, ranking.parent) for each in estimates]
    names = [each.name for each in next(iter(found.values()))[0]]
    print(f"| setting | runs | {' | '.join(names)} | estimate missed by | foretold | validation mean missed by |")
    print(f"|---|---|{'---|' * len(names)}---|---|---|")
    for setting, runs in found.items():
        cells = []
        for name in names:
            rhos = [each.rho for run in runs for each in run if each.name == name and each.rho is not None]
            cells.append(f"{fmean(rhos):.2f}" if rhos else "-")
        cells += [f"{fmean(column):.3f}" for column in zip(*errors[setting], strict=True)] or ["-"] * 3
        print(f"| {setting} | {len(runs)} | {' | '.join(cells)} |")
    if arguments.picture:
        print(draw_correlation([pooled(name, found) for name in names], arguments.picture))


def errors_of(estimates: Correlation, folder: Path) -> tuple[float, float, float]:
    """Mean absolute errors over the scans: of their estimates, of these as foretold, of the validation scans' mean."""
    estimated, true = np.array(estimates.estimated), np.array(estimates.true)
    foretold = json.loads((folder / "summary.json").read_text())["estimate"]["scans"]["mae"]
    validation = rank_correlation(folder / "calibration/ranking/ranking.csv", folder / "calibration/scores/metrics.csv")
    usual = fmean(next(each for each in validation if each.name == "mean").true)
    return float(abs(estimated - true).mean()), foretold, float(abs(usual - true).mean())


def pooled(name: str, found: dict[str, list[list[Correlation]]]) -> Correlation:
    """The pairs of all runs. The correlation is over runs and scans together, so it also tells good models from bad."""
    parts = [each for runs in found.values() for run in runs for each in run if each.name == name]
    estimated = tuple(np.concatenate([part.estimated for part in parts]).tolist())
    true = tuple(np.concatenate([part.true for part in parts]).tolist())
    rho = float(spearmanr(estimated, true).statistic)
    cases = tuple(case for part in parts for case in part.cases)
    return replace(parts[0], cases=cases, estimated=estimated, true=true, rho=rho)


if __name__ == "__main__":
    main()
