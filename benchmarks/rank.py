"""How well label-free scores follow the true Dice, over the runs of a comparison that ranked their test scans.

    python benchmarks/rank.py runs/bench/tumour --picture benchmarks/tumour-equivariance.png

Prints Spearman's rank correlation of equivariance Dice with true Dice per scan, as mean over replicates, a row a
setting and a column a structure, and mean absolute errors of the estimated Dice where there is one. Draws the pairs of
all runs. A region that is one class is shown once.
"""

from __future__ import annotations

import argparse
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
    arguments = parser.parse_args()
    found: dict[str, list[list[Correlation]]] = defaultdict(list)
    errors: dict[str, list[float]] = defaultdict(list)
    for ranking in sorted(arguments.results.glob("*/rank/ranking.csv")):
        folder = ranking.parents[1]
        setting = folder.name.rpartition("-")[0]
        metrics = folder / "scores" / "metrics.csv"
        found[setting].append(list({each.name: each for each in rank_correlation(ranking, metrics)}.values()))
        errors[setting] += [
            abs(a - b)
            for each in rank_correlation(ranking, metrics, "estimated_dice")
            if each.name == "mean"
            for a, b in zip(each.estimated, each.true, strict=True)
        ]
    names = [each.name for each in next(iter(found.values()))[0]]
    print(f"| setting | runs | {' | '.join(names)} | error of the estimated mean Dice |")
    print(f"|---|---|{'---|' * len(names)}---|")
    for setting, runs in found.items():
        cells = []
        for name in names:
            rhos = [each.rho for run in runs for each in run if each.name == name and each.rho is not None]
            cells.append(f"{fmean(rhos):.2f}" if rhos else "-")
        error = f"{fmean(errors[setting]):.3f}" if errors[setting] else "-"
        print(f"| {setting} | {len(runs)} | {' | '.join(cells)} | {error} |")
    if arguments.picture:
        print(draw_correlation([pooled(name, found) for name in names], arguments.picture))


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
