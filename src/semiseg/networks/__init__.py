"""Networks by name, built from a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from semiseg.networks.network_plan import NetworkPlan


def network_from(chosen: NetworkPlan, channels: int, classes: int, patch: Sequence[int]) -> nn.Module:
    """A network for patches of that size. Raises UserError if its name or its settings do not fit."""
    dims = len(patch)
    chosen.check(dims, "network")
    if chosen.from_monai:
        from semiseg.networks.monai_network import MonaiNetwork

        return MonaiNetwork(chosen.name.partition(":")[2], chosen.options, channels, classes, patch)
    network = _unet_or_densenet(chosen, channels, classes, dims)
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.momentum, module.eps = chosen.momentum, chosen.epsilon
    return network


def _unet_or_densenet(chosen: NetworkPlan, channels: int, classes: int, dims: int) -> nn.Module:
    norm = chosen.norm or "batch"
    if chosen.name == "fcdensenet":
        from semiseg.networks.fcdensenet import FCDenseNet

        return FCDenseNet(
            channels, classes, dims, chosen.blocks, chosen.growth, chosen.first, norm, dropout=chosen.dropout
        )
    from semiseg.networks.unet import UNet

    return UNet(channels, classes, dims, chosen.widths, chosen.strides, norm, classic=chosen.name == "roam-unet")
