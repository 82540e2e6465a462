"""What U-Net and FC-DenseNet have in common: stages down, stages up, skips between them that can be edited."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
UP: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
NORM: dict[tuple[str, int], type[nn.Module]] = {
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
}


class Staged(nn.Module):
    """An encoder whose stages feed the next one and, by a skip connection, the decoder; then a 1x1 head.

    `layers` names what can be edited: `input`; `encoder.stages.K` (0 = full resolution), whose output feeds both the
    next stage and the skip connection; `decoder.stages.K` (0 = coarsest; the last one is just before the head).
    Returns 32-bit logits whatever the autocast.
    """

    def __init__(self, stride: Sequence[int], encoder: Encoder, decoder: Decoder, head: nn.Module) -> None:
        super().__init__()
        self.stride = tuple(stride)
        self.input = nn.Identity()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head

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

    def skips_around(self, layer: str) -> list[str]:
        """The encoder stages, finest first, whose skip connections lead around `layer` into the decoder."""
        if layer not in self.layers:
            raise ValueError(f"layer: got {layer!r}, expected one of: {', '.join(self.layers)}")
        part, _, number = layer.partition(".stages.")
        count = 0
        if part == "encoder":
            count = int(number)
        elif part == "decoder":
            count = len(self.decoder.stages) - 1 - int(number)
        return [f"encoder.stages.{k}" for k in range(count)]

    def edits_at(self, layer: str, edit: Callable[[Tensor], Tensor]) -> dict[str, Callable[..., object]]:
        """For `edited`: `edit` at `layer` and at every skip connection that leads around it into the decoder."""
        edits: dict[str, Callable[..., object]] = {layer: edit}
        bypassing = len(self.skips_around(layer))
        if bypassing:

            def edit_skips(features: list[Tensor]) -> list[Tensor]:
                return [edit(feature) for feature in features[:bypassing]] + features[bypassing:]

            edits["encoder"] = edit_skips
        return edits


class Encoder(nn.Module):
    """Features at every resolution, finest first."""

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """From the coarsest features back to full resolution: up-sample, join the skip, run the stage."""

    def __init__(self, up: Iterable[nn.Module], stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.up = nn.ModuleList(up)
        self.stages = nn.ModuleList(stages)

    def forward(self, features: list[Tensor]) -> Tensor:
        x, *skips = reversed(features)
        for up, stage, skip in zip(self.up, self.stages, skips, strict=True):
            x = stage(torch.cat([up(x), skip], dim=1))
        return x
