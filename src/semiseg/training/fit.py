"""The training loop. There is only this one."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from functools import partial

import torch

from semiseg.data.batches import load, numbers, workers_alive
from semiseg.data.plan import Plan
from semiseg.draws import Draws
from semiseg.errors import Preempted
from semiseg.methods.method import Method
from semiseg.progress import track
from semiseg.runs.checkpoint import Progress
from semiseg.runs.folder import RunFolder
from semiseg.training.forecast import Forecast
from semiseg.training.log import Log
from semiseg.training.passes import passes_counted
from semiseg.training.session import (
    Cases,
    TrainingConfig,
    anywhere,
    begin,
    checkpoint_tensors,
    layout_of,
    memory_format,
    optimiser_of,
    precision_of,
    save,
    start,
    termination,
)
from semiseg.training.stages import batches_of
from semiseg.training.steps import refuse_divergence, refuse_strays, set_learning_rate
from semiseg.training.validation import out_of_patience, validate
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
    faster: str = "",
) -> Progress:
    """Train `method` and leave log, pictures and checkpoints in the run folder.

    With `resume`, goes on from the newest whole checkpoint as if nothing had happened. faster: what to
    say about a faster way, if training takes more than an hour. Raises Diverged if the loss is not finite, Preempted
    after SIGTERM with a checkpoint saved, UserError for a method that hides what it trains.
    """
    accelerator = start(device, config.precision)
    fresh = Progress(precision=precision_of(accelerator), layout=layout_of(config, accelerator))
    method = method.to(accelerator.device).to(memory_format=memory_format(fresh.layout, plan.dims))  # type: ignore[call-overload]
    optimiser = optimiser_of(method, config)
    parameters = [weight for group in optimiser.param_groups for weight in group["params"]]
    progress = begin(method, optimiser, folder, accelerator, fresh, config.steps if resume else None)
    trained, stepped = accelerator.prepare(method, optimiser)

    rank, slots = accelerator.process_index, accelerator.num_processes * config.accumulation
    batches = batches_of(cases, method.wants_unlabelled, plan, seed, fine_tune_from=config.fine_tune_step * slots)
    order = numbers(progress.step, config.steps, rank, accelerator.num_processes, config.accumulation)
    loader = iter(load(batches, order, workers))
    patience = config.patience_at(*cases.labelled_groups)
    log = Log(folder, config, list(plan.classes)) if accelerator.is_main_process else None
    forecast = Forecast(partial(checkpoint_tensors, method, optimiser), faster)
    started = time.perf_counter() - progress.duration_s

    with termination() as terminated, workers_alive(), passes_counted(method) as passed:
        for step in track(range(progress.step, config.steps), "Training", total=config.steps - progress.step):
            if progress.stopped_early:
                break
            begun = time.perf_counter()
            share = step / config.steps
            set_learning_rate(optimiser, config, share)
            trained.train()
            for micro in range(config.accumulation):
                draws = Draws(seed, step, rank * config.accumulation + micro)
                torch.manual_seed(draws.seed_for("global"))  # for dropout
                batch = next(loader).to(accelerator.device)
                if method.config.augment:
                    batch = augment(batch, plan.augmentation, draws)
                last = micro == config.accumulation - 1
                passed.images = 0
                with nullcontext() if last else accelerator.no_sync(trained):
                    # only the prepared module is called: calling the bare one would not synchronise gradients
                    objective = trained(batch, draws, share)
                    progress.passed_images += passed.images
                    progress.labelled_images += len(batch.image)
                    names = partial(batches.names, step * slots + draws.slot)
                    refuse_divergence(objective.terms, step, names, folder)
                    accelerator.backward(objective.total / config.accumulation)
            refuse_strays(method, parameters)
            norm = accelerator.clip_grad_norm_(parameters, config.clip or math.inf)
            if accelerator.mixed_precision != "fp16":  # in 16 bits the scaler leaves such a step out
                refuse_divergence({**objective.terms, "gradient norm": norm}, step, names, folder)
            stepped.step()
            stepped.zero_grad()
            method.after_step(share)

            progress.step = step + 1
            progress.duration_s = time.perf_counter() - started
            if log:
                forecast.step(time.perf_counter() - begun, config.steps - progress.step)
            done = progress.step == config.steps
            if log and (done or progress.step % config.log_every == 0):
                log.step(progress, objective, optimiser.param_groups[0]["lr"], float(norm))
            validated = done or progress.step % config.validation_interval == 0
            if validated:
                validate(method.predictor, plan, cases.validation, accelerator, progress)
                progress.stopped_early = not done and out_of_patience(progress, patience)
                if log:
                    log.validation(progress, method.predictor, batch)
            stopping = anywhere(terminated(), accelerator)
            if log and (validated or stopping or progress.step % config.checkpoint_every == 0):
                save(method, optimiser, folder, progress)
            if stopping and not done:
                raise Preempted(
                    f"{folder.path}: stopped at step {progress.step} with a checkpoint; go on with --resume"
                )
    accelerator.wait_for_everyone()
    return progress
