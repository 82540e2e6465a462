"""Surface metrics the slow, obvious way: every voxel visited, every pair of surface voxels measured."""

from __future__ import annotations

import itertools
import math

import numpy as np


def surface_voxels(mask):
    """Foreground voxels with a background neighbour across a face; outside the image is background."""
    inside = {tuple(int(i) for i in index) for index in np.argwhere(mask)}
    found = []
    for voxel in sorted(inside):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            neighbour = list(voxel)
            neighbour[axis] += step
            if tuple(neighbour) not in inside:
                found.append(voxel)
                break
    return found


def directed_distances(start, goal, spacing_mm):
    """For every surface voxel of `start`, the distance in mm to the nearest surface voxel of `goal`."""

    def length(a, b):
        return math.sqrt(sum(((i - j) * s) ** 2 for i, j, s in zip(a, b, spacing_mm, strict=True)))

    goals = surface_voxels(goal)
    return [min(length(voxel, other) for other in goals) for voxel in surface_voxels(start)]


def scores(prediction, truth, spacing_mm, tolerance_mm):
    """The surface metrics of two masks that are not empty, by name."""
    forth = directed_distances(prediction, truth, spacing_mm)
    back = directed_distances(truth, prediction, spacing_mm)
    within = sum(d <= tolerance_mm for d in forth) + sum(d <= tolerance_mm for d in back)
    return {
        "hd95_mm": max(percentile(forth, 0.95), percentile(back, 0.95)),
        "hausdorff_mm": max(forth + back),
        "assd_mm": (sum(forth) + sum(back)) / (len(forth) + len(back)),
        "msd_mm": sum(forth) / len(forth),
        "surface_dice": within / (len(forth) + len(back)),
    }


def percentile(values, share):
    """Linear between the two nearest ranks."""
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (rank - low) * (ordered[high] - ordered[low])
