"""What every step checks and sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from semiseg.errors import Diverged, UserError
from semiseg.methods.method import Method
from semiseg.runs.folder import RunFolder
from semiseg.schedules import learning_rate
from semiseg.training.session import TrainingConfig


def set_learning_rate(optimiser: torch.optim.Optimizer, config: TrainingConfig, progress: float) -> None:
    times = (1 - config.warm_up) * config.steps / config.decay_every if config.decay_every else 1.0
    factor = learning_rate(progress, config.schedule, config.warm_up, config.decay, times)
    for group in optimiser.param_groups:
        group["lr"] = config.lr * factor


def refuse_divergence(
    values: Mapping[str, Tensor], step: int, cases: Callable[[], list[str]], folder: RunFolder
) -> None:
    """Raise Diverged, naming the step's cases and the last good checkpoint, if one of the values is not finite."""
    if bool(torch.isfinite(torch.stack([value.detach().float() for value in values.values()])).all()):
        return
    got = ", ".join(f"{name} {float(value.detach()):g}" for name, value in values.items())
    good = next((path for path in (folder.last, folder.previous) if path.exists()), None)
    raise Diverged(
        f"training: got {got} at step {step} (cases {', '.join(cases())}), expected finite losses; "
        f"look at those scans or lower training.lr; the last good checkpoint is {good or 'none yet'}"
    )


def refuse_strays(method: Method, trained: Iterable[Tensor]) -> None:
    """Raise UserError for a parameter that got a gradient and is not among the trained ones: it would never move."""
    known = {id(weight) for weight in trained}
    strays = [name for name, weight in method.named_parameters() if weight.grad is not None and id(weight) not in known]
    if strays:
        raise UserError(
            f"{type(method).__name__}: got a gradient for {strays[0]}, which is not optimised, expected none; "
            "make every network in __init__, and leave its requires_grad as it is"
        )
