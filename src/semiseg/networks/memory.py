"""What a training step of any network needs, measured without any arithmetic."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from semiseg.networks import network_from
from semiseg.networks.editable import BATCH, tried
from semiseg.networks.network_plan import NetworkPlan

SIDE = 64
"""Voxels a side of the patch that is measured, or the next multiple of the network's stride."""


def measured(network: NetworkPlan, channels: int, classes: int, dims: int) -> tuple[float, int]:
    """Numbers that the backward pass keeps for each voxel of a patch, and the number of parameters.

    Measured on one small patch: what is kept grows with the voxels, but for attention over a whole patch (ViT).
    """
    return _measured(network.model_dump_json(), channels, classes, dims)


@cache
def _measured(description: str, channels: int, classes: int, dims: int) -> tuple[float, int]:
    chosen = NetworkPlan.model_validate_json(description)
    patch = tuple(math.ceil(SIDE / step) * step for step in chosen.stride(dims))
    # only the shapes of these weights matter; MONAI's networks cannot all be built without content
    place = torch.device("cpu" if chosen.from_monai else "meta")
    with torch.random.fork_rng(devices=[]), place:
        network = network_from(chosen, channels, classes, patch)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not (tensor.is_leaf and tensor.requires_grad):  # parameters are counted apart
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = tried(network, channels, patch).output
    kept.pop(output.untyped_storage()._cdata, None)  # counted with the classes
    numbers = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 4
    return numbers / (BATCH * math.prod(patch)), parameters
