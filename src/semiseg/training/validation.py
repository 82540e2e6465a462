"""Dice of whole scans during training, and when to stop for want of a better one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from semiseg.data.plan import Plan
from semiseg.data.prepare import PreparedCase
from semiseg.models.windows import predict_probabilities
from semiseg.runs.checkpoint import Progress
from semiseg.types import IGNORE


@torch.no_grad()
def validate(
    network: nn.Module, plan: Plan, cases: Sequence[PreparedCase], accelerator: Accelerator, progress: Progress
) -> None:
    """Dice of whole scans in the network's space: per class over the cases that have it, then over classes.

    The scores, and whether they are the best so far, are kept in `progress`. Nothing is done without cases.
    """
    if not cases:
        return
    own: list[dict[str, float]] = []
    for case in cases[accelerator.process_index :: accelerator.num_processes]:
        with accelerator.autocast():
            probability = predict_probabilities(network, case.open_image(), plan, accelerator.device)
        own.append(dice_per_class(np.asarray(probability.argmax(0).cpu()), case.open_label(), plan))
    scores = gather_object(own) if accelerator.num_processes > 1 else own
    per_class = {name: [s[name] for s in scores if name in s] for name in list(plan.classes)[1:]}
    progress.dice = {name: float(np.mean(values)) for name, values in per_class.items() if values}
    progress.last_dice = float(np.mean(list(progress.dice.values()))) if progress.dice else 0.0
    if progress.best_dice is None or progress.last_dice > progress.best_dice:
        progress.best_dice, progress.best_step = progress.last_dice, progress.step


def out_of_patience(progress: Progress, patience: int | None) -> bool:
    """Right after a validation; every process has the same scores, so all of them stop at the same step."""
    if patience is None or progress.best_step is None:
        return False
    return progress.step - progress.best_step >= patience


def dice_per_class(prediction: np.ndarray[Any, Any], label: np.ndarray[Any, Any], plan: Plan) -> dict[str, float]:
    """Dice of each foreground class that the label has; voxels that are not annotated are left out."""
    prediction = np.where(label == IGNORE, IGNORE, prediction)
    scores = {}
    for index, name in enumerate(list(plan.classes)[1:], start=1):
        truth, guess = label == index, prediction == index
        if truth.any():
            scores[name] = float(2 * np.sum(truth & guess) / (np.sum(truth) + np.sum(guess)))
    return scores
