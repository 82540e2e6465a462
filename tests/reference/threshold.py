"""Self-training: the threshold for guesses, by trying one after the other on every voxel."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def share_right(scans, threshold):
    """Of the guesses from the threshold on, those that are right, and how many there are; not annotated voxels aside.

    scans: (probabilities of a voxel's classes, its true class or None) for every voxel of every scan.
    """
    kept = right = 0
    for voxels in scans:
        for probabilities, truth in voxels:
            largest = max(probabilities)
            guess = list(probabilities).index(largest)
            if truth is not None and np.float32(largest) >= threshold:
                kept += 1
                right += guess == truth
    return (Fraction(right, kept) if kept else None), kept


def smallest(scans, precision):
    """The smallest thousandth from which on the share is reached; else the one with the largest share."""
    found = []
    for thousandth in range(1001):
        share, _ = share_right(scans, np.float32(thousandth) / np.float32(1000))
        if share is None:
            continue
        if share >= precision:
            return thousandth, share
        found.append((share, -thousandth))
    share, minus = max(found)
    return -minus, share
