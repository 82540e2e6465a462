"""The training loop. There is only this one."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from pydantic import Field
from torch import Tensor

from semiseg.checkpoint import optimiser_tensors, restore_optimiser, write_checkpoint
from semiseg.data.batches import Batches, load, numbers
from semiseg.data.plan import Plan
from semiseg.data.prepare import PreparedCase
from semiseg.draws import Draws
from semiseg.errors import Diverged, Preempted, UserError
from semiseg.methods.method import Method
from semiseg.pictures import draw_pictures, draw_progress
from semiseg.predict import chosen_device, predict_probabilities
from semiseg.progress import track
from semiseg.run import RunFolder
from semiseg.schedules import learning_rate
from semiseg.settings import WORD, Settings
from semiseg.transforms.augment import augment
from semiseg.types import IGNORE, Batch


class TrainingConfig(Settings):
    """How long and how to train, the same for every method."""

    steps: int = Field(default=5000, ge=1)
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = Field(default=5e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    """Of weights. `adam` and `sgd` add it to the gradient, `adamw` shrinks the weights themselves."""
    schedule: Literal["constant", "poly", "cosine", "exponential"] = "poly"
    warm_up: float = Field(default=0.02, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    clip: float = Field(default=12.0, gt=0)
    """Largest gradient norm (12 as in nnU-Net)."""
    accumulation: int = Field(default=1, ge=1)
    """Batches whose gradients are averaged before each optimiser step."""
    precision: Annotated[Literal["auto", "32", "bf16", "16"], WORD] = "auto"
    validate_every: int | None = Field(default=None, ge=1)
    """Steps between validations; a tenth of all steps unless told."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many steps without a better validation Dice. Needs validation scans."""
    checkpoint_every: int = Field(default=250, ge=1)
    log_every: int = Field(default=10, ge=1)
    tensorboard: bool = True
    """Mirror the log to TensorBoard, if it is installed."""


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


@dataclass(frozen=True, eq=False)
class Cases:
    """The prepared scans of one run. Unlabelled ones carry no label."""

    labelled: Sequence[PreparedCase]
    unlabelled: Sequence[PreparedCase]
    validation: Sequence[PreparedCase] = ()


