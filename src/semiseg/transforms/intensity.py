"""Changes of brightness, contrast, sharpness and noise: the view of another scanner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from semiseg.settings import Settings


class IntensityConfig(Settings):
    """How far intensities may change; images are normalised (deviation about 1). Defaults change nothing."""

    probability: float = Field(default=0.0, ge=0, le=1)
    """Of each kind of change, drawn independently for every sample."""
    contrast: float = Field(default=0.0, ge=0)
    """The logarithm of the factor around the mean is drawn evenly from +- this."""
    brightness: float = Field(default=0.0, ge=0)
    """Largest shift, in deviations."""
    gamma: float = Field(default=0.0, ge=0)
    """The logarithm of the exponent is drawn evenly from +- this; applied between the sample's own extremes."""
    noise: float = Field(default=0.0, ge=0)
    """Largest deviation of added Gaussian noise."""
    blur: float = Field(default=0.0, ge=0, le=100)
    """Largest deviation of Gaussian smoothing, in voxels."""


@dataclass(frozen=True, eq=False)
class Intensity:
    """One draw of intensity changes, the same for all channels of a sample. The neutral values change nothing."""

    contrast: Float[Tensor, " b"]
    brightness: Float[Tensor, " b"]
    gamma: Float[Tensor, " b"]
    noise: Float[Tensor, " b"]
    blur: Float[Tensor, " b"]
    noise_seed: int

    @classmethod
    def draw(cls, shape: Sequence[int], config: IntensityConfig, generator: torch.Generator) -> Intensity:
        """For a batch of `shape` (b, c, *spatial)."""
        batch = shape[0]

        def amount(largest: float, signed: bool) -> Tensor:
            value = torch.rand(batch, generator=generator)
            value = (value * 2 - 1) * largest if signed else value * largest
            return torch.where(torch.rand(batch, generator=generator) < config.probability, value, 0.0)

        return cls(
            contrast=amount(config.contrast, signed=True).exp(),
            brightness=amount(config.brightness, signed=True),
            gamma=amount(config.gamma, signed=True).exp(),
            noise=amount(config.noise, signed=False),
            blur=amount(config.blur, signed=False),
            noise_seed=int(torch.randint(2**62, (), generator=generator)),
        )

    def __call__(self, x: Float[Tensor, "b c *spatial"]) -> Float[Tensor, "b c *spatial"]:
        """The changed images, in 32-bit."""
        x = x.float()
        axes = tuple(range(2, x.ndim))

        def per_sample(value: Tensor) -> Tensor:
            return value.to(x.device).reshape(-1, *[1] * (x.ndim - 1))

        if bool((self.blur > 0).any()):
            x = _blur(x, self.blur)
        if bool((self.gamma != 1).any()):
            low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
            extent = (high - low).clamp(min=1e-6)
            x = ((x - low) / extent).clamp(min=1e-6) ** per_sample(self.gamma) * extent + low
        mean = x.mean(axes, keepdim=True)
        x = (x - mean) * per_sample(self.contrast) + mean + per_sample(self.brightness)
        if bool((self.noise > 0).any()):
            generator = torch.Generator(x.device).manual_seed(self.noise_seed)
            x = x + per_sample(self.noise) * torch.randn(x.shape, generator=generator, device=x.device)
        return x


def clipped_noise(
    x: Float[Tensor, "b c *spatial"], deviation: float, generator: torch.Generator
) -> Float[Tensor, "b c *spatial"]:
    """The images under Gaussian noise of that deviation, cut at twice it."""
    noise = torch.randn(x.shape, generator=generator).mul_(deviation).clamp_(-2 * deviation, 2 * deviation)
    return x + noise.to(x)


def _blur(x: Tensor, deviation: Float[Tensor, " b"]) -> Tensor:
    """Separable Gaussian smoothing, one deviation (in voxels) a sample; zero leaves a sample as it is."""
    batch, channels, *size = x.shape
    radius = max(1, math.ceil(3 * float(deviation.max())))
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / deviation.clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).to(x.device)
    convolve = F.conv2d if len(size) == 2 else F.conv3d
    y = x.reshape(1, batch * channels, *size)
    with torch.autocast(x.device.type, enabled=False):
        for axis in range(len(size)):
            shape = [1] * len(size)
            shape[axis] = len(offsets)
            padding = [0, 0] * len(size)
            padding[2 * (len(size) - 1 - axis)] = padding[2 * (len(size) - 1 - axis) + 1] = radius
            weight = kernel.reshape(batch * channels, 1, *shape)
            y = convolve(F.pad(y, padding, mode="replicate"), weight, groups=batch * channels)
    return y.reshape(x.shape)
