"""Tiny networks, methods and batches of simple shapes."""

import pytest
import torch

from semiseg.methods import METHODS, build_method
from semiseg.methods.method import ConsistencyConfig, Method
from semiseg.networks.unet import UNet
from semiseg.types import Batch

OPEN = {"ramp_start": 0.0, "ramp_end": 0.0, "weight": 1.0, "confidence": 0.0}
"""Gates opened: the unlabelled term counts from the first step."""


VARIANTS = {
    "plain": {"ema": 0.0},
    "teacher": {"ema": 0.9},
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
    "2020": {"preset": "2020"},
}


OF_ONE_METHOD = {
    "annealing": ("equireg", {"annealing": "exp", "on_labelled": True}),
    "mixmatch": ("roam", {"preset": "mixmatch"}),
}
"""Settings that a single method has, with everything that is switched on by them."""


def network_of(dims: int, norm: str = "instance") -> UNet:
    torch.manual_seed(0)
    return UNet(1, 3, dims, widths=(8, 16), strides=[(2,) * dims], norm=norm)


def method_of(name: str, dims: int, variant: str = "teacher", norm: str = "instance", **more) -> Method:
    config = METHODS[name].Config
    settings = {**VARIANTS[variant], **more}
    if variant in OF_ONE_METHOD and name != OF_ONE_METHOD[variant][0]:
        pytest.skip("a setting of another method")
    if issubclass(config, ConsistencyConfig):
        settings = {**OPEN, **settings}
    elif variant in ("everything", "2020"):
        pytest.skip("the baseline has no such settings")
    return build_method(name, network_of(dims, norm), settings)


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
    generator = torch.Generator().manual_seed(step)
    image, label = shapes(labelled, dims, generator, size)
    other, _ = shapes(unlabelled, dims, generator, size)
    return Batch(image, label, other, torch.ones(other.shape[:1] + other.shape[2:], dtype=torch.bool), (1.0,) * dims)
