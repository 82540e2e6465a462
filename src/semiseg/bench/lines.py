"""From finished runs to one line a method and number of labels: means, intervals, tests, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semiseg.bench.choice import Choice, runs_needed, too_many
from semiseg.bench.grid import ALL, BASELINE
from semiseg.bench.results import Finished, case_scores, mean_distance
from semiseg.bench.statistics import (
    Interval,
    Scores,
    bridging_coefficient,
    crossed_interval,
    crossed_p,
    holm,
    sign_flip_p,
)
from semiseg.bench.verdict import Verdict, verdict
from semiseg.runs.contents import far_ml_by_case
from semiseg.tables import write_table

USUAL = Choice(against=BASELINE)


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
    against: str | None = None
    """The method that this one is compared with; None of that one itself, and of the upper bound."""
    difference: Interval | None = None
    """From that method with the same labels, replicate by replicate."""
    pairs: int = 0
    """Replicates that both have: what the difference and its test rest on."""
    p: float | None = None
    """Of methods in the family."""
    p_holm: float | None = None
    """Adjusted for all comparisons in the family."""
    p_crossed: float | None = None
    """Where the scans are a sample too; adjusted in the same way."""
    bridging: Interval | None = None
    """Of the gap between the baseline and all labels, whatever the method is compared with."""
    verdict: Verdict | None = None
    far_ml: float | None = None
    """Predicted far from everything true, all classes of a scan together: mean over scans, then over replicates."""
    hd95_mm: float | None = None
    """Mean over the classes and scans that have one, then over replicates."""
    minutes: float = 0.0
    """Of training, mean over replicates."""
    passes: float | None = None
    """Forward passes in a training step, in those of the labelled batch: mean over replicates."""
    precision: str = ""
    layout: str = ""
    """Those of all replicates; empty where their results do not say it."""
    memory_gb: float | None = None
    """Largest of all replicates."""

    @property
    def p_of_verdict(self) -> float | None:
        """The larger one: an effect has to be one in other replicates and on other scans."""
        return None if self.p_holm is None or self.p_crossed is None else max(self.p_holm, self.p_crossed)


def summarise(finished: Sequence[Finished], choice: Choice = USUAL) -> list[Line]:
    """Lines in the order of the runs; what the others are compared with has no difference, nor has the upper bound."""
    groups: dict[tuple[str, str, int], list[Finished]] = {}
    for one in finished:
        groups.setdefault((one.run.method, one.run.labelled, one.run.budget), []).append(one)
    lines = [_line(runs, groups, choice) for runs in groups.values()]
    tested = [line for line in lines if line.p is not None]
    over_replicates, over_both = (holm([getattr(line, key) for line in tested]) for key in ("p", "p_crossed"))
    adjusted = {
        id(line): replace(line, p_holm=p_holm, p_crossed=p_crossed)
        for line, p_holm, p_crossed in zip(tested, over_replicates, over_both, strict=True)
    }
    needed = runs_needed(len(tested)) if tested else 0
    return [_judged(adjusted.get(id(line), line), needed) for line in lines]


def _line(runs: Sequence[Finished], groups: dict[tuple[str, str, int], list[Finished]], choice: Choice) -> Line:
    run = runs[0].run
    scores = case_scores(runs)
    means = scores.mean(1)
    chose = any(one.result.checkpoint != "last" for one in runs)
    memory = [one.result.memory_gb for one in runs if one.result.memory_gb]
    passes = [one.result.passes_per_step for one in runs if one.result.passes_per_step is not None]
    far_ml = [far_ml_by_case(one.scores[one.result.checkpoint]).values() for one in runs]
    facts: dict[str, Any] = {
        "labels_used": runs[0].result.labels_used,
        "replicates": len(runs),
        "cases": scores.shape[1],
        "dice": crossed_interval(scores),
        "dice_sd": float(means.std(ddof=1)) if len(means) > 1 else None,
        "dice_last": float(case_scores(runs, checkpoint="last").mean()) if chose else None,
        "far_ml": float(np.mean([np.mean(list(each)) for each in far_ml])) if all(far_ml) else None,
        "hd95_mm": mean_distance(runs, "hd95_mm"),
        "minutes": float(np.mean([one.result.duration_s for one in runs])) / 60,
        "passes": float(np.mean(passes)) if passes else None,
        "precision": ", ".join(sorted({one.result.precision for one in runs if one.result.precision})),
        "layout": ", ".join(sorted({one.result.layout for one in runs if one.result.layout})),
        "memory_gb": max(memory) if memory else None,
    }
    if run.labelled != ALL and choice.compares(run.method):
        facts |= _against(runs, groups.get((choice.against, run.labelled, 1), []), choice)
    if run.labelled != ALL and run.method != BASELINE:
        facts["bridging"] = _bridging(runs, groups.get((BASELINE, run.labelled, 1), []), groups.get((BASELINE, ALL, 1)))
    return Line(run.method, run.labelled, budget=run.budget, **facts)


def _against(runs: Sequence[Finished], others: Sequence[Finished], choice: Choice) -> dict[str, Any]:
    own, other = _paired(runs, others)
    if not len(own):
        return {}
    facts = {"against": choice.against, "pairs": len(own), "difference": crossed_interval(own - other)}
    if choice.judges(runs[0].run.method):
        facts |= {"p": sign_flip_p((own - other).mean(1)), "p_crossed": crossed_p(own - other)}
    return facts


def _bridging(
    runs: Sequence[Finished], baseline: Sequence[Finished], upper: Sequence[Finished] | None
) -> Interval | None:
    own, base = _paired(runs, baseline)
    return bridging_coefficient(own, base, case_scores(upper)) if upper and len(own) else None


def _paired(runs: Sequence[Finished], others: Sequence[Finished]) -> tuple[Scores, Scores]:
    """Of the same replicates and cases; a replicate that one of the two lacks is left out."""
    own, other = ({one.run.replicate: one for one in each} for each in (runs, others))
    shared = sorted(own.keys() & other.keys())
    scores = case_scores([own[k] for k in shared] + [other[k] for k in shared])
    return scores[: len(shared)], scores[len(shared) :]


def _judged(line: Line, needed: int) -> Line:
    if line.difference is None:
        return line
    other = None if line.against == BASELINE else line.against
    said = verdict(line.difference, line.p_of_verdict, line.pairs, line.bridging, other=other, needed=needed)
    return replace(line, verdict=said)


def notes(lines: Sequence[Line], choice: Choice, before_scores: Choice | None = None) -> list[str]:
    """What is to be known of all verdicts together. before_scores: what was chosen then, if not `choice`."""
    found = [too_many([line.pairs for line in lines if line.p is not None])]
    if before_scores is not None:
        found.append(
            f"chosen after scores were there: {choice.text()}; before: {before_scores.text()}; such verdicts are hints "
            "for a new bench"
        )
    return [note for note in found if note]


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
        *(("difference", 10), ("95 % interval", 14), ("p (Holm)", 8), ("gap closed", 16), ("far mL", 6), ("HD95", 5)),
        *(("min", 6), ("passes", 6), ("GB", 5), ("precision", 9), ("layout", 13)),
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
            "-" if line.far_ml is None else f"{line.far_ml:.2f}",
            "-" if line.hd95_mm is None else f"{line.hd95_mm:.1f}",
            f"{line.minutes:.1f}",
            "-" if line.passes is None else f"{line.passes:.1f}",
            "-" if line.memory_gb is None else f"{line.memory_gb:.1f}",
            line.precision or "-",
            line.layout or "-",
        )
        rows.append("  ".join(cell.ljust(width) for cell, (_, width) in zip(cells, heads, strict=True)).rstrip())
    said = [f"{line.method}, {line.labelled} labelled: {line.verdict.text}" for line in lines if line.verdict]
    return "\n".join([*rows, "", *said])
