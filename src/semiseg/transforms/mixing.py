"""Mixing samples of a batch: one draw, called on images, hidden features and targets alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mix:
    """`share * x + (1 - share) * x[partner]`: mixup, MixMatch, ROAM."""

    partner: Int[Tensor, " b"]
    share: Float[Tensor, " b"]
    """Between a half and one, so that a row keeps its own character."""

    @classmethod
    def draw(cls, batch: int, alpha: float, generator: torch.Generator, per_sample: bool = False) -> Mix:
        """share ~ max(l, 1 - l), l ~ Beta(alpha, alpha), one for the batch or one a sample (MixMatch, eq. 8-9)."""
        # torch's Beta takes no generator, numpy's does
        seed = int(torch.randint(2**62, (), generator=generator))
        drawn = np.random.default_rng(seed).beta(alpha, alpha, batch if per_sample else 1)
        share = torch.from_numpy(np.maximum(drawn, 1 - drawn)).float().expand(batch)
        return cls(torch.randperm(batch, generator=generator), share)

    def sparing(self, rows: int) -> Mix:
        """The same, but the first rows stay as they are; others are still mixed with them."""
        return Mix(torch.cat([torch.arange(rows), self.partner[rows:]]), self.share)

    def __call__(self, x: Float[Tensor, "b *any"]) -> Float[Tensor, "b *any"]:
        """In the precision of `x`, but with the same share in every precision: features in 16 bits and targets in 32
        are mixed alike. A tensor of shares would be rounded to that of `x`, by up to .002 in bf16."""
        # splitting and joining rows keeps a channels-last layout on the way forward and back, indexing does not: each
        # layer after it would copy its input, and each one before it its gradient
        rows = x.split(1)
        drawn = zip(rows, self.partner.tolist(), self.share.tolist(), strict=True)
        return torch.cat([torch.lerp(rows[partner], own, share) for own, partner, share in drawn])

    def mask(self, m: Bool[Tensor, "b *spatial"]) -> Bool[Tensor, "b *spatial"]:
        """A voxel is scored where both sources are valid."""
        return m & m[self.partner.to(m.device)]


@dataclass(frozen=True, eq=False)
class Box:
    """A box of every sample is replaced by the same box of its partner: CutMix, BCP."""

    partner: Int[Tensor, " b"]
    where: Bool[Tensor, "b *spatial"]
    """True inside the pasted box, at the input's resolution."""

    @classmethod
    def draw(
        cls,
        shape: Sequence[int],
        share: tuple[float, float],
        probability: float,
        generator: torch.Generator,
        partner: Int[Tensor, " b"] | None = None,
    ) -> Box:
        """For a batch of `shape` (b, c, *spatial): boxes of the picture's proportions that cover an evenly drawn part
        of it between the two ends of `share`; with 1 - `probability` a sample gets no box. partner: whose box each
        row gets; a random permutation of the rows unless told."""
        batch, size = shape[0], tuple(shape[2:])
        part = share[0] + (share[1] - share[0]) * torch.rand(batch, generator=generator)
        part = torch.where(torch.rand(batch, generator=generator) < probability, part, 0.0)
        side = part ** (1 / len(size))
        where = torch.ones(batch, *size, dtype=torch.bool)
        for axis, n in enumerate(size):
            length = (side * n).round()
            start = (torch.rand(batch, generator=generator) * (n - length + 1)).floor()
            index = torch.arange(n)
            along = (index >= start[:, None]) & (index < (start + length)[:, None])
            along_shape = [batch] + [1] * len(size)
            along_shape[axis + 1] = n
            where = where & along.reshape(along_shape)
        return cls(torch.randperm(batch, generator=generator) if partner is None else partner, where)

    def __call__(self, x: Float[Tensor, "b c *layer"]) -> Float[Tensor, "b c *layer"]:
        """Images, targets or hidden features; the box is resized to the layer it is called on."""
        where = self.where.to(x.device)
        if where.shape[1:] != x.shape[2:]:
            where = F.interpolate(where[:, None].float(), size=x.shape[2:], mode="nearest-exact")[:, 0] > 0.5
        return torch.where(where[:, None], x[self.partner.to(x.device)], x)

    def labels(self, y: Int[Tensor, "b *spatial"]) -> Int[Tensor, "b *spatial"]:
        """The label of the sample that each voxel was taken from."""
        return torch.where(self.where.to(y.device), y[self.partner.to(y.device)], y)

    def mask(self, m: Bool[Tensor, "b *spatial"]) -> Bool[Tensor, "b *spatial"]:
        """A voxel is scored where the sample that it was taken from is valid."""
        return torch.where(self.where.to(m.device), m[self.partner.to(m.device)], m)


def sharpen(probability: Float[Tensor, "b classes *spatial"], temperature: float) -> Tensor:
    """`p^(1/T)`, normalised over classes (MixMatch, eq. 7). T = 1 changes nothing; a smaller T is more certain."""
    if temperature == 1:
        return probability
    # in logarithms: 0.01^(1/0.05) underflows
    return (probability.clamp(min=math.exp(-80)).log() / temperature).softmax(1)
