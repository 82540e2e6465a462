"""Networks by name, built from a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semiseg.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from semiseg.data.plan import Plan


def build_network(plan: Plan) -> nn.Module:
    """The plan's network with fresh weights from torch's global generator: (b, channels, *patch) -> 32-bit logits."""
    from semiseg.networks.unet import UNet

    chosen = plan.network
    if chosen.name != "unet":
        raise UserError(f"network.name: got {chosen.name!r}, expected 'unet'")
    return UNet(len(plan.channels), len(plan.classes), plan.dims, chosen.widths, chosen.strides, chosen.norm)
