"""Self-training in rounds: a teacher, then students, each trained from scratch on what the one before it guesses."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from semiseg.data.plan import Plan
from semiseg.devices import chosen_device
from semiseg.draws import seed_of
from semiseg.errors import UserError
from semiseg.experiments.experiment import begin_run, refuse_begun, train_run
from semiseg.experiments.pseudo_labels import TABLE, pseudo_labelled
from semiseg.experiments.run_settings import RunSettings
from semiseg.files import read_json, replacing, write_json
from semiseg.models.model import checkpoint_weights, model_facts, save_model
from semiseg.processes import default_workers, preempted_by_sigterm
from semiseg.progress import say
from semiseg.rounds.guesses import write_pseudo_labels
from semiseg.rounds.stronger import stronger
from semiseg.runs.folder import RunFolder
from semiseg.training.launch import adopt_slurm

ROUNDS = "rounds"
"""In a run's folder: a run for each round, called by its number; 0 is the teacher's."""


def train_rounds(
    settings: RunSettings,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    workers: int | None = None,
) -> RunFolder:
    """`train_run`, as many times as `settings.rounds` says and once more, the labels guessed anew after each.

    The run folder holds what the last student's does, and the runs of all in `rounds`. Raises UserError as `train_run`
    does, for several processes, for a dataset without unlabelled scans, and where none of their guesses can be used.
    """
    if not settings.rounds:
        return train_run(settings, out, resume=resume, device=device, workers=workers)
    folder, workers = RunFolder(out), default_workers() if workers is None else workers
    wanted = settings.resolved()
    chosen_device(device)  # before all scans are read
    _refuse_several_processes(settings.rounds)
    refuse_begun(folder, settings, resume)
    if folder.result.exists():
        say(f"{out}: already finished; nothing to do")
        return folder
    early = f"{out}: stopped between two rounds; the same command, with --resume if it is refused, goes on"
    with ExitStack() as held, preempted_by_sigterm(early):
        run = begin_run(settings, folder, wanted, held, device=device, workers=workers, beside=(ROUNDS,))
        rounds: list[RunFolder] = []
        for number in range(settings.rounds + 1):
            guesses = None
            if rounds:
                guesses = write_pseudo_labels(rounds[-1], run.splits, settings.student, device)
                if not pseudo_labelled(guesses, run.splits):
                    raise UserError(_nothing_to_teach(guesses, number))
            say(f"{out}: round {number} of {settings.rounds}, {'a student' if rounds else 'the teacher'}")
            one = round_settings(settings, run.plan, folder, number, guesses)
            place = folder.path / ROUNDS / str(number)
            rounds.append(train_run(one, place, resume=True, device=device, workers=workers, splits=folder.splits))
        _take_over(settings, folder, rounds)
    return folder


def steps_of_rounds(steps: int, rounds: int) -> list[int]:
    """Of the teacher and each student: equal parts of all steps, the rest the last student's."""
    each = steps // (rounds + 1)
    return [*[each] * rounds, steps - rounds * each]


def round_settings(
    settings: RunSettings, plan: Plan, folder: RunFolder, number: int, guesses: Path | None
) -> RunSettings:
    """Of one round, as an ordinary run. guesses: of the round before it; None for the teacher."""
    steps = steps_of_rounds(settings.training.steps, settings.rounds)[number]
    changes: dict[str, Any] = {
        "rounds": 0,
        "training": settings.training.model_copy(update={"steps": steps}),
        "plan_file": str(folder.plan.absolute()),
        "plan": {},
        "unlabelled_ratio": None,
        "score": False,
    }
    if guesses is not None:
        augmentation = stronger(plan.augmentation, settings.student.augmentation)
        changes |= {
            "pseudo_labels": str(guesses.absolute()),
            "plan": {"augmentation": augmentation.model_dump(mode="json")},
            "seed": seed_of(settings.seed, "round", number),
            "init": None,
        }
    return settings.model_copy(update=changes)


def _refuse_several_processes(rounds: int) -> None:
    adopt_slurm()
    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1":
        raise UserError(f"rounds: got {rounds} in {count} processes, expected one; start it without torchrun or srun")


def _nothing_to_teach(guesses: Path, number: int) -> str:
    return (
        f"{guesses / TABLE}: got every unlabelled scan left out, for the reasons there, expected one at least to teach "
        f"round {number}; use {guesses.parent}, which is a finished run, or give another --out and more steps, more "
        "labels, or other values of student.lowest_dice, largest_z or precision"
    )


def _take_over(settings: RunSettings, folder: RunFolder, rounds: list[RunFolder]) -> None:
    """Leave in the run's folder what the last round's holds, the result last of all."""
    last, results = rounds[-1], [_result(one) for one in rounds]
    for path in (last.log, last.progress, last.path / "checkpoints", last.pictures):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            with replacing(folder.path / file.relative_to(last.path)) as temporary:
                shutil.copyfile(file, temporary)
    memory = [each["memory_gb"] for each in results if each["memory_gb"] is not None]
    passes = [(each["steps"], each["passes_per_step"]) for each in results if each["passes_per_step"] is not None]
    steps = sum(count for count, _ in passes)
    result = {
        **results[-1],
        "rounds": [
            {name: each[name] for name in ("steps", "checkpoint", "best", "last", "duration_s")}
            | {"pseudo_labelled": each.get("pseudo_labelled", 0)}
            for each in results
        ],
        "duration_s": round(sum(each["duration_s"] for each in results), 1),
        "memory_gb": max(memory, default=None),
        "passes_per_step": sum(count * each for count, each in passes) / steps if steps else None,
    }
    facts = {**model_facts(last.path), "settings": settings.resolved(), "scores": result}
    save_model(folder.model, checkpoint_weights(last, result["checkpoint"]), Plan.load(last.plan), facts)
    write_json(folder.result, result)
    say(f"{folder.path}: finished {settings.rounds} rounds; model in {folder.model}")


def _result(run: RunFolder) -> dict[str, Any]:
    run.read_result()  # raises for a damaged one
    return dict(read_json(run.result, "the result of a run", "restore the file"))
