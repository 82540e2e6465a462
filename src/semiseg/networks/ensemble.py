"""Several networks of one architecture that predict together."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

PREFIX = "networks."
"""Of the names of an ensemble's weights, before the number of the network."""


class Ensemble(nn.Module):
    """Its logits are the logarithm of the networks' mean probability, so whatever takes a network takes it."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Float[Tensor, "b c *spatial"]) -> Float[Tensor, "b classes *spatial"]:
        log_p = torch.stack([network(image).float().log_softmax(1) for network in self.networks])
        return log_p.logsumexp(0) - math.log(len(self.networks))


def members(weights: Mapping[str, Tensor]) -> list[str]:
    """The prefix of each network's weights, in order; empty where they are those of a single network."""
    numbers = {name.removeprefix(PREFIX).partition(".")[0] for name in weights if name.startswith(PREFIX)}
    return [f"{PREFIX}{number}" for number in sorted(filter(str.isdecimal, numbers), key=int)]


def fresh_copy(network: nn.Module) -> nn.Module:
    """The same architecture with weights of its own, drawn from torch's global generator as the network's were."""
    fresh = copy.deepcopy(network)
    for module in fresh.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    initialise = getattr(fresh, "initialise", None)
    if callable(initialise):
        initialise()
    return fresh
