"""Leaving out whole channels of features: one draw, called on a layer's output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ChannelDropout:
    """Each channel of each sample is zero with `probability`; the others are divided by 1 - probability."""

    probability: float
    seed: int

    @classmethod
    def draw(cls, probability: float, generator: torch.Generator) -> ChannelDropout:
        """probability: below 1."""
        return cls(probability, int(torch.randint(2**62, (), generator=generator)))

    def __call__(self, h: Float[Tensor, "b c *layer"]) -> Float[Tensor, "b c *layer"]:
        """The same channels whenever it is called on features of one shape."""
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: the same on every device
        kept = torch.rand(h.shape[:2], generator=generator) >= self.probability
        factor = kept.to(h.device, h.dtype) / (1 - self.probability)
        return h * factor.reshape(*h.shape[:2], *[1] * (h.ndim - 2))
