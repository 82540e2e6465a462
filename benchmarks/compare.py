"""Train, predict and evaluate a grid of settings over replicates, and write the tables of a benchmark.

    python benchmarks/compare.py benchmarks/atria.yaml --data ../shared/data/atria --out runs/atria

Every run is an ordinary `semiseg train` + `predict` + `evaluate` folder; finished ones are not repeated. A replicate is
one draw of labelled scans and one seed, the same for all settings. The plan and the test scans are the same for all.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

BESIDE = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # this environment's `semiseg`
MOST_COLUMNS = 6
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": BESIDE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, one thread each")
    parser.add_argument("--only", nargs="*", help="names of settings")
    parser.add_argument("--dry-run", action="store_true", help="print the command lines, and stop")
    arguments = parser.parse_args()
    grid = yaml.safe_load(arguments.grid.read_text())
    out: Path = arguments.out
    plan = out / "plan.json"
    base = [*grid.get("flags", []), "--dims", str(grid["dims"])]
    base += [part for place in ("test", "val") if place in grid for part in (f"--{place}", str(grid[place]))]
    if "folds" in grid:  # each fold has test scans of its own, so no plan can be shared
        base += _sets([f"plan.{key}={json.dumps(value)}" for key, value in grid["plan"].items()])
    else:
        sets = [f"plan.{key}={json.dumps(value)}" for key, value in grid["plan"].items()]
        planning = ["semiseg", "plan", arguments.data, "--out", str(plan), *base, *_sets(sets)]
        base += ["--plan", str(plan)]
    runs = [
        (name, replicate)
        for replicate in range(grid["replicates"])
        for name, setting in grid["settings"].items()
        if replicate < setting.get("replicates", grid["replicates"]) and (not arguments.only or name in arguments.only)
    ]
    if arguments.dry_run:
        lines = [planning] if "folds" not in grid else []
        lines += [line for run in runs for line in commands(grid, *run, arguments.data, out, base)]
        print("\n".join(map(shlex.join, lines)))
        return
    out.mkdir(parents=True, exist_ok=True)
    if "folds" not in grid and not plan.exists():
        call(planning)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda run: one_run(grid, *run, arguments.data, out, base), runs))
    print(tables(grid, out))


def one_run(grid: dict[str, Any], name: str, replicate: int, data: str, out: Path, base: list[str]) -> None:
    folder = out / f"{name}-{replicate}"
    scored = [folder / "scores", *(folder / f"scores-{place}" for place in grid.get("also_test", {}))]
    if all((place / "summary.json").exists() for place in scored):
        return
    with (out / f"{name}-{replicate}.log").open("a") as log:
        for command in commands(grid, name, replicate, data, out, base):
            call(command, log)
    print(f"{name} {replicate}: Dice {mean_of(scored[0], 'dice'):.3f}", flush=True)


def commands(
    grid: dict[str, Any], name: str, replicate: int, data: str, out: Path, base: list[str]
) -> Iterator[list[str]]:
    """Of one run: train, predict, evaluate, and what else the grid asks for."""
    setting, folder = grid["settings"][name], out / f"{name}-{replicate}"
    run, predictions, scores = folder / "run", folder / "predictions", folder / "scores"
    count = setting.get("labelled", grid.get("labelled"))
    labelled = [] if count is None else ["--labelled", str(count)]
    which = ["--fold", f"{replicate + 1}/{grid['folds']}"] if "folds" in grid else ["--draw", str(replicate)]
    steps = grid["steps"] * setting.get("times_steps", 1)
    sets = [f"method.{key}={json.dumps(value)}" for key, value in setting.get("set", {}).items()]
    resume = ["--resume"] if (run / "config.yaml").exists() else []
    train = ["semiseg", "train", data, "--method", setting["method"], "--out", str(run)]
    train += [*base, *labelled, *which, "--seed", str(replicate), "--steps", str(steps)]
    common = [f"{key}={json.dumps(value)}" for key, value in grid.get("set", {}).items()]
    yield [*train, "--workers", "1", *_sets([*common, *sets, "training.tensorboard=false", "score=false"]), *resume]
    chosen = ["--cases", str(run / "splits.json")]
    yield ["semiseg", "predict", str(run), data, "--out", str(predictions), *chosen]
    yield ["semiseg", "evaluate", str(predictions), data, "--out", str(scores)]
    for place, scans in grid.get("also_test", {}).items():
        there = folder / f"predictions-{place}"
        # copies of the test scans, with their labels; or other scans, with labels of their own
        images, labels, only = (scans, data, chosen) if isinstance(scans, str) else (*scans, [])
        yield ["semiseg", "predict", str(run), images, "--out", str(there), *only]
        yield ["semiseg", "evaluate", str(there), labels, "--out", str(folder / f"scores-{place}")]
    if grid.get("rank"):
        yield ["semiseg", "rank", str(run), data, "--out", str(folder / "rank"), *chosen]


def call(command: list[str], log: Any = None) -> None:
    if log is not None:
        log.write(f"$ {shlex.join(command)}\n")
        log.flush()
    subprocess.run(command, check=True, env=ONE_THREAD, stdout=log, stderr=log)


def _sets(values: list[str]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def mean_of(scores: Path, metric: str) -> float:
    return float(json.loads((scores / "summary.json").read_text())["mean"][metric])


def per_class(scores: Path, metric: str) -> dict[str, float]:
    """Mean over the cases that have the class and a value, read from the rows themselves (HD95: both have it)."""
    values: dict[str, list[float]] = {}
    with (scores / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["in_truth"].lower() in ("true", "1") and row[metric]:
                values.setdefault(row["class"], []).append(float(row[metric]))
    return {name: statistics.fmean(numbers) for name, numbers in values.items()}


def tables(grid: dict[str, Any], out: Path) -> str:
    """Markdown: mean and standard deviation over replicates per class, then paired differences."""
    found: dict[str, list[Path]] = {}
    for name in grid["settings"]:
        folders = [out / f"{name}-{replicate}" for replicate in range(grid["replicates"])]
        found[name] = [folder for folder in folders if (folder / "scores" / "summary.json").exists()]
    found = {name: folders for name, folders in found.items() if folders}
    classes = list(per_class(next(iter(found.values()))[0] / "scores", "dice"))
    if not 1 < len(classes) <= MOST_COLUMNS:
        classes = []
    others = list(grid.get("also_test", {}))
    heads = ["Dice", *(f"Dice {c}" for c in classes), *(f"Dice, {place}" for place in others)]
    heads += ["HD95 mm", *(f"HD95 {c}" for c in classes)]
    lines = [f"| setting | runs | {' | '.join(heads)} | minutes |", f"|---|---|{'---|' * len(heads)}---|"]
    for name, folders in found.items():
        columns: list[list[float]] = []
        for metric in ("dice", "hd95_mm"):
            columns.append([mean_of(folder / "scores", metric) for folder in folders])
            columns += [[per_class(folder / "scores", metric)[c] for folder in folders] for c in classes]
            if metric == "dice":
                columns += [[mean_of(folder / f"scores-{place}", metric) for folder in folders] for place in others]
        digits = [3 if head.startswith("Dice") else 2 for head in heads]
        cells = [_spread(column, digit) for column, digit in zip(columns, digits, strict=True)]
        seconds = [json.loads((folder / "run" / "result.json").read_text())["duration_s"] for folder in folders]
        lines.append(f"| {name} | {len(folders)} | {' | '.join(cells)} | {statistics.fmean(seconds) / 60:.1f} |")
    baseline = [mean_of(folder / "scores", "dice") for folder in found.get("supervised", [])]
    if baseline:
        lines += ["", "Dice points above supervised, for each replicate (the same labelled scans and seed):", ""]
        numbers = [f"replicate {k}" for k in range(len(baseline))]
        lines += [f"| setting | {' | '.join(numbers)} | mean |", f"|---|{'---|' * len(numbers)}---|"]
        for name, folders in found.items():
            if name == "supervised" or len(folders) < len(baseline):
                continue
            gains = [100 * (mean_of(f / "scores", "dice") - b) for f, b in zip(folders, baseline, strict=True)]
            cells = [f"{gain:+.1f}" for gain in [*gains, statistics.fmean(gains)]]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        upper = found.get("all-labels")
        if upper:
            gap = mean_of(upper[0] / "scores", "dice") - statistics.fmean(baseline)
            lines += ["", "Share of the gap to all labels that is closed:", ""]
            for name, folders in found.items():
                if name not in ("supervised", "all-labels"):
                    gain = statistics.fmean(mean_of(f / "scores", "dice") for f in folders) - statistics.fmean(baseline)
                    lines.append(f"- {name}: {100 * gain / gap:.0f} % of {100 * gap:.1f} points")
    return "\n".join(lines)


def _spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
