"""The U-Net, in today's form (the default) and as ROAM was published with, in 2-D and 3-D."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise

from torch import nn

from semiseg.networks.staged import CONV, NORM, POOL, UP, Decoder, Encoder, Staged


class UNet(Staged):
    """Ronneberger et al. 2015, in today's form (Isensee et al. 2021): strided convolutions, leaky ReLU, He's weights.

    classic: as in ROAM (Bdair et al., arXiv 2003.09439): max pooling, ReLU, normalisation and ReLU after up-sampling
    too, a bias in every convolution, Xavier's normal weights; transposed convolutions and biases begin as torch does.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        dims: int,
        widths: Sequence[int],
        strides: Sequence[Sequence[int]],
        norm: str = "instance",
        classic: bool = False,
    ) -> None:
        if len(strides) != len(widths) - 1:
            raise ValueError(
                f"network.strides: got {len(strides)} entries, expected {len(widths) - 1}, one fewer than widths"
            )
        ones = (1,) * dims
        down = zip([in_channels, *widths[:-1]], widths, [ones, *strides], strict=True)
        encoder = Encoder([_block(i, o, tuple(s), dims, norm, classic) for i, o, s in down])
        steps = [(coarse, fine, tuple(s)) for (fine, coarse), s in zip(pairwise(widths), strides, strict=True)][::-1]
        decoder = Decoder(
            [_up(coarse, fine, s, dims, norm, classic) for coarse, fine, s in steps],
            [_block(2 * fine, fine, ones, dims, norm, classic) for _, fine, _ in steps],
        )
        stride = tuple(math.prod(axis) for axis in zip(*strides, strict=True)) or ones
        super().__init__(stride, encoder, decoder, CONV[dims](widths[0], classes, 1))
        self.classic = classic
        self.initialise()

    def initialise(self) -> None:
        """Draw the weights anew."""
        if self.classic:
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Conv3d):
                    nn.init.xavier_normal_(module.weight)
            return
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                nn.init.kaiming_normal_(weight, a=0.01)
            elif name == "head.bias" or ".up." in name:
                nn.init.zeros_(weight)


def without_norm_after_up(weights: Collection[str]) -> bool:
    """Whether these names are of a U-Net whose up-sampling is a transposed convolution alone."""
    return any(name.endswith("decoder.up.0.weight") for name in weights)


def _block(inputs: int, outputs: int, stride: tuple[int, ...], dims: int, norm: str, classic: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    if classic and math.prod(stride) > 1:
        layers.append(POOL[dims](stride))
        stride = (1,) * dims
    for channels, step in ((inputs, stride), (outputs, (1,) * dims)):
        layers += [
            CONV[dims](channels, outputs, 3, stride=step, padding=1, bias=classic),
            NORM[norm, dims](outputs, affine=True),
            nn.ReLU(inplace=True) if classic else nn.LeakyReLU(0.01, inplace=True),
        ]
    return nn.Sequential(*layers)


def _up(inputs: int, outputs: int, stride: tuple[int, ...], dims: int, norm: str, classic: bool) -> nn.Module:
    up = UP[dims](inputs, outputs, stride, stride=stride)
    return nn.Sequential(up, NORM[norm, dims](outputs, affine=True), nn.ReLU(inplace=True)) if classic else up
