"""Tiny networks, methods and batches of simple shapes."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from semiseg import losses
from semiseg.draws import Draws
from semiseg.methods import METHODS
from semiseg.methods.method import Method, MethodConfig, SemiSupervised, UnlabelledConfig
from semiseg.networks.ensemble import fresh_copy
from semiseg.networks.unet import UNet
from semiseg.training.session import TrainingConfig, optimiser_of
from semiseg.types import Batch, Objective

OPEN = {"ramp_start": 0.0, "ramp_end": 0.0, "weight": 1.0, "confidence": 0.0, "certainty": 1.0}
"""Gates opened: the unlabelled term counts from the first step, at every voxel."""
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"ema": 0.0},
    "teacher": {"ema": 0.9},
    "annealing": {"annealing": "exp", "on_labelled": True, "ema": 0.9},
    "everything": {
        "ema": 0.9,
        "cutmix": 0.5,
        "intensity": {
            "probability": 0.8,
            "contrast": 0.3,
            "gamma": 0.3,
            "noise": 0.1,
            "blur": 1,
            "brightness": 0.2,
        },
    },
}
OPTIONAL = ("on_labelled",)
"""Settings of a variant that a method may lack; without one of the others the variant is not its own."""


class Two(SemiSupervised):
    """Two networks, owned as attributes like those of any method: the second teaches the first and learns from it."""

    def __init__(self, network: torch.nn.Module, config: UnlabelledConfig) -> None:
        super().__init__(network, config)
        self.second = fresh_copy(network)

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:  # noqa: ARG002
        objective = self.supervised(batch, progress) + self.supervised(batch, progress, self.second)
        if not len(batch.unlabelled):
            return objective
        one, other = self.network(batch.unlabelled), self.second(batch.unlabelled)
        error = losses.kl(one.detach().softmax(1), other) + losses.kl(other.detach().softmax(1), one)
        return objective + self.consistency(error, batch.inside, progress, one)


UNDER_CONTRACT: dict[str, type[Method]] = {**METHODS, "two": Two}


def settings_of(name: str, variant: str, **more: Any) -> dict[str, Any] | None:
    """Of the variant, or of the preset of that name, with open gates; None where the method has no such thing."""
    config = UNDER_CONTRACT[name].Config
    gates = {key: value for key, value in OPEN.items() if key in config.model_fields}
    if variant not in VARIANTS:
        return {**gates, "preset": variant, **more} if variant in config.presets else None
    wanted = VARIANTS[variant]
    if any(key not in config.model_fields and key not in OPTIONAL for key in wanted):
        return None
    if not wanted["ema"] and _needs_an_average(config):
        return None
    return {**gates, **{key: value for key, value in wanted.items() if key in config.model_fields}, **more}


def _needs_an_average(config: type[MethodConfig]) -> bool:
    return any(getattr(limit, "gt", None) == 0 for limit in config.model_fields["ema"].metadata)


def variants() -> Iterator[tuple[str, str]]:
    """Every method with every variant and preset that it has."""
    for name, method in UNDER_CONTRACT.items():
        for variant in (*VARIANTS, *method.Config.presets):
            if settings_of(name, variant) is not None:
                yield name, variant


def network_of(dims: int, norm: str = "instance") -> UNet:
    torch.manual_seed(0)
    return UNet(1, 3, dims, widths=(8, 16), strides=[(2,) * dims], norm=norm)


def build(name: str, network: torch.nn.Module, settings: Mapping[str, Any]) -> Method:
    """`build_method`, with the toy method too."""
    chosen = UNDER_CONTRACT[name]
    return chosen(network, chosen.Config.parse(settings, where="method"))


def method_of(name: str, dims: int, variant: str = "teacher", norm: str = "instance", **more: Any) -> Method:
    settings = settings_of(name, variant, **more)
    assert settings is not None, f"{name} has no {variant}"
    return build(name, network_of(dims, norm), settings)


def optimiser_for(method: Method, lr: float, name: str = "sgd") -> torch.optim.Optimizer:
    """The loop's own."""
    return optimiser_of(method, TrainingConfig.parse({"optimiser": name, "lr": lr, "weight_decay": 0.0}, where=""))


def shapes(count: int, dims: int, generator: torch.Generator, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of a bright disc (class 1) and a dark one (class 2) at random places."""
    axes = torch.meshgrid(*[torch.arange(size)] * dims, indexing="ij")
    label = torch.zeros(count, *[size] * dims, dtype=torch.long)
    for sample in label:
        for value in (1, 2):
            centre = torch.rand(dims, generator=generator) * (size - 8) + 4
            distance = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True))
            sample[distance < 14] = value
    level = torch.tensor([0.0, 2.0, -2.0])[label]
    noise = 0.3 * torch.randn(level.shape, generator=generator)
    return (level + noise)[:, None], label


def batch_of(dims: int, step: int = 0, labelled: int = 2, unlabelled: int = 2, size: int = 16) -> Batch:
    """The last two rows of voxels of the first unlabelled image are outside."""
    generator = torch.Generator().manual_seed(step)
    image, label = shapes(labelled, dims, generator, size)
    other, _ = shapes(unlabelled, dims, generator, size)
    inside = torch.ones(other.shape[:1] + other.shape[2:], dtype=torch.bool)
    inside[:1, -2:] = False
    return Batch(image, label, other, inside, (1.0,) * dims)


def all_inside(batch: Batch) -> Batch:
    return replace(batch, inside=torch.ones_like(batch.inside))
