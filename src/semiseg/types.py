"""The values that travel between the parts: a batch, an objective, the geometry of a scan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    from torch import Tensor
else:  # command-line code that only needs Geometry must not import torch

    class Tensor: ...


IGNORE = -100
"""Label of a voxel that is not annotated, or was warped in from outside the picture. Never scored."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where a voxel array lies in space.

    shape: the three spatial sizes in file order. affine: voxel indices to scanner millimetres (RAS+), 4 x 4.
    """

    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along each axis, in axis order."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))

    def corner_displacement_mm(self, other: Geometry) -> float:
        """Distance between the places that the two geometries give to a corner voxel; the largest one."""
        corners = np.array([[*index, 1] for index in product(*((0, size - 1) for size in self.shape))])
        moved = corners @ (self.affine - other.affine).T
        return float(np.linalg.norm(moved[:, :3], axis=1).max())


@dataclass(frozen=True, eq=False)
class Batch:
    """One step's input. Labels of unlabelled images have no field here, so they cannot leak.

    `unlabelled` may be empty (size 0 along the first axis).
    """

    image: Float[Tensor, "labelled c *spatial"]
    label: Int[Tensor, "labelled *spatial"]
    unlabelled: Float[Tensor, "unlabelled c *spatial"]
    inside: Bool[Tensor, "unlabelled *spatial"]
    """False on padding and outside the picture."""
    spacing_mm: tuple[float, ...]
    """Per spatial axis, in axis order."""

    def to(self, device: object) -> Batch:
        moved = {name: getattr(self, name).to(device) for name in ("image", "label", "unlabelled", "inside")}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Objective:
    """What one step minimises: the sum of `terms`, each already weighted. `watch` is logged, never optimised."""

    terms: dict[str, Float[Tensor, ""]]
    watch: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> Float[Tensor, ""]:
        first, *others = self.terms.values()
        return sum(others, start=first)

    def scaled(self, factor: float) -> Objective:
        """Every term times a factor; what is watched stays."""
        return Objective({name: factor * term for name, term in self.terms.items()}, self.watch)

    def __add__(self, other: Objective) -> Objective:
        """Both objectives' terms; those of one name are added up."""
        shared = {name: self.terms[name] + other.terms[name] for name in self.terms.keys() & other.terms.keys()}
        return Objective({**self.terms, **other.terms, **shared}, {**self.watch, **other.watch})
