"""What is written down while a network trains: numbers, pictures, the best weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from semiseg.methods.method import Method
from semiseg.runs.checkpoint import Progress, write_checkpoint
from semiseg.runs.folder import RunFolder
from semiseg.training.pictures import draw_pictures, draw_progress
from semiseg.types import Batch


def _divergence(folder: RunFolder, step: int, names: list[str], terms: dict[str, Tensor]) -> str:
    values = ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
    good = next((path for path in (folder.last, folder.previous) if path.exists()), None)
    return (
        f"training: got {values} at step {step} (cases {', '.join(names)}), expected finite losses; "
        f"look at those scans or lower training.lr; the last good checkpoint is {good or 'none yet'}"
    )


def _record(
    method: Method,
    batch: Batch,
    folder: RunFolder,
    progress: Progress,
    mirror: _TensorBoard | None,
) -> None:
    """Log a validation, keep the best weights, draw pictures."""
    if progress.last_dice is not None:
        folder.append(step=progress.step, kind="validation", dice=progress.dice, dice_mean=progress.last_dice)
        if mirror:
            mirror.numbers({"dice": progress.dice, "dice_mean": progress.last_dice}, progress.step)
        if progress.best_step == progress.step:
            tensors = {f"predictor.{name}": tensor for name, tensor in method.predictor.state_dict().items()}
            write_checkpoint(folder.best, tensors, {"step": progress.step, "dice": progress.last_dice})
    draw_progress(folder.read_log(), folder.progress)
    picture = draw_pictures(method.predictor, batch, folder.pictures / f"step-{progress.step:06d}.png")
    if mirror:
        mirror.picture(picture, progress.step)


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
