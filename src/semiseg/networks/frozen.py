"""Networks that receive no gradient: guesses held constant, averages of weights."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def frozen_copy(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode that receives no gradient."""
    return copy.deepcopy(network).requires_grad_(False).eval()


def move_towards(average: nn.Module, network: nn.Module, decay: float) -> None:
    """`average = decay * average + (1 - decay) * network`; buffers are copied, but for the statistics of batch norm."""
    own = {id(buffer) for norm in _batch_norms(average) for buffer in norm.buffers()}
    with torch.no_grad():
        for mean, value in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(value.detach(), 1 - decay)
        for kept, current in zip(average.buffers(), network.buffers(), strict=True):
            if id(kept) not in own:
                kept.copy_(current)


@torch.no_grad()
def measure_statistics(average: nn.Module, x: Float[Tensor, "b c *spatial"]) -> None:
    """Move the running statistics of an average's batch norms towards what it makes of `x` itself.

    Those of the network do not fit it: its features are other ones. With them an average of a network with batch norm
    segmented next to nothing (docs/log.md). Nothing is done, and nothing costs, without batch norm.
    """
    if norms := _batch_norms(average):
        average.eval()  # without dropout, as it predicts; a method in training takes it along
        for norm in norms:
            norm.train()
        average(x)
        for norm in norms:
            norm.eval()


def _batch_norms(network: nn.Module) -> list[nn.Module]:
    return [
        module for module in network.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


def forward_frozen(network: nn.Module, x: Float[Tensor, "b c *spatial"]) -> Float[Tensor, "b classes *spatial"]:
    """Logits held constant: no gradient, evaluation mode, running statistics; every mode is restored.

    A guess made in training mode would move the batch statistics towards unlabelled data.
    """
    modes = [(module, module.training) for module in network.modules()]
    cached = torch.is_autocast_cache_enabled()
    network.eval()
    # weights cast to 16 bits here would have no gradient, and older torch gives them to the next pass (pytorch#112583)
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad():
            logits: Tensor = network(x)
        return logits
    finally:
        torch.set_autocast_cache_enabled(cached)
        for module, mode in modes:
            module.training = mode
