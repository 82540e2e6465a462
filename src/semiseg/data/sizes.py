"""How large a network and batch, in one word. What is set by name wins over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from semiseg.data.plan import merged

Size = Literal["small", "medium", "large"]

SMALL_WIDTHS, SMALL_BATCH = [16, 32, 64, 128], 4
"""Those of benchmarks/bench-atria.yaml, where a run of 1000 steps on a processor is measured."""
LARGE_GB = 24.0
"""Of a step of training; 8 otherwise."""


def sized(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, with those that `size` decides and that are not given. A plan file decides all of them.

    medium: none. small: 2-D, a narrower U-Net and four labelled patches a step. large: a larger budget of memory.
    """
    size, plan = values.get("size"), values.get("plan", {})
    if values.get("plan_file") or not isinstance(plan, Mapping):
        return dict(values)
    if size == "large":
        return {"memory_gb": LARGE_GB, **values}
    if size != "small":
        return dict(values)
    dims = values.get("dims", "2")
    small = {"batch": SMALL_BATCH, **_small_network(plan.get("network", {}), str(plan.get("dims", dims)))}
    return {**values, "dims": dims, "plan": merged(small, plan)}


def _small_network(given: Any, dims: str) -> dict[str, Any]:
    """Unless another network is asked for, or another depth. In 3-D strides follow the voxels."""
    if not isinstance(given, Mapping) or given.get("name", "unet") != "unet" or {"widths", "strides"} & given.keys():
        return {}
    strides = {"strides": [[2, 2] for _ in SMALL_WIDTHS[1:]]} if dims == "2" else {}
    return {"network": {"widths": SMALL_WIDTHS, **strides}}