def fit(
    method: Method,
    plan: Plan,
    cases: Cases,
    config: TrainingConfig,
    folder: RunFolder,
    *,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    resume: bool = False,
) -> Progress:
    """Train `method` and leave log, pictures and checkpoints in the run folder.

    With `resume`, goes on from the newest whole checkpoint as if nothing had happened. Raises Diverged if the loss is
    not finite, Preempted after SIGTERM with a checkpoint saved.
    """
    AcceleratorState._reset_state(reset_partial_state=False)  # the previous fit of this process may have differed
    chosen = chosen_device(device)
    kind = chosen.type
    if kind == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)  # accelerate takes the current GPU
    precision = chosen_precision(config.precision, kind)
    accelerator = Accelerator(
        cpu=kind == "cpu",
        mixed_precision={"32": "no", "bf16": "bf16", "16": "fp16"}[precision],
        step_scheduler_with_optimizer=False,
    )
    # convolutions on channels-last tensors are several times faster in bf16
    layout = torch.channels_last if plan.dims == 2 else torch.channels_last_3d
    method = method.to(accelerator.device).to(memory_format=layout)  # type: ignore[call-overload]
    optimiser = _optimiser(method, config)
    progress = Progress(precision=precision)
    checkpoint = folder.newest_checkpoint() if resume else None
    if checkpoint is not None:
        method.load_state_dict(checkpoint.part("method"))
        restore_optimiser(optimiser, checkpoint.part("optimiser"))
        progress = Progress(**checkpoint.facts["progress"])
    accelerator.wait_for_everyone()  # all have read the checkpoint
    main = accelerator.is_main_process
    if main:
        folder.cut_log(progress.step)
        if checkpoint is not None:
            folder.drop_damaged_checkpoint()
    trained, prepared_optimiser = accelerator.prepare(method, optimiser)

    batches = Batches(cases.labelled, cases.unlabelled if method.wants_unlabelled else (), plan, seed)
    rank, world = accelerator.process_index, accelerator.num_processes
    order = numbers(progress.step, config.steps, rank, world, config.accumulation)
    loader = iter(load(batches, order, workers))
    validate_every = config.validate_every or max(1, config.steps // 10)
    mirror = _TensorBoard(folder.path / "tensorboard") if main and config.tensorboard else None
    started = time.perf_counter() - progress.duration_s

    with _termination() as terminated:
        for step in track(range(progress.step, config.steps), "Training", total=config.steps - progress.step):
            if progress.stopped_early:
                break
            fraction = step / config.steps
            rate = config.lr * learning_rate(fraction, config.schedule, config.warm_up)
            for group in optimiser.param_groups:
                group["lr"] = rate
            trained.train()
            for micro in range(config.accumulation):
                slot = rank * config.accumulation + micro
                number = step * world * config.accumulation + slot
                draws = Draws(seed, step, slot)
                torch.manual_seed(draws.seed_for("global"))  # for dropout
                batch = next(loader).to(accelerator.device)
                if method.config.augment:
                    batch = augment(batch, plan.augmentation, draws)
                last_micro = micro == config.accumulation - 1
                with nullcontext() if last_micro else accelerator.no_sync(trained):
                    # only the prepared module is called: calling the bare one would not synchronise gradients
                    objective = trained(batch, draws, fraction)
                    loss = objective.total
                    if not bool(torch.isfinite(loss)):
                        raise Diverged(_divergence(folder, step, batches.names(number), objective.terms))
                    accelerator.backward(loss / config.accumulation)
            norm = accelerator.clip_grad_norm_(method.network.parameters(), config.clip)
            if precision != "16" and not bool(torch.isfinite(norm)):  # in 16 bits the scaler leaves such a step out
                terms = {**objective.terms, "gradient norm": norm}
                raise Diverged(_divergence(folder, step, batches.names(number), terms))
            prepared_optimiser.step()
            prepared_optimiser.zero_grad()
            method.after_step(fraction)

            progress.step = step + 1
            progress.duration_s = time.perf_counter() - started
            if main and (progress.step % config.log_every == 0 or progress.step == config.steps):
                line = {
                    "loss": float(loss.detach()),
                    "terms": {name: float(term.detach()) for name, term in objective.terms.items()},
                    "watch": objective.watch,
                    "lr": rate,
                    "gradient_norm": float(norm),
                    "duration_s": round(progress.duration_s, 3),
                }
                folder.append(step=progress.step, kind="train", **line)
                if mirror:
                    mirror.numbers(line, progress.step)
            save = progress.step % config.checkpoint_every == 0 or progress.step == config.steps
            if progress.step % validate_every == 0 or progress.step == config.steps:
                _validate(method, plan, cases.validation, accelerator, progress)
                progress.stopped_early = progress.step < config.steps and _out_of_patience(progress, config)
                if main:
                    _record(method, batch, folder, progress, mirror)
                save = True
            stopping = _anywhere(terminated(), accelerator)
            if main and (save or stopping):
                _save(method, optimiser, folder, progress)
            if stopping and progress.step < config.steps:
                raise Preempted(
                    f"{folder.path}: stopped at step {progress.step} with a checkpoint; go on with --resume"
                )
    accelerator.wait_for_everyone()
    return progress


def chosen_precision(precision: str, kind: str) -> str:
    """`auto` is bf16 where the hardware multiplies it (a recent GPU, a processor with AMX), else 32.

    Raises UserError for 16 without a GPU.
    """
    if precision == "16" and kind == "cpu":
        raise UserError("training.precision: got 16 on a processor, expected 32 or bf16; 16 needs a GPU")
    if precision != "auto":
        return precision
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    cpuinfo = Path("/proc/cpuinfo")
    has_amx = kind == "cpu" and cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text()
    return "bf16" if has_amx else "32"


def _optimiser(method: Method, config: TrainingConfig) -> torch.optim.Optimizer:
    parameters = list(method.network.parameters())
    # biases and normalisation scales are not decayed: pulling them to zero only shrinks activations
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.99, nesterov=True)
    if config.optimiser == "adam":
        return torch.optim.Adam(groups, lr=config.lr)
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)  # one pass over the weights instead of ten


