"""Which network, and how wide and deep: the part of a plan that networks read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from semiseg.errors import UserError
from semiseg.settings import Settings

_Number = Annotated[int, Field(le=2**40)]
"""Products of a few stay floating-point numbers; memory ends long before."""


class NetworkPlan(Settings):
    """Which network, and how wide and deep. What is not given is as published for that network (docs/networks.md);
    settings of other networks stay empty."""

    name: str = "unet"
    """unet, roam-unet, fcdensenet, or monai:CLASS for a class of `monai.networks.nets`."""
    widths: tuple[_Number, ...] = ()
    """U-Nets: features at each resolution, finest first."""
    strides: tuple[tuple[_Number, ...], ...] = ()
    """U-Nets: down-sampling between consecutive resolutions, per spatial axis of the network."""
    norm: Literal["instance", "batch"] | None = None
    momentum: float = Field(default=0.1, gt=0, le=1)
    """Batch norm: share that a batch has in the running statistics (Keras calls 1 - it the momentum)."""
    epsilon: float = Field(default=1e-5, gt=0)
    """Batch norm: added to the variance."""
    blocks: tuple[Annotated[int, Field(le=1000)], ...] = ()
    """FC-DenseNet: layers of each dense block on the way down, finest first, the bottleneck last."""
    growth: _Number = Field(default=0, ge=0)
    """FC-DenseNet: features that a dense layer adds."""
    first: _Number = Field(default=0, ge=0)
    """FC-DenseNet: features of the first convolution."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """FC-DenseNet: share of each layer's output that is zeroed in training."""
    options: dict[str, Any] = Field(default_factory=dict)
    """MONAI: further arguments of the class."""

    @model_validator(mode="before")
    @classmethod
    def _fill_by_name(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {**_PUBLISHED.get(str(values.get("name", "unet")), {}), **values}

    @classmethod
    def halving(cls, values: Mapping[str, Any], dims: int) -> NetworkPlan:
        """From settings; without `strides`, every change of resolution halves every axis."""
        network = cls.parse(values, "network")
        if "strides" in values or not network.widths:
            return network
        return network.model_copy(update={"strides": ((2,) * dims,) * (len(network.widths) - 1)})

    @property
    def from_monai(self) -> bool:
        return self.name.startswith("monai:")

    def stride(self, dims: int) -> tuple[int, ...]:
        """What the sides of a patch have to be divisible by; ones for MONAI's networks, which are tried when built."""
        if self.blocks:
            return (2 ** (len(self.blocks) - 1),) * dims
        return tuple(math.prod(steps) for steps in zip(*self.strides, strict=True)) or (1,) * dims

    def check(self, dims: int, where: str) -> None:
        """Raise UserError, naming the key as `where.key`, if the settings do not go together."""
        kind = "monai" if self.from_monai else self.name
        require(kind in _SETTINGS, f"{where}.name", self.name, f"{', '.join(_SETTINGS)}:CLASS")
        for key, field in type(self).model_fields.items():
            value = getattr(self, key)
            unused = key not in ("name", *_SETTINGS[kind])
            require(
                not unused or value == field.get_default(call_default_factory=True),
                f"{where}.{key}",
                value,
                f"nothing, as {self.name} does not have this setting",
            )
        for key in ("momentum", "epsilon"):
            value, default = getattr(self, key), type(self).model_fields[key].default
            good = self.norm != "instance" or value == default
            require(good, f"{where}.{key}", value, f"{default:g}, as instance norm does not have this setting")
        if kind == "fcdensenet":
            for key in ("blocks", "growth", "first"):
                value = getattr(self, key)
                good = len(value) > 1 and min(value) > 0 if key == "blocks" else value > 0
                require(good, f"{where}.{key}", value, "at least two positive numbers" if key == "blocks" else "over 0")
        if kind in ("unet", "roam-unet"):
            self._check_unet(dims, where)

    def _check_unet(self, dims: int, where: str) -> None:
        require(
            all(len(step) == dims and min(step) > 0 for step in self.strides),
            f"{where}.strides",
            self.strides,
            f"{dims} positive steps for each change of resolution",
        )
        require(
            len(self.widths) == len(self.strides) + 1 and min(self.widths) > 0,
            f"{where}.widths",
            self.widths,
            f"{len(self.strides) + 1}, one more than {where}.strides has",
        )


_NORM = ("norm", "momentum", "epsilon")
"""Of networks whose normalisation can be chosen."""

_SETTINGS: dict[str, tuple[str, ...]] = {
    "unet": ("widths", "strides", *_NORM),
    "roam-unet": ("widths", "strides", *_NORM),
    "fcdensenet": ("blocks", "growth", "first", *_NORM, "dropout"),
    "monai": ("options",),
}
"""The settings that each network has."""

_PUBLISHED: dict[str, dict[str, Any]] = {
    "unet": {"widths": (32, 64, 128, 256), "strides": ((2, 2),) * 3, "norm": "instance"},
    "roam-unet": {"widths": (64, 128, 256, 512, 1024), "strides": ((2, 2),) * 4, "norm": "batch"},
    "fcdensenet": {"blocks": (4, 5, 7, 10, 12, 15), "growth": 16, "first": 48, "norm": "batch"},
}
"""arXiv 2003.09439, section 4 (ROAM); arXiv 1611.09326, tables 1 and 2 (FC-DenseNet103)."""


def require(good: bool, key: str, value: Any, expected: str) -> None:
    if not good:
        raise UserError(f"{key}: got {value!r}, expected {expected}; correct the plan")
