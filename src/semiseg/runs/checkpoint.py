"""Checkpoints: one safetensors file with tensors of method and optimiser, and JSON in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from semiseg.errors import InputError
from semiseg.files import replacing


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Tensors by name, and what JSON can hold."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix.`, without it."""
        start = f"{prefix}."
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Atomically: the old file stays until the new one is whole on disk."""
    # channels-last tensors are laid out anew; scalars of optimisers live on the CPU already
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata={"facts": json.dumps(facts)})


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises InputError if the file is missing, truncated or not a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            # no views into the mapped file: it may be replaced while they live
            return Checkpoint({name: file.get_tensor(name).clone() for name in file.keys()}, facts)  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: {error}, expected a whole checkpoint; use another one") from None


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a plain safetensors file. Raises InputError if it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: {error}, expected whole weights; export the model again") from None


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `INDEX.NAME`. Everything else about it (rates, decay) is set anew every step."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    for weight, values in optimiser.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                # fused optimisers walk through memory: moments have to lie as the weights do
                values[name] = torch.empty_like(weight, requires_grad=False).copy_(value)


@dataclass
class Progress:
    """What a checkpoint has to hold beside tensors."""

    step: int = 0
    """Steps done."""
    best_dice: float | None = None
    best_step: int | None = None
    last_dice: float | None = None
    stopped_early: bool = False
    duration_s: float = 0.0
    precision: str = ""
    dice: dict[str, float] = field(default_factory=dict)
    """Of the newest validation, per class."""
