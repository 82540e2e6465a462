"""What a label-free score is worth: how well it orders scans by their true Dice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from semiseg.errors import InputError, UserError
from semiseg.files import replacing
from semiseg.rank.scores import SCORES
from semiseg.runs.contents import MOST, read_scores
from semiseg.tables import parse_table

_FEWEST = 3
"""Any two scans are in perfect order or in perfect disorder."""


@dataclass(frozen=True)
class Correlation:
    """Score against true Dice of one class, region or mean, a pair for every scan that has both."""

    name: str
    kind: str
    """class, region or mean"""
    score: str
    """Which of SCORES."""
    cases: tuple[str, ...]
    estimated: tuple[float, ...]
    true: tuple[float, ...]
    rho: float | None
    """Spearman's rank correlation, ties by mean rank; None for fewer than 3 scans, or where all have one value."""

    @property
    def rho_text(self) -> str:
        """Such as `rho 0.81 (n = 12)`."""
        return f"rho {'-' if self.rho is None else f'{self.rho:.2f}'} (n = {len(self.cases)})"

    @property
    def text(self) -> str:
        """Such as `core: rho 0.81 (n = 12)`."""
        return f"{self.name}: {self.rho_text}"


def rank_correlation(ranking_csv: Path, metrics_csv: Path, score: str = "equivariance_dice") -> list[Correlation]:
    """Compare a ranking with `semiseg evaluate`'s scores of the same model's predictions for the same scans.

    Classes and regions are told apart by name and label values. For a mean row, the true value is the mean over the
    classes (or regions) that the scan's truth has. Scans with state `ok` count; a scan without a score does not.

    Raises UserError for an unknown score, InputError if a file is not what it should be or no scan is in both.
    """
    if score not in SCORES:
        raise UserError(f"score: got {score!r}, expected one of: {', '.join(SCORES)}")
    ranked = read_ranking(ranking_csv, ("case", "class", "value", "kind", score))
    metrics = read_scores(metrics_csv)
    scored = {_key(one.case, one.name, one.value): one for one in metrics if one.state == "ok"}
    if not {row["case"] for row in ranked} & {one.case for one in metrics}:
        raise InputError(f"{metrics_csv}: got no case of {ranking_csv}, expected scores of the same scans; check both")
    truths: dict[tuple[str, str], list[float]] = {}
    pairs: dict[tuple[str, str, str], list[tuple[str, float, float]]] = {}
    for row in ranked:
        true = scored.get(_key(row["case"], row["class"], row["value"]))
        if row["kind"] != "mean" and true is not None and true.in_truth and true.dice is not None:
            truths.setdefault((row["case"], row["kind"]), []).append(true.dice)
    for row in ranked:
        values = pairs.setdefault((row["class"], row["value"], row["kind"]), [])
        if row["kind"] == "mean":
            dice = truths.get((row["case"], "region" if row["class"] == "regions_mean" else "class"))
            value = fmean(dice) if dice else None
        else:
            true = scored.get(_key(row["case"], row["class"], row["value"]))
            value = None if true is None else true.dice
        if value is not None and row[score]:
            values.append((row["case"], float(row[score]), value))
    return [_correlation(name, kind, score, found) for (name, _, kind), found in pairs.items()]


def draw_correlation(correlations: Sequence[Correlation], path: Path) -> str:
    """Write a PNG with a panel for each class, region or mean: a point a scan. Returns its alternative text, which is
    the PNG's Description too."""
    from semiseg.rank.figures import scatter

    score = correlations[0].score
    told = "; ".join(each.text for each in correlations)
    alternative = f"True Dice against {score}, a point a scan, a panel a structure. Rank correlation: {told}."
    panels = [(f"{each.name}\n{each.rho_text}", (each.estimated, each.true)) for each in correlations]
    png = scatter(panels, score.replace("_", " "), "true Dice", alternative, same_range=score.endswith("_dice"))
    with replacing(path) as temporary:
        temporary.write_bytes(png)
    return alternative


def _correlation(name: str, kind: str, score: str, found: Sequence[tuple[str, float, float]]) -> Correlation:
    from scipy.stats import spearmanr

    cases, estimated, true = zip(*found, strict=True) if found else ((), (), ())
    defined = len(found) >= _FEWEST and len(set(estimated)) > 1 and len(set(true)) > 1
    rho = float(spearmanr(estimated, true).statistic) if defined else None
    return Correlation(name, kind, score, cases, estimated, true, rho)


def _key(case: str, name: str, value: str) -> tuple[str, str, frozenset[str]]:
    return (case, name, frozenset(value.split("+")))


def read_ranking(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of ranking.csv. Raises InputError for a damaged one, or for scores that are no numbers."""

    def parse(row: dict[str, str]) -> dict[str, str]:
        for name in SCORES:
            if row.get(name) and not abs(float(row[name])) <= MOST:
                raise ValueError(f"{row[name]} as {name}")
        return row

    return parse_table(path, columns, "the ranking.csv of `semiseg rank`", "check the path", parse)
