"""What runs inside a network: found by one forward pass without any arithmetic."""

from __future__ import annotations

import copy
import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from semiseg.errors import UserError
from semiseg.networks.staged import Staged

BATCH = 3
"""Samples in a trial: a first axis of another length does not hold the samples, so its rows cannot be mixed."""


@dataclass(frozen=True)
class Layer:
    """A layer whose output can be edited."""

    name: str
    short: str
    """ROAM's name for it (`input`, `1`, `2`, ..., `last`); empty without one."""
    shape: tuple[int, ...]
    """Of its output for one sample: features, then spatial axes."""
    skips: tuple[str, ...] | None
    """Encoder stages whose skip connections lead around it; None if the network does not name its skips."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One forward pass in evaluation mode: what came out, and each module's output in the order in which they ended."""

    output: Any
    outputs: tuple[tuple[str, Any], ...]


def layers_of(network: nn.Module, channels: int, size: Sequence[int]) -> list[Layer]:
    """The layers that `semiseg.transforms.hidden.edited` can edit, in the order in which they run.

    size: of an example image, such as the plan's patch.
    """
    trial = tried(network, channels, size)
    outputs = dict(trial.outputs)
    names: list[str] = getattr(network, "layers", None) or editable(trial)
    last = len(names) - 1
    return [
        Layer(
            name=name,
            short=short_name(name) or ("last" if index == last else ""),
            shape=tuple(outputs[name].shape[1:]),
            skips=tuple(network.skips_around(name)) if isinstance(network, Staged) else None,
        )
        for index, name in enumerate(names)
    ]


def short_name(layer: str) -> str:
    """`input`; `1`, `2`, ... for the encoder's stages; empty for the others."""
    part, _, number = layer.partition("encoder.stages.")
    return str(int(number) + 1) if number.isdecimal() and not part else layer if layer == "input" else ""


def editable(trial: Trial) -> list[str]:
    """Modules that ran exactly once and returned one tensor a sample, other than those that made the final output."""
    runs = Counter(name for name, _ in trial.outputs)
    return [
        name
        for name, output in trial.outputs
        if name
        and runs[name] == 1
        and isinstance(output, Tensor)
        and output is not trial.output
        and output.ndim > 1
        and len(output) == BATCH
    ]


def tried(network: nn.Module, channels: int, size: Sequence[int]) -> Trial:
    """One forward pass of a copy on the meta device, where tensors have a shape but no content.

    A network that looks into its tensors cannot run there: it is given zeros instead. Raises whatever it raises.
    """
    image = torch.zeros(BATCH, channels, *size)
    try:
        return _run(copy.deepcopy(network).to("meta"), image.to("meta"))
    except Exception:
        return _run(copy.deepcopy(network), image)


def _run(network: nn.Module, image: Tensor) -> Trial:
    outputs: list[tuple[str, Any]] = []

    def noting(name: str) -> Any:
        return lambda _module, _inputs, output: outputs.append((name, output))

    for name, module in network.named_modules():
        module.register_forward_hook(noting(name))
    return Trial(network.eval()(image), tuple(outputs))


def layer_named(network: nn.Module, name: str, setting: str = "method.layers") -> str:
    """The network's name for a layer of the paper: `input`, `1`, `2`, ... (encoder blocks), `deepest`, `last`.

    setting: where the name was given, for the message.
    """
    layers: list[str] = getattr(network, "layers", [module for module, _ in network.named_modules() if module])
    if name == "last":
        return layers[-1]
    encoder = [layer for layer in layers if layer.startswith("encoder.stages.")]
    if name == "deepest" and encoder:
        return encoder[-1]
    found = f"encoder.stages.{int(name) - 1}" if name.isdecimal() else name
    if found not in layers:
        close = difflib.get_close_matches(name, layers, n=3)
        names = ", ".join(layers if len(layers) <= 16 else close)
        raise UserError(
            f"{setting}: got {name!r}, expected input, 1, 2, ..., last or {names or 'the name of a layer'}; "
            "`semiseg layers` lists them"
        )
    return found
