"""The only source of randomness in a training step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on every part, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class Draws:
    """Every random draw of one micro-step, as a pure function of (seed, step, slot, purpose).

    slot = rank x accumulation + micro-step, so two processes draw what one process with accumulation 2 draws.
    """

    seed: int
    step: int
    slot: int = 0
    whole: str = ""
    """The purposes that these draws are a part of, each with a space behind it."""

    def within(self, purpose: str) -> Draws:
        """Draws for the parts of a purpose: what two views of one step draw under one name differs."""
        return replace(self, whole=f"{self.whole}{purpose} ")

    def seed_for(self, purpose: str) -> int:
        return seed_of(self.seed, self.step, self.slot, self.whole + purpose)

    def of(self, purpose: str) -> torch.Generator:
        """A fresh CPU generator. The same purpose gives the same numbers again."""
        return torch.Generator().manual_seed(self.seed_for(purpose))
