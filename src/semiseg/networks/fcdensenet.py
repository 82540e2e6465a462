"""FC-DenseNet in 2-D and 3-D: Jégou et al., The One Hundred Layers Tiramisu, arXiv 1611.09326."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semiseg.networks.staged import CONV, NORM, POOL, UP, Decoder, Encoder, Staged


class FCDenseNet(Staged):
    """Dense blocks down and, mirrored, up; (4, 5, 7, 10, 12, 15) is FC-DenseNet103 (their table 2).

    blocks: layers of each block on the way down, the bottleneck last. growth: features that a layer adds.
    first: features of the first convolution. An up-sampling gets the new features of the block before it alone, so
    that features do not pile up on the way up; the last block's whole stack goes to the head.
    Only the head has a bias: the others would be taken away by the normalisation, or added to the head's.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        dims: int,
        blocks: Sequence[int] = (4, 5, 7, 10, 12, 15),
        growth: int = 16,
        first: int = 48,
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        def block(inputs: int, layers: int, keeps_input: bool) -> DenseBlock:
            return DenseBlock(inputs, layers, growth, dims, norm, dropout, keeps_input)

        down: list[nn.Module] = []
        skips: list[int] = []
        features = first
        enter: nn.Module = CONV[dims](in_channels, first, 3, padding=1, bias=False)
        for layers in blocks[:-1]:
            down.append(nn.Sequential(enter, block(features, layers, keeps_input=True)))
            features += layers * growth
            skips.append(features)
            enter = _transition_down(features, dims, norm, dropout)
        down.append(nn.Sequential(enter, block(features, blocks[-1], keeps_input=False)))

        up: list[nn.Module] = []
        stages: list[nn.Module] = []
        new = blocks[-1] * growth
        for level in reversed(range(len(skips))):
            up.append(UP[dims](new, new, 3, stride=2, padding=1, output_padding=1, bias=False))
            features = new + skips[level]
            stages.append(block(features, blocks[level], keeps_input=level == 0))
            new = blocks[level] * growth
        head = CONV[dims](features + new, classes, 1)
        super().__init__((2 ** len(skips),) * dims, Encoder(down), Decoder(up, stages), head)
        self.initialise()

    def initialise(self) -> None:
        """Draw the weights anew."""
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.kaiming_uniform_(weight, nonlinearity="relu")  # 'HeUniform' in their section 4.1


class DenseBlock(nn.Module):
    """Each layer sees the input and everything that the layers before it made."""

    def __init__(
        self, inputs: int, layers: int, growth: int, dims: int, norm: str, dropout: float, keeps_input: bool
    ) -> None:
        super().__init__()
        self.keeps_input = keeps_input
        self.layers = nn.ModuleList(
            _activated_conv(inputs + k * growth, growth, 3, dims, norm, dropout) for k in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        new: list[Tensor] = []
        for layer in self.layers:
            new.append(layer(torch.cat([x, *new], dim=1) if new else x))
        return torch.cat([x, *new] if self.keeps_input else new, dim=1)


def _transition_down(features: int, dims: int, norm: str, dropout: float) -> nn.Sequential:
    return _activated_conv(features, features, 1, dims, norm, dropout).append(POOL[dims](2))


def _activated_conv(inputs: int, outputs: int, side: int, dims: int, norm: str, dropout: float) -> nn.Sequential:
    layers = [
        NORM[norm, dims](inputs, affine=True),
        nn.ReLU(inplace=True),
        CONV[dims](inputs, outputs, side, padding=side // 2, bias=False),
    ]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))