def _out_of_patience(progress: Progress, config: TrainingConfig) -> bool:
    """Right after a validation; every process has the same scores, so all of them stop at the same step."""
    if config.patience is None or progress.best_step is None:
        return False
    return progress.step - progress.best_step >= config.patience


def _divergence(folder: RunFolder, step: int, names: list[str], terms: dict[str, Tensor]) -> str:
    values = ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
    good = next((path for path in (folder.last, folder.previous) if path.exists()), None)
    return (
        f"training: got {values} at step {step} (cases {', '.join(names)}), expected finite losses; "
        f"look at those scans or lower training.lr; the last good checkpoint is {good or 'none yet'}"
    )


@contextmanager
def _termination() -> Iterator[Callable[[], bool]]:
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


def _anywhere(flag: bool, accelerator: Accelerator) -> bool:
    """Whether the flag is set in any process: all of them have to stop at the same step."""
    if accelerator.num_processes == 1:
        return flag
    flags = accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum")
    return bool(flags > 0)


def _save(method: Method, optimiser: torch.optim.Optimizer, folder: RunFolder, progress: Progress) -> None:
    tensors = {f"method.{name}": tensor for name, tensor in method.state_dict().items()}
    state = {f"optimiser.{name}": tensor for name, tensor in optimiser_tensors(optimiser).items()}
    folder.rotate_checkpoint()
    write_checkpoint(
        folder.last, {**tensors, **state}, {"progress": vars(progress), "predictor": predictor_name(method)}
    )


def predictor_name(method: Method) -> str:
    """Under which name the predictor's weights stand in the method's state."""
    return next(name for name, module in method.named_children() if module is method.predictor)


@torch.no_grad()
def _validate(
    method: Method, plan: Plan, cases: Sequence[PreparedCase], accelerator: Accelerator, progress: Progress
) -> None:
    """Dice of whole scans in the network's space: per class over the cases that have it, then over classes."""
    if not cases:
        return
    own: list[dict[str, float]] = []
    for case in cases[accelerator.process_index :: accelerator.num_processes]:
        with accelerator.autocast():
            probability = predict_probabilities(method.predictor, case.open_image(), plan, accelerator.device)
        own.append(dice_per_class(np.asarray(probability.argmax(0).cpu()), case.open_label(), plan))
    scores = gather_object(own) if accelerator.num_processes > 1 else own
    per_class = {name: [s[name] for s in scores if name in s] for name in list(plan.classes)[1:]}
    progress.dice = {name: float(np.mean(values)) for name, values in per_class.items() if values}
    progress.last_dice = float(np.mean(list(progress.dice.values()))) if progress.dice else 0.0
    if progress.best_dice is None or progress.last_dice > progress.best_dice:
        progress.best_dice, progress.best_step = progress.last_dice, progress.step


def dice_per_class(prediction: np.ndarray[Any, Any], label: np.ndarray[Any, Any], plan: Plan) -> dict[str, float]:
    """Dice of each foreground class that the label has; voxels that are not annotated are left out."""
    prediction = np.where(label == IGNORE, IGNORE, prediction)
    scores = {}
    for index, name in enumerate(list(plan.classes)[1:], start=1):
        truth, guess = label == index, prediction == index
        if truth.any():
            scores[name] = float(2 * np.sum(truth & guess) / (np.sum(truth) + np.sum(guess)))
    return scores


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
