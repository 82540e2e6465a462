"""What `semiseg layers` shows: the layers of a network by name, or of a trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semiseg.data.plan import Plan
from semiseg.errors import UserError
from semiseg.models.model import build_network, load_model
from semiseg.networks import network_from
from semiseg.networks.editable import Layer, layers_of
from semiseg.networks.network_plan import NetworkPlan

EXAMPLE = {2: 256, 3: 64}
"""Voxels a side of the image that the shapes are shown for."""


def list_layers(network: str, dims: int | None = None, settings: Mapping[str, Any] | None = None) -> list[Layer]:
    """The layers of a run's or model's network on its plan's patch, or of a network by name on an example image of
    one channel, with two classes.

    dims: 2 (default) or 3. settings: of `NetworkPlan` beside the name. Raises UserError for either beside a run or
    model, whose plan decides, and for settings that no network has.
    """
    folder = Path(network)
    if folder.is_dir():
        if dims or settings:
            raise UserError(f"{network}: got --dims or --set beside a run or model, whose plan decides; leave them out")
        own = folder / "plan.json"
        plan = Plan.load(own) if own.exists() else load_model(folder).plan
        return layers_of(build_network(plan), len(plan.channels), plan.patch)
    dims = dims or 2
    chosen = NetworkPlan.halving({**(settings or {}), "name": network}, dims)
    chosen.check(dims, "network")
    size = tuple(-(-EXAMPLE[dims] // step) * step for step in chosen.stride(dims))
    return layers_of(network_from(chosen, 1, 2, size), 1, size)


def table(layers: Sequence[Layer]) -> str:
    """One line a layer, for people."""
    rows = [("layer", "ROAM", "output", "skips around it")]
    for layer in layers:
        skips = "not named" if layer.skips is None else ", ".join(layer.skips) or "-"
        rows.append((layer.name, layer.short or "-", " x ".join(map(str, layer.shape)), skips))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )
