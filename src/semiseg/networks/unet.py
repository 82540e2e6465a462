"""The default network: a plain U-Net in 2-D and 3-D, with named stages and skips that can be edited."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM: dict[tuple[str, int], type[nn.Module]] = {
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
}


class UNet(nn.Module):
    """Ronneberger et al. 2015, in today's form (Isensee et al. 2021): strided convolutions, leaky ReLU.

    `layers` names what can be edited: `input`; `encoder.stages.K` (0 = full resolution), whose output feeds both the
    next stage and the skip connection; `decoder.stages.K` (0 = coarsest; the last one is just before the head).
    Returns 32-bit logits whatever the autocast.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        dims: int,
        widths: Sequence[int],
        strides: Sequence[Sequence[int]],
        norm: str = "instance",
    ) -> None:
        super().__init__()
        if len(strides) != len(widths) - 1:
            raise ValueError(
                f"network.strides: got {len(strides)} entries, expected {len(widths) - 1}, one fewer than widths"
            )
        self.stride = tuple(math.prod(axis) for axis in zip(*strides, strict=True)) or (1,) * dims
        self.input = nn.Identity()
        self.encoder = Encoder(in_channels, widths, strides, dims, norm)
        self.decoder = Decoder(widths, strides, dims, norm)
        self.head = _CONV[dims](widths[0], classes, 1)
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                nn.init.kaiming_normal_(weight, a=0.01)
            elif name == "head.bias" or ".up." in name:
                nn.init.zeros_(weight)

    def forward(self, image: Float[Tensor, "b c *spatial"]) -> Float[Tensor, "b classes *spatial"]:
        sizes = image.shape[2:]
        if any(n % s for n, s in zip(sizes, self.stride, strict=True)):
            raise ValueError(f"image of {tuple(sizes)} voxels: each side must be divisible by {self.stride}")
        features = self.encoder(self.input(image))
        logits: Tensor = self.head(self.decoder(features))
        return logits.float()

    @property
    def layers(self) -> list[str]:
        """Names of the layers that can be edited, in the order in which they run."""
        encoder = [f"encoder.stages.{k}" for k in range(len(self.encoder.stages))]
        return ["input", *encoder, *(f"decoder.stages.{k}" for k in range(len(self.decoder.stages)))]

    def edits_at(self, layer: str, edit: Callable[[Tensor], Tensor]) -> dict[str, Callable[..., object]]:
        """For `edited`: `edit` at `layer` and at every skip connection that leads around it into the decoder."""
        if layer not in self.layers:
            raise ValueError(f"layer: got {layer!r}, expected one of: {', '.join(self.layers)}")
        edits: dict[str, Callable[..., object]] = {layer: edit}
        part, _, number = layer.partition(".stages.")
        bypassing = 0  # the finest skips that lead around the layer
        if part == "encoder":
            bypassing = int(number)
        elif part == "decoder":
            bypassing = len(self.decoder.stages) - 1 - int(number)
        if bypassing:

            def edit_skips(features: list[Tensor]) -> list[Tensor]:
                return [edit(feature) for feature in features[:bypassing]] + features[bypassing:]

            edits["encoder"] = edit_skips
        return edits


class Encoder(nn.Module):
    """Features at every resolution, finest first."""

    def __init__(
        self, in_channels: int, widths: Sequence[int], strides: Sequence[Sequence[int]], dims: int, norm: str
    ) -> None:
        super().__init__()
        inputs = [in_channels, *widths[:-1]]
        steps = [(1,) * dims, *strides]
        self.stages = nn.ModuleList(
            _block(i, o, tuple(s), dims, norm) for i, o, s in zip(inputs, widths, steps, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """From the coarsest features back to full resolution."""

    def __init__(self, widths: Sequence[int], strides: Sequence[Sequence[int]], dims: int, norm: str) -> None:
        super().__init__()
        steps = [(coarse, fine, tuple(s)) for (fine, coarse), s in zip(pairwise(widths), strides, strict=True)]
        steps.reverse()
        self.up = nn.ModuleList(_UP[dims](coarse, fine, s, stride=s) for coarse, fine, s in steps)
        self.stages = nn.ModuleList(_block(2 * fine, fine, (1,) * dims, dims, norm) for _, fine, _ in steps)

    def forward(self, features: list[Tensor]) -> Tensor:
        x, *skips = reversed(features)
        for up, stage, skip in zip(self.up, self.stages, skips, strict=True):
            x = stage(torch.cat([up(x), skip], dim=1))
        return x


def _block(inputs: int, outputs: int, stride: tuple[int, ...], dims: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels, step in ((inputs, stride), (outputs, (1,) * dims)):
        layers += [
            _CONV[dims](channels, outputs, 3, stride=step, padding=1, bias=False),
            _NORM[norm, dims](outputs, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        ]
    return nn.Sequential(*layers)
