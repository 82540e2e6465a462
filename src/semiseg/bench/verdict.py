"""What a comparison says, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from semiseg.bench.statistics import Interval

FEWEST = 6
"""Replicates. With five, not even all differences of one sign reach p = 0.05 (2 / 2^5)."""
ALPHA = 0.05

Kind = Literal["helped", "no evidence", "hurt", "better", "worse", "too few runs", "not judged"]


@dataclass(frozen=True)
class Verdict:
    """Of one method with one number of labels, against another with the same labels."""

    kind: Kind
    text: str


def verdict(
    difference: Interval,
    p: float | None,
    replicates: int,
    bridged: Interval | None = None,
    *,
    other: str | None = None,
    needed: int = FEWEST,
) -> Verdict:
    """difference: of Dice, as a share of 1. p: adjusted for the number of comparisons; None outside the family.

    bridged: share of the gap to all labels that is closed, where there is such a gap. other: what it is compared with,
    if not the supervised baseline. needed: replicates with which the comparisons in the family can be significant.
    """
    points = (
        f"{100 * difference.mean:+.1f} Dice points ({100 * difference.low:.1f} to {100 * difference.high:.1f})"
        if replicates > 1
        else f"{100 * difference.mean:+.1f} Dice points"
    )
    against = f" against {other}" if other else ""
    if p is None:
        return Verdict("not judged", f"no verdict outside the family: {points}{against}")
    if replicates < needed:
        runs = "run" if replicates == 1 else "runs"
        return Verdict(
            "too few runs", f"too few runs to say: {points}{against} in {replicates} {runs}, at least {needed} needed"
        )
    if p > ALPHA or not difference.excludes_zero:
        lacking = f"of a difference from {other}" if other else "that unlabelled scans helped"
        return Verdict("no evidence", f"no evidence {lacking}: {points}")
    if other:
        kind: Kind = "better" if difference.mean > 0 else "worse"
        return Verdict(kind, f"{kind} than {other}: {points}")
    if difference.mean < 0:
        return Verdict("hurt", f"unlabelled scans hurt: {points}: use the supervised model")
    closed = f", {100 * bridged.mean:.0f} % of the gap to full labels closed" if bridged else ""
    return Verdict("helped", f"unlabelled scans helped: {points}{closed}")
