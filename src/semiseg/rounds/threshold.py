"""From which probability on guesses are precise enough to learn from, as scans with labels tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

LEVELS = np.arange(1001, dtype=np.float32) / np.float32(1000)
"""The thresholds that are tried, in 32 bits like the probabilities that are compared with them."""


@dataclass(frozen=True)
class Threshold:
    """A probability; precision and kept: of the guesses from it on, and their share, where there were labels."""

    value: float
    precision: float | None = None
    kept: float | None = None


def tally(confidence: Float[np.ndarray, "n"], right: Bool[np.ndarray, "n"]) -> Int[np.ndarray, "2 levels"]:
    """Of all guesses, and of the right ones: how many have each of LEVELS as the largest that they reach.

    confidence: the probability of the guessed class.
    """
    level = np.searchsorted(LEVELS, confidence, side="right") - 1
    return np.stack([np.bincount(of, minlength=len(LEVELS)) for of in (level, level[right])])


def smallest_threshold(counts: Int[np.ndarray, "2 levels"], precision: float) -> Threshold:
    """The smallest of LEVELS from which on at least this share of the guesses is right.

    Where there is none, the one from which on the largest share is right, the smallest of equals. counts: of `tally`,
    which may be added up over scans; at least one guess.
    """
    reached, right = np.flip(np.flip(counts, 1).cumsum(1), 1)
    there = reached > 0
    shares = np.where(there, right / np.maximum(reached, 1), -1.0)
    enough = np.flatnonzero(shares >= precision)
    at = int(enough[0] if len(enough) else shares.argmax())
    return Threshold(float(at / 1000), float(shares[at]), float(reached[at] / reached[0]))
