"""Draw a finished `semiseg bench`: Dice of every replicate, and its differences from the baseline.

    python benchmarks/bench_plot.py runs/bench/atria --out benchmarks/atria.png

A thin line is one replicate: the same labelled scans and the same seed through all methods. Thick marks are means with
95 % intervals as in `bench.json`. For a bench with one number of labels; the report draws curves over several.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    lines = json.loads((arguments.bench / "bench.json").read_text())["lines"]
    upper = [line for line in lines if line["labelled"] == "all"]
    compared = [line for line in lines if line["labelled"] != "all"]
    names = [line["method"] for line in compared]
    scores = {name: means(arguments.bench, name, compared[0]["labelled"]) for name in names}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for replicate in sorted(scores[names[0]]):
        values = [scores[name].get(replicate) for name in names]
        if None not in values:
            left.plot(range(len(names)), values, color="0.75", linewidth=0.8, marker=".", markersize=4)
    intervals(left, [line["dice"] for line in compared], 1)
    for line, style in zip(upper, ("--", ":"), strict=False):
        steps = f"{line['budget']} x the steps" if line["budget"] > 1 else "the same steps"
        left.axhline(line["dice"]["mean"], color="#d55e00", linestyle=style, label=f"all labels, {steps}")
    left.set_xticks(range(len(names)), names)
    left.set_ylabel("Dice, mean over test scans")
    if upper:
        left.legend(frameon=False, fontsize=8)
    others = [line for line in compared if line["difference"]]
    for place, line in enumerate(others):
        base = scores[names[0]]
        gains = [100 * (value - base[k]) for k, value in scores[line["method"]].items() if k in base]
        right.scatter([place] * len(gains), gains, color="0.75", s=12)
    intervals(right, [line["difference"] for line in others], 100)
    right.axhline(0, color="0.3", linewidth=0.8)
    right.set_xticks(range(len(others)), [line["method"] for line in others])
    right.set_ylabel(f"Dice points above {names[0]}")
    for axes in (left, right):
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(arguments.out, dpi=110)


def means(bench: Path, method: str, labelled: str) -> dict[int, float]:
    """Of each replicate that is finished."""
    made = {}
    for summary in (bench / "runs").glob(f"{method}-{labelled}-*/scores/summary.json"):
        replicate = int(summary.parents[1].name.rpartition("-")[2])
        made[replicate] = json.loads(summary.read_text())["mean"]["dice"]
    return made


def intervals(axes: plt.Axes, given: list[dict[str, float]], scale: float) -> None:
    middle = [scale * each["mean"] for each in given]
    below = [scale * (each["mean"] - each["low"]) for each in given]
    above = [scale * (each["high"] - each["mean"]) for each in given]
    axes.errorbar(range(len(given)), middle, [below, above], fmt="o", color="#0072b2", capsize=4, linewidth=2, zorder=3)


if __name__ == "__main__":
    main()
