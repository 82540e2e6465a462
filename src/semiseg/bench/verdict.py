"""What a comparison says, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from semiseg.bench.statistics import Interval

FEWEST = 6
"""Replicates. With five, not even all differences of one sign reach p = 0.05 (2 / 2^5)."""
ALPHA = 0.05

Kind = Literal["helped", "no evidence", "hurt", "too few runs"]


@dataclass(frozen=True)
class Verdict:
    """Of one method with one number of labels, against the baseline with the same labels."""

    kind: Kind
    text: str


def verdict(difference: Interval, p: float, replicates: int, bridged: Interval | None = None) -> Verdict:
    """difference: of Dice, as a share of 1. p: adjusted for the number of comparisons. bridged: share of the gap to all
    labels that is closed, where there is such a gap."""
    points = (
        f"{100 * difference.mean:+.1f} Dice points ({100 * difference.low:.1f} to {100 * difference.high:.1f})"
        if replicates > 1
        else f"{100 * difference.mean:+.1f} Dice points"
    )
    if replicates < FEWEST:
        runs = "run" if replicates == 1 else "runs"
        return Verdict(
            "too few runs", f"too few runs to say: {points} in {replicates} {runs}, at least {FEWEST} needed"
        )
    if p > ALPHA or not difference.excludes_zero:
        return Verdict("no evidence", f"no evidence that unlabelled scans helped: {points}")
    if difference.mean < 0:
        return Verdict("hurt", f"unlabelled scans hurt: {points}: use the supervised model")
    closed = f", {100 * bridged.mean:.0f} % of the gap to full labels closed" if bridged else ""
    return Verdict("helped", f"unlabelled scans helped: {points}{closed}")
