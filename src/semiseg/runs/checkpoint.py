"""Checkpoints: one safetensors file with tensors of method and optimiser, and JSON in its metadata."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from semiseg.errors import InputError
from semiseg.files import replacing
from semiseg.manifest import json_hash
from semiseg.networks.unet import without_norm_after_up

_NAMES = "names"
"""Among the facts, a hash of the tensors' names: a file of which some are missing is whole to safetensors."""
_STATES = {frozenset({"step", "exp_avg", "exp_avg_sq"}), frozenset({"momentum_buffer"})}
"""What Adam (also AdamW) and SGD keep of each weight."""


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
        try:
            # one entry, as safetensors writes several in any order
            text = json.dumps({**facts, _NAMES: json_hash(sorted(plain))})
            save_file(plain, temporary, metadata={"facts": text})
        except SafetensorError as error:  # it tells of a full disk in words alone
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from None


def read_checkpoint(path: Path) -> Checkpoint:
    """Raises InputError if the file is missing, truncated or not a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            # no views into the mapped file: it may be replaced while they live
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: got {error}, expected a whole checkpoint; use another one") from None
    if not isinstance(facts, dict):
        raise InputError(f"{path}: got facts {facts!r:.80}, expected a whole checkpoint; use another one")
    if (names := facts.pop(_NAMES, None)) is not None and names != json_hash(sorted(tensors)):
        raise InputError(f"{path}: got other tensors than were written, expected a whole checkpoint; use another one")
    return Checkpoint(tensors, facts)


def require_alike(path: Path, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], action: str) -> None:
    """Raise InputError unless the tensors have the names, shapes and kinds of number of `own`, and are finite."""
    if without_norm_after_up(tensors) and not without_norm_after_up(own):
        raise InputError(
            f"{path}: got a U-Net without normalisation after its up-sampling, as roam-unet was in earlier versions, "
            "expected one with it, as published; train it anew"
        )
    if odd := sorted(own.keys() ^ tensors.keys()):
        found = "has" if odd[0] in tensors else "lacks"
        raise InputError(f"{path}: it {found} {odd[0]}, expected the weights of this network; {action}")
    for name, expected in own.items():
        tensor = tensors[name]
        if tensor.shape != expected.shape:
            got = f"{name} of shape {tuple(tensor.shape)}, expected {tuple(expected.shape)} as this network has"
        elif (
            tensor.is_floating_point() != expected.is_floating_point()
            or tensor.is_complex()
            or (tensor.dtype is torch.bool and expected.dtype is not torch.bool)
        ):
            got = f"{name} of type {str(tensor.dtype).removeprefix('torch.')}, expected {str(expected.dtype)[6:]}"
        elif not _finite(tensor, expected):
            got = f"values in {name} that are not finite, expected numbers"
        else:
            continue
        raise InputError(f"{path}: got {got}; {action}")


def _finite(tensor: Tensor, own: Tensor) -> bool:
    """In the type of `own`: 64 bits may hold what 32 do not, and of 8 bits torch does not tell."""
    return bool(torch.isfinite(tensor.to(own.dtype)).all())


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


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], where: str = "") -> None:
    """Set the state that `optimiser_tensors` wrote. where: the file, for messages.

    Raises InputError, before anything is set, for a state that does not fit: a fused optimiser would write beyond
    moments of another shape.
    """
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        number = int(index) if index.isascii() and index.isdecimal() and len(index) < 9 else len(weights)
        fits = number < len(weights) and tensor.shape in (torch.Size(), weights[number].shape)
        if not fits or not tensor.is_floating_point() or not _finite(tensor, weights[number]):
            raise InputError(
                f"{where}: got optimiser.{key} of {tensor.dtype} and shape {tuple(tensor.shape)}, expected a finite "
                "moment of a weight of this network; use another checkpoint"
            )
        state.setdefault(number, {})[name] = tensor
    names = {frozenset(values) for values in state.values()}
    if len(names) > 1 or names - _STATES:
        got = " and ".join(sorted("/".join(sorted(one)) for one in names))
        raise InputError(
            f"{where}: got an optimiser's state of {got}, expected one kind for all; use another checkpoint"
        )
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    for weight, values in optimiser.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                # fused optimisers walk through memory: moments have to lie as the weights do
                values[name] = torch.empty_like(weight, requires_grad=False).copy_(value)


class Progress(BaseModel):
    """What a checkpoint has to hold beside tensors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    step: int = Field(default=0, ge=0)
    """Steps done."""
    best_dice: float | None = None
    best_step: int | None = Field(default=None, ge=0)
    last_dice: float | None = None
    stopped_early: bool = False
    duration_s: float = Field(default=0.0, ge=0)
    precision: str = ""
    layout: str = ""
    passed_images: int = Field(default=0, ge=0, le=2**62)
    """Of all steps together: through any network, students and teachers alike."""
    labelled_images: int = Field(default=0, ge=0, le=2**62)
    """Of all steps together: in the labelled batches."""
    dice: dict[str, float] = Field(default_factory=dict)
    """Of the newest validation, per class."""

    @property
    def passes_per_step(self) -> float | None:
        """Forward passes, in those of the labelled batch; None where nothing was counted."""
        return self.passed_images / self.labelled_images if self.labelled_images else None

    @classmethod
    def read(cls, checkpoint: Checkpoint, where: str, steps: int) -> Progress:
        """Raises InputError if it is not that of a run of so many steps."""
        try:
            progress = cls.model_validate(checkpoint.facts.get("progress"))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, ("progress", *first["loc"])))
            raise InputError(f"{where}: got {first['input']!r:.80} as {place}; use another checkpoint") from None
        if not 0 < progress.step <= steps:
            raise InputError(f"{where}: got step {progress.step}, expected 1 to {steps}; use another checkpoint")
        return progress
