"""From finished runs to one line a method and number of labels: means, intervals, tests, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semiseg.bench.grid import ALL, BASELINE
from semiseg.bench.results import Finished, case_scores
from semiseg.bench.statistics import Interval, bridging_coefficient, crossed_interval, crossed_p, holm, sign_flip_p
from semiseg.bench.verdict import Verdict, verdict
from semiseg.runs.contents import far_ml_by_case
from semiseg.tables import write_table


@dataclass(frozen=True)
class Line:
    """One method with one number of labels. Dice is the mean over classes, regions left out, of whole scans."""

    method: str
    labelled: str
    labels_used: str
    """Labelled and validation scans: both cost labels."""
    budget: int
    replicates: int
    cases: int
    dice: Interval
    dice_sd: float | None
    """Over replicates."""
    dice_last: float | None
    """Of the last checkpoint, where validation scans chose one."""
    difference: Interval | None = None
    """From the baseline with the same labels, replicate by replicate."""
    pairs: int = 0
    """Replicates that the baseline has too: what the difference and its test rest on."""
    p: float | None = None
    p_holm: float | None = None
    """Adjusted for all comparisons of the bench."""
    p_crossed: float | None = None
    """Where the scans are a sample too; adjusted in the same way."""
    bridging: Interval | None = None
    verdict: Verdict | None = None
    far_ml: float | None = None
    """Predicted far from everything true, all classes of a scan together: mean over scans, then over replicates."""
    minutes: float = 0.0
    """Of training, mean over replicates."""
    memory_gb: float | None = None
    """Largest of all replicates."""

    @property
    def p_of_verdict(self) -> float | None:
        """The larger one: an effect has to be one in other replicates and on other scans."""
        return None if self.p_holm is None or self.p_crossed is None else max(self.p_holm, self.p_crossed)


def summarise(finished: Sequence[Finished]) -> list[Line]:
    """Lines in the order of the runs; the baseline and the upper bound have no difference."""
    groups: dict[tuple[str, str, int], list[Finished]] = {}
    for one in finished:
        groups.setdefault((one.run.method, one.run.labelled, one.run.budget), []).append(one)
    lines = [_line(runs, groups) for runs in groups.values()]
    tested = [line for line in lines if line.p is not None]
    over_replicates, over_both = (holm([getattr(line, key) for line in tested]) for key in ("p", "p_crossed"))
    adjusted = dict(zip(map(id, tested), zip(over_replicates, over_both, strict=True), strict=True))
    return [_judged(line, *adjusted[id(line)]) if id(line) in adjusted else line for line in lines]


def _line(runs: Sequence[Finished], groups: dict[tuple[str, str, int], list[Finished]]) -> Line:
    run = runs[0].run
    scores = case_scores(runs)
    means = scores.mean(1)
    chose = any(one.result.checkpoint != "last" for one in runs)
    memory = [one.result.memory_gb for one in runs if one.result.memory_gb]
    far_ml = [far_ml_by_case(one.scores[one.result.checkpoint]).values() for one in runs]
    facts: dict[str, Any] = {
        "labels_used": runs[0].result.labels_used,
        "replicates": len(runs),
        "cases": scores.shape[1],
        "dice": crossed_interval(scores),
        "dice_sd": float(means.std(ddof=1)) if len(means) > 1 else None,
        "dice_last": float(case_scores(runs, checkpoint="last").mean()) if chose else None,
        "far_ml": float(np.mean([np.mean(list(each)) for each in far_ml])) if all(far_ml) else None,
        "minutes": float(np.mean([one.result.duration_s for one in runs])) / 60,
        "memory_gb": max(memory) if memory else None,
    }
    if run.labelled != ALL and run.method != BASELINE:
        facts |= _against(runs, groups.get((BASELINE, run.labelled, 1), []), groups.get((BASELINE, ALL, 1), []))
    return Line(run.method, run.labelled, budget=run.budget, **facts)


def _against(runs: Sequence[Finished], baseline: Sequence[Finished], upper: Sequence[Finished]) -> dict[str, Any]:
    """Paired by replicate; a replicate that one of the two lacks is left out."""
    own = {one.run.replicate: one for one in runs}
    other = {one.run.replicate: one for one in baseline}
    shared = sorted(own.keys() & other.keys())
    if not shared:
        return {}
    pair = case_scores([own[k] for k in shared] + [other[k] for k in shared])  # on the same cases
    method, base = pair[: len(shared)], pair[len(shared) :]
    facts: dict[str, Any] = {
        "pairs": len(shared),
        "difference": crossed_interval(method - base),
        "p": sign_flip_p((method - base).mean(1)),
        "p_crossed": crossed_p(method - base),
    }
    if upper:
        facts["bridging"] = bridging_coefficient(method, base, case_scores(upper))
    return facts


def _judged(line: Line, p_holm: float, p_crossed: float) -> Line:
    tested = replace(line, p_holm=p_holm, p_crossed=p_crossed)
    assert tested.difference is not None
    assert tested.p_of_verdict is not None
    return replace(tested, verdict=verdict(tested.difference, tested.p_of_verdict, tested.pairs, tested.bridging))


def to_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Plain values; an end of an interval that is not finite is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return [plain(asdict(line)) for line in lines]


def write_summary(lines: Sequence[Line], path: Path) -> None:
    """summary.csv: intervals as three columns each."""
    rows = [_flat(values) for values in to_json(lines)]
    write_table(path, [*rows[0]] if rows else ["method"], rows)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    parts = dict.fromkeys(("dice", "difference", "bridging"), ("mean", "low", "high")) | {"verdict": ("kind", "text")}
    flat: dict[str, Any] = {}
    for name, value in values.items():
        for part in parts.get(name, ()):
            flat[name if part == "mean" else f"{name}_{part}"] = value[part] if value else None
        if name not in parts:
            flat[name] = value
    return flat


def table(lines: Sequence[Line]) -> str:
    """For people: a row a line, then the verdicts."""
    heads = (
        *(
            ("method", 22),
            ("labels", 8),
            ("used", 8),
            ("runs", 4),
            ("Dice", 5),
            ("sd", 5),
            ("95 % interval", 14),
            ("last", 5),
        ),
        *(("difference", 10), ("95 % interval", 14), ("p (Holm)", 8), ("gap closed", 16), ("min", 6), ("GB", 5)),
    )
    rows = ["  ".join(name.ljust(width) for name, width in heads)]
    for line in lines:
        longer = f" x{line.budget}" if line.budget != 1 else ""
        difference, bridged = line.difference, line.bridging
        cells = (
            line.method + longer,
            line.labelled,
            line.labels_used.removesuffix(" labelled"),
            str(line.replicates),
            f"{line.dice.mean:.3f}",
            "-" if line.dice_sd is None else f"{line.dice_sd:.3f}",
            f"{line.dice.low:.3f} to {line.dice.high:.3f}",
            "-" if line.dice_last is None else f"{line.dice_last:.3f}",
            "-" if difference is None else f"{100 * difference.mean:+.1f}",
            "-" if difference is None else f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}",
            "-" if line.p_of_verdict is None else f"{line.p_of_verdict:.3f}",
            "-" if bridged is None else f"{bridged.mean:.0%} ({bridged.low:.0%} to {bridged.high:.0%})",
            f"{line.minutes:.1f}",
            "-" if line.memory_gb is None else f"{line.memory_gb:.1f}",
        )
        rows.append("  ".join(cell.ljust(width) for cell, (_, width) in zip(cells, heads, strict=True)).rstrip())
    said = [f"{line.method}, {line.labelled} labelled: {line.verdict.text}" for line in lines if line.verdict]
    return "\n".join([*rows, "", *said])
