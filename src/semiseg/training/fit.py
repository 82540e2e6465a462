"""The training loop. There is only this one."""

from __future__ import annotations

import time
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from semiseg.data.batches import Batches, load, numbers
from semiseg.data.plan import Plan
from semiseg.devices import chosen_device, chosen_precision
from semiseg.draws import Draws
from semiseg.errors import Diverged, Preempted
from semiseg.methods.method import Method
from semiseg.progress import track
from semiseg.runs.checkpoint import Progress, restore_optimiser
from semiseg.runs.folder import RunFolder
from semiseg.schedules import learning_rate
from semiseg.training.log import _divergence, _record, _TensorBoard
from semiseg.training.session import Cases, TrainingConfig, _anywhere, _optimiser, _save, _termination
from semiseg.training.validation import _out_of_patience, _validate
from semiseg.transforms.augment import augment


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
