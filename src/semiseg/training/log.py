"""What is written down while a network trains: numbers, pictures, the best weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from semiseg.colours import class_colours
from semiseg.runs.checkpoint import Progress, write_checkpoint
from semiseg.runs.folder import RunFolder
from semiseg.training.pictures import draw_pictures, draw_progress
from semiseg.training.session import TrainingConfig
from semiseg.types import Batch, Objective


class Log:
    """Numbers go to metrics.jsonl, and to TensorBoard where it is wanted and installed; pictures beside it."""

    def __init__(self, folder: RunFolder, config: TrainingConfig, classes: Sequence[str]) -> None:
        self._folder = folder
        self._colours = list(class_colours(classes).values())
        self._mirror = _TensorBoard(folder.path / "tensorboard") if config.tensorboard else None

    def step(self, progress: Progress, objective: Objective, lr: float, gradient_norm: float) -> None:
        """What the step's last batch cost."""
        line = {
            "loss": float(objective.total.detach()),
            "terms": {name: float(term.detach()) for name, term in objective.terms.items()},
            "watch": objective.watch,
            "lr": lr,
            "gradient_norm": gradient_norm,
            "duration_s": round(progress.duration_s, 3),
        }
        self._folder.append(step=progress.step, kind="train", **line)
        if self._mirror:
            self._mirror.numbers(line, progress.step)

    def validation(self, progress: Progress, predictor: nn.Module, batch: Batch) -> None:
        """Log a validation, keep the best weights, draw pictures."""
        if progress.last_dice is not None:
            scores = {"dice": progress.dice, "dice_mean": progress.last_dice}
            self._folder.append(step=progress.step, kind="validation", **scores)
            if self._mirror:
                self._mirror.numbers(scores, progress.step)
            if progress.best_step == progress.step:
                tensors = {f"predictor.{name}": tensor for name, tensor in predictor.state_dict().items()}
                write_checkpoint(self._folder.best, tensors, {"step": progress.step, "dice": progress.last_dice})
        draw_progress(self._folder.read_log(), self._folder.progress)
        picture = draw_pictures(
            predictor, batch, self._folder.pictures / f"step-{progress.step:06d}.png", self._colours
        )
        if self._mirror:
            self._mirror.picture(picture, progress.step)


class _TensorBoard:
    """Mirrors numbers and pictures; does nothing if tensorboard is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.writer = None
        else:
            self.writer = SummaryWriter(str(folder))

    def numbers(self, values: dict[str, Any], step: int, prefix: str = "") -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                self.numbers(value, step, f"{prefix}{name}/")
            elif self.writer:
                self.writer.add_scalar(f"{prefix}{name}", value, step)

    def picture(self, image: np.ndarray[Any, Any], step: int) -> None:
        if self.writer:
            self.writer.add_image("pictures", image, step, dataformats="HWC")
            self.writer.flush()
