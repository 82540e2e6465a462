"""What comes before the first step, and what every step needs of it."""

from __future__ import annotations

import atexit
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from pydantic import BeforeValidator, Field, model_validator
from torch import nn

from semiseg.data.prepare import PreparedCase
from semiseg.devices import chosen_device, chosen_layout, chosen_precision
from semiseg.errors import UserError
from semiseg.methods.method import Method
from semiseg.runs.checkpoint import (
    Progress,
    optimiser_tensors,
    read_checkpoint,
    require_alike,
    restore_optimiser,
    write_checkpoint,
)
from semiseg.runs.folder import RunFolder
from semiseg.settings import WORD, Settings


def _steps_or_table(value: Any) -> Any:
    table = value if isinstance(value, Mapping) else {"100%": 1 if value is None else value}
    for share, steps in table.items():
        good = re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?%", str(share)) and 0 < Fraction(str(share)[:-1]) <= 100
        if not good or not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(
                f"got {value!r:.100}, expected a number of steps from 1, or one for each share of the labels, "
                "such as {1%: 10000, 100%: 40000}"
            )
    if not table:
        raise ValueError(f"got {value!r:.100}, expected a share at least; say null for none")
    return value


class TrainingConfig(Settings):
    """How long and how to train, the same for every method."""

    steps: int = Field(default=5000, ge=1)
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    """`adam` and `sgd` add it to the gradient, `adamw` shrinks the weights themselves."""
    weight_decay_of: Literal["weights", "all"] = "weights"
    """weights: biases and scales of normalisation are not decayed, as pulling them to zero only shrinks activations."""
    schedule: Literal["constant", "poly", "cosine", "exponential"] = "poly"
    warm_up: float = Field(default=0.02, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    decay: float = Field(default=0.01, gt=0, le=1)
    """exponential: the factor on the learning rate in every `decay_every` steps, or from the warm-up to the end."""
    decay_every: int | None = Field(default=None, ge=1)
    """Steps; all of those after the warm-up unless told."""
    clip: float | None = Field(default=12.0, gt=0)
    """Largest gradient norm (12 as in nnU-Net); none: gradients stay as they are."""
    accumulation: int = Field(default=1, ge=1)
    """Batches whose gradients are averaged before each optimiser step."""
    precision: Annotated[Literal["auto", "32", "bf16", "16"], WORD] = "auto"
    layout: Literal["auto", "contiguous", "channels_last"] = "auto"
    """How weights and features lie in memory; it changes speed, and results in their last digits."""
    validate_every: int | None = Field(default=None, ge=1)
    """Steps between validations; a tenth of all steps unless told."""
    patience: Annotated[int | dict[str, int] | None, BeforeValidator(_steps_or_table)] = None
    """Stop after so many steps without a better validation Dice. Needs validation scans. A table says it for shares of
    the labels, as in {1%: 10000, 5%: 20000}; see `patience_at`."""
    checkpoint_every: int = Field(default=250, ge=1)
    log_every: int = Field(default=10, ge=1)
    tensorboard: bool = True
    """Mirror the log to TensorBoard, if it is installed."""
    fine_tune: float = Field(default=0.1, ge=0, le=1)
    """Where there are pseudo-labels: share of the steps, the last ones, that learn from true labels alone."""

    @model_validator(mode="after")
    def _decay_is_of_the_schedule(self) -> TrainingConfig:
        for name in ("decay", "decay_every"):
            value, default = getattr(self, name), type(self).model_fields[name].default
            if self.schedule != "exponential" and value != default:
                raise ValueError(f"{name} {value}: expected none with schedule {self.schedule}; leave it out")
        return self

    @property
    def validation_interval(self) -> int:
        """Steps between validations."""
        return self.validate_every or max(1, self.steps // 10)

    @property
    def fine_tune_step(self) -> int:
        """The first step that learns from true labels alone."""
        return self.steps - ceil(Fraction(str(self.fine_tune)) * self.steps)

    def patience_at(self, labelled: int, groups: int) -> int | None:
        """For so many labelled groups of scans out of all that could be: that of the smallest share in the table that
        is at least as many (rounded up, as `--labelled` rounds), or of the largest share there is."""
        if not isinstance(self.patience, dict):
            return self.patience
        shares = sorted((Fraction(share.rstrip("%")) / 100, steps) for share, steps in self.patience.items())
        return next((steps for share, steps in shares if ceil(share * groups) >= labelled), shares[-1][1])


@dataclass(frozen=True, eq=False)
class Cases:
    """The prepared scans of one run. Unlabelled ones carry no label."""

    labelled: Sequence[PreparedCase]
    unlabelled: Sequence[PreparedCase]
    validation: Sequence[PreparedCase] = ()
    guessed: Sequence[PreparedCase] = ()
    """Of the unlabelled scans, those with a pseudo-label, which they carry here."""
    labelled_groups: tuple[int, int] = (1, 1)
    """How many groups of scans are labelled, and how many could be."""


def start(device: str, precision: str) -> Accelerator:
    """Device, precision and processes. Raises UserError for a device that is not there or does not have the
    precision."""
    AcceleratorState._reset_state(reset_partial_state=False)  # the previous fit of this process may have differed
    chosen = chosen_device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)  # accelerate takes the current GPU
    accelerator = Accelerator(
        cpu=chosen.type == "cpu",
        mixed_precision={"32": "no", "bf16": "bf16", "16": "fp16"}[chosen_precision(precision, chosen.type)],
        step_scheduler_with_optimizer=False,
    )
    atexit.register(_leave)
    return accelerator


def _leave() -> None:
    """A process that ends while its connections to others are open may be aborted by them, after all was done."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def precision_of(accelerator: Accelerator) -> str:
    """Under its name in the settings."""
    return {"no": "32", "fp16": "16"}.get(accelerator.mixed_precision, "bf16")


def layout_of(config: TrainingConfig, accelerator: Accelerator) -> str:
    return chosen_layout(config.layout, precision_of(accelerator), accelerator.device.type)


def memory_format(layout: str, dims: int) -> torch.memory_format:
    """Of weights and features in so many dimensions."""
    if layout == "contiguous":
        return torch.contiguous_format
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def optimiser_of(method: Method, config: TrainingConfig) -> torch.optim.Optimizer:
    """Over every parameter of the method that requires a gradient. Raises UserError for networks that it hides."""
    _refuse_hidden(method)
    parameters = [weight for weight in method.parameters() if weight.requires_grad]
    everywhere = config.weight_decay if config.weight_decay_of == "all" else 0.0
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": everywhere},
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.99, nesterov=True)
    if config.optimiser == "adam":
        return torch.optim.Adam(groups, lr=config.lr)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)  # one pass over the weights instead of ten


def _refuse_hidden(method: Method) -> None:
    """Networks in a plain list, tuple or dictionary are not part of a module: nothing would train or save them."""
    for name, value in vars(method).items():
        if name.startswith("_"):
            continue
        held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        if any(isinstance(one, nn.Module) for one in held):
            raise UserError(
                f"{type(method).__name__}.{name}: got networks in a {type(value).__name__}, which nothing would train "
                "or save, expected an nn.ModuleList, an nn.ModuleDict or an Ensemble; use one"
            )


def begin(
    method: Method,
    optimiser: torch.optim.Optimizer,
    folder: RunFolder,
    accelerator: Accelerator,
    fresh: Progress,
    steps: int | None,
) -> Progress:
    """Where training stands: `fresh` or, of a run of `steps` that goes on, at its newest whole checkpoint, restored.

    A checkpoint that does not fit the method is passed over like a damaged one. Raises UserError if none is left.
    """
    progress = fresh
    damaged: list[Path] = []
    if steps is not None:

        def restore(path: Path) -> Progress:
            checkpoint = read_checkpoint(path)
            restored = Progress.read(checkpoint, str(path), steps)
            weights = checkpoint.part("method")
            require_alike(path, weights, method.state_dict(), "use another checkpoint")
            restore_optimiser(optimiser, checkpoint.part("optimiser"), str(path))
            method.load_state_dict(weights)
            return restored

        restored, damaged = folder.newest_of(restore)
        progress = restored or progress
    accelerator.wait_for_everyone()  # all have read the checkpoint
    if accelerator.is_main_process:
        folder.cut_log(progress.step)
        if damaged:  # the next rotation must not lose the one that is whole
            folder.previous.replace(folder.last)
    return progress


@contextmanager
def termination() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM came: schedulers send it before they kill. Restored at the end; main thread only."""
    received = []
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    except ValueError:  # not the main thread: whoever runs the thread handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)


def anywhere(flag: bool, accelerator: Accelerator) -> bool:
    """Whether the flag is set in any process: all of them have to stop at the same step."""
    if accelerator.num_processes == 1:
        return flag
    flags = accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum")
    return bool(flags > 0)


def save(method: Method, optimiser: torch.optim.Optimizer, folder: RunFolder, progress: Progress) -> None:
    """Write the last checkpoint; the one before it stays as the previous one."""
    tensors = checkpoint_tensors(method, optimiser)
    folder.rotate_checkpoint()
    write_checkpoint(folder.last, tensors, {"progress": progress.model_dump(), "predictor": predictor_name(method)})


def checkpoint_tensors(method: Method, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What a checkpoint holds of both, where it lies in memory."""
    tensors = {f"method.{name}": tensor for name, tensor in method.state_dict().items()}
    return tensors | {f"optimiser.{name}": tensor for name, tensor in optimiser_tensors(optimiser).items()}


def predictor_name(method: Method) -> str:
    """Under which name the predictor's weights stand in the method's state."""
    return next(name for name, module in method.named_children() if module is method.predictor)
