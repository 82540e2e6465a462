"""One experiment from a folder of scans to a model: check, plan, prepare, train, each skipped when it is done."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from semiseg.data.check import CheckReport, check_dataset
from semiseg.data.corrections import correct_splits, provenance, refuse_changed, with_corrections
from semiseg.data.dataset import Case, Dataset
from semiseg.data.facts import ImageFacts, all_facts
from semiseg.data.intensities import AS_WINDOWED, windowed_already
from semiseg.data.label_tables import numbered
from semiseg.data.plan import Plan, for_every_channel, merged
from semiseg.data.planning import make_plan, plan_memory_gb, require_budget
from semiseg.data.prepare import PreparedCase, prepare_cases
from semiseg.data.splits import Splits, make_splits
from semiseg.devices import chosen_device, peak_memory_gb, require_memory
from semiseg.draws import seed_of
from semiseg.errors import InputError, UserError
from semiseg.experiments.mirrors import mirrored_sides
from semiseg.experiments.pseudo_labels import origins, prepare_pseudo_labelled, pseudo_labelled, to_guess
from semiseg.experiments.run_settings import DataConfig, RunSettings, method_settings
from semiseg.experiments.score import scored_names
from semiseg.files import write_json
from semiseg.manifest import claim, settle
from semiseg.methods import METHODS, build_method
from semiseg.methods.method import Method
from semiseg.methods.own import refuse_other_file
from semiseg.models.model import build_network, checkpoint_weights, save_model, start_from
from semiseg.models.volumes import reference_volumes
from semiseg.processes import default_workers, preempted_by_sigterm
from semiseg.progress import say, set_quiet
from semiseg.runs.checkpoint import Progress
from semiseg.runs.folder import RunFolder
from semiseg.settings import flat
from semiseg.training.fit import fit
from semiseg.training.launch import adopt_slurm, is_main_process
from semiseg.training.session import Cases

SLACK = 2
"""What a step needs by the plan's estimate may be as many times less: in 16 bits, and with swap."""

MOST_NOTES = 100
"""That are told before training, a line each."""


def checked_splits(data: DataConfig, workers: int, saved: Path | None = None) -> tuple[Dataset, Splits, CheckReport]:
    """Open, check and divide a dataset; `saved`: as this splits.json says, so that a run goes on with its scans.

    No label of a test scan is opened, and no hidden one: scans are divided by what their images say, then the labels
    of labelled and validation scans are looked at. A scan whose label cannot be used is left out, and the scans are
    divided anew. Raises InputError, naming the files, if training cannot start or would leak.
    """
    drawn_from = data.open(labels=False)
    dataset = with_corrections(drawn_from, data.corrected)

    def checked(splits: Splits | None, labels: Collection[str]) -> tuple[Dataset, CheckReport]:
        read = numbered(dataset, labels)
        report = check_dataset(
            read, strict=data.strict, workers=workers, transductive=data.transductive, splits=splits, labels=labels
        )
        return read, report

    def refuse(report: CheckReport) -> None:
        if not report.can_train:
            raise InputError("\n".join([*report.lines(), f"{data.path}: training cannot start; see the lines above"]))

    if saved is not None:
        splits = Splits.load(saved, dataset)
        read, report = checked(splits, _visible(splits))
        refuse(report)
        return read, splits, report
    opened = set(dataset.corrections)
    read, report = checked(None, opened)
    refuse(report)
    while True:
        usable = {case.name for case in report.usable}
        try:
            splits = _drawn(data, drawn_from, dataset, usable)
        except UserError:
            refuse(report)  # the labels that were left out may be why
            raise
        opened |= _visible(splits)
        read, report = checked(splits, opened)
        if _visible(splits) <= {case.name for case in report.usable}:
            refuse(report)
            return read, splits, report


def _visible(splits: Splits) -> set[str]:
    """The cases whose labels training may open."""
    return {case.name for case in (*splits.labelled, *splits.val)}


def _drawn(data: DataConfig, drawn_from: Dataset, dataset: Dataset, names: Collection[str]) -> Splits:
    """names: of the cases that can be used."""
    usable = [case for case in drawn_from.cases if case.name in names]  # a correction changes no draw
    declared = {case.split for case in usable} if data.declared_splits else set()
    splits = make_splits(
        usable,
        labelled=data.labelled,
        val=None if "val" in declared else data.val,
        test=None if "test" in declared else data.test,
        fold=data.fold,
        unlabelled_part=data.unlabelled_part,
        unlabelled_of=data.unlabelled_of,
        reuse_labelled=data.reuse_labelled,
        split_seed=data.split_seed,
        draw=data.draw,
        base=dataset.root,
    )
    return correct_splits(splits, dataset, names)


def plan_dataset(settings: RunSettings, workers: int | None = None, *, announce: bool = True) -> Plan:
    """The plan that `train_run` would make: from all scans that are not test scans, and from visible labels only.

    announce: tell the user what was found in the dataset.
    """
    workers = default_workers() if workers is None else workers
    dataset, splits = _announced(settings, workers) if announce else checked_splits(settings.data, workers)[:2]
    plan = _plan_of(settings, dataset, splits, workers)
    if announce:
        _say_mirrored(settings, plan)
    return plan


def prepare_dataset(settings: RunSettings, workers: int | None = None) -> list[PreparedCase]:
    """Prepare what `train_run` would: the labelled, unlabelled and validation scans; no test scan, no hidden label."""
    workers = default_workers() if workers is None else workers
    dataset, splits = _announced(settings, workers)
    plan = _plan_of(settings, dataset, splits, workers)
    _say_windowed(splits, plan, workers)
    return prepare_cases(splits.not_test, plan, workers=workers)


def _announced(settings: RunSettings, workers: int, saved: Path | None = None) -> tuple[Dataset, Splits]:
    """The divided dataset; the user is told what was found."""
    dataset, splits, report = checked_splits(settings.data, workers, saved)
    notes = (*report.lines(), *splits.notes)
    for line in notes[:MOST_NOTES]:
        say(line)
    if len(notes) > MOST_NOTES:
        more = f"... and {len(notes) - MOST_NOTES} more"
        say(f"{more}; `semiseg check {settings.data.path}` lists them all")
    return dataset, splits


def train_run(
    settings: RunSettings,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    workers: int | None = None,
    splits: Path | None = None,
) -> RunFolder:
    """Check, plan, prepare and train in one go; the run folder ends with `result.json` and `model/`.

    A finished run is left as it is. splits: of another run, whose scans play the same parts in a new one, and whose
    notes have been told. Raises UserError for an unfinished run without `resume`, for settings that differ from those
    that the folder was begun with, and for rounds, which `train_rounds` does.
    """
    if settings.rounds:
        raise UserError(f"rounds: got {settings.rounds}, expected 0 where one network is trained; call `train_rounds`")
    folder, workers = RunFolder(out), default_workers() if workers is None else workers
    wanted = settings.resolved()
    chosen_device(device)  # before all scans are read
    adopt_slurm()
    main = is_main_process()
    if not main:
        set_quiet(True)  # one process speaks for all
    # the others may come here after the first one has begun the folder; if it refuses, the launcher ends them all
    if main:
        refuse_begun(folder, settings, resume)
    if folder.result.exists():
        say(f"{out}: already finished; nothing to do")
        return folder
    early = f"{out}: stopped before the first step; the same command, with --resume if it is refused, goes on"
    with ExitStack() as held, preempted_by_sigterm(early):
        run = begin_run(settings, folder, wanted, held if main else None, device=device, workers=workers, given=splits)
        progress, cases = _train(settings, folder, run, resume=resume, device=device, workers=workers)
        if main:
            _finish(folder, run.plan, settings, cases, len(run.dataset.corrections), progress)
    return folder


def refuse_begun(folder: RunFolder, settings: RunSettings, resume: bool) -> None:
    """Raise UserError for a folder that was begun with other settings, or is to be continued without `resume`."""
    if not folder.config.exists():
        return
    _refuse_other_settings(folder, settings)
    if not folder.result.exists() and not resume:
        raise UserError(f"{folder.path}: got an unfinished run; go on with --resume, or choose another --out")


@dataclass(frozen=True, eq=False)
class BegunRun:
    """What a run is made of, before its first step."""

    dataset: Dataset
    splits: Splits
    guessed: Sequence[Case]
    """Unlabelled scans with their pseudo-labels."""
    plan: Plan
    method: Method


def begin_run(
    settings: RunSettings,
    folder: RunFolder,
    wanted: dict[str, Any],
    held: ExitStack | None,
    *,
    device: str,
    workers: int,
    given: Path | None = None,
    beside: Sequence[str] = (),
) -> BegunRun:
    """Check, divide and plan; what was decided is written down, or read where the run has begun.

    wanted: the settings, resolved. held: what is given back at the end, of the main process; None in the others.
    given: the splits of another run, see `train_run`. beside: what else will be written to the folder. Raises UserError
    for whatever would stop the run later, before anything is written.
    """
    if held and folder.config.exists():
        held.enter_context(folder.alone())
        settle(folder.path)
    begun = folder.config.exists()  # it is written last: without it, splits and plan may be of other settings
    saved = folder.splits if begun else given
    divided = _announced(settings, workers, saved) if given is None else checked_splits(settings.data, workers, saved)
    dataset, splits = divided[:2]
    if settings.training.patience is not None and not splits.val:
        raise UserError(
            f"training.patience: got {settings.training.patience} without validation scans, expected some to stop by; "
            "give --val, or leave it out"
        )
    if settings.rounds and not to_guess(splits):
        raise UserError(
            f"rounds: got {settings.rounds} without unlabelled scans, expected some to guess; give fewer labels with "
            "--labelled, more scans with --unlabelled, or leave it out"
        )
    if settings.score:
        scored_names(splits)  # raises before hours of training
    guessed = pseudo_labelled(Path(settings.pseudo_labels), splits) if settings.pseudo_labels else []
    labelled_by = [*provenance(splits, dataset), *origins(guessed)]
    if begun:
        refuse_changed(folder.provenance, labelled_by)
    plan = Plan.load(folder.plan) if begun else _plan_of(settings, dataset, splits, workers)
    _say_windowed(splits, plan, workers)
    _say_mirrored(settings, plan)
    require_memory(chosen_device(device), plan_memory_gb(plan) / SLACK, "plan")
    torch.manual_seed(seed_of(settings.seed, "initialisation"))
    network = build_network(plan)
    if settings.init:
        fresh = start_from(network, Path(settings.init))
        if fresh:
            say(f"--init {settings.init}: fresh weights for {', '.join(fresh)}")
    name, config = method_settings(settings)
    if config["regions"]:
        raise UserError(
            f"method.regions: got {config['regions']}, expected none; name regions in plan.regions and set "
            "plan.train_on=regions"
        )
    method = build_method(name, network, config | {"regions": plan.region_members})
    if held and not begun:  # only now: a mistake found above must not leave a folder that refuses the corrected command
        claim(folder.path, "train", (*folder.names, *beside))
        held.enter_context(folder.alone())
        if folder.config.exists():
            raise UserError(f"{folder.path}: got a run that began meanwhile, expected none; choose another --out")
        splits.save(folder.splits)
        write_json(folder.provenance, labelled_by)
        plan.save(folder.plan)
        folder.write_environment(seed=settings.seed)
        folder.write_config(wanted)
        settle(folder.path)  # from now on the settings say whose folder it is
    return BegunRun(dataset, splits, guessed, plan, method)


def _train(
    settings: RunSettings, folder: RunFolder, run: BegunRun, *, resume: bool, device: str, workers: int
) -> tuple[Progress, Cases]:
    splits, plan, method = run.splits, run.plan, run.method

    def prepared(cases: Any) -> list[PreparedCase]:
        return prepare_cases(cases, plan, workers=workers)

    cases = Cases(
        labelled=prepared(splits.labelled),
        unlabelled=prepared(splits.unlabelled) if method.wants_unlabelled else [],
        validation=prepared(splits.val),
        guessed=prepare_pseudo_labelled(run.guessed, plan, workers),
        labelled_groups=_labelled_groups(run.dataset, splits),
    )
    guessed = f", {len(cases.guessed)} with pseudo-labels" if cases.guessed else ""
    say(
        f"{method_settings(settings)[0]}: {len(cases.labelled)} labelled + {len(cases.validation)} validation scans, "
        f"{len(cases.unlabelled)} unlabelled{guessed}; {plan.dims}-D, patch {plan.patch}, "
        f"{settings.training.steps} steps"
    )
    progress = fit(
        method, plan, cases, settings.training, folder, seed=settings.seed, device=device,
        workers=loader_workers(device), resume=resume, faster=_faster(settings, device),
    )  # fmt: skip
    return progress, cases


def _faster(settings: RunSettings, device: str) -> str:
    """What to tell who trains on a processor, chose no size, and could choose a smaller one."""
    decided = settings.plan_file or "size" in settings.model_fields_set or {"network", "batch"} & settings.plan.keys()
    if decided or chosen_device(device).type != "cpu":
        return ""
    return "`--size small` takes a smaller network and batch"


def _finish(
    folder: RunFolder, plan: Plan, settings: RunSettings, cases: Cases, corrected: int, progress: Progress
) -> None:
    used: Literal["best", "last"] = "best" if progress.best_step is not None else "last"
    result = {
        "checkpoint": used,
        "note": "best checkpoint by validation Dice" if used == "best" else "no validation scans: the last checkpoint",
        "steps": progress.step,
        "stopped_early": progress.stopped_early,
        "last": {"step": progress.step, "validation_dice": progress.last_dice},
        "best": {"step": progress.best_step, "validation_dice": progress.best_dice},
        "labelled": len(cases.labelled),
        "corrected": corrected,
        "validation": len(cases.validation),
        "labels_used": f"{len(cases.labelled)} + {len(cases.validation)} labelled",
        "unlabelled": len({case.name for case in (*cases.unlabelled, *cases.guessed)}),
        **({"pseudo_labelled": len(cases.guessed)} if settings.pseudo_labels else {}),
        "transductive": settings.data.transductive,
        "duration_s": round(progress.duration_s, 1),
        "memory_gb": peak_memory_gb(),
        "precision": progress.precision,
        "layout": progress.layout,
        "passes_per_step": progress.passes_per_step,
    }
    patience = settings.training.patience_at(*cases.labelled_groups)
    early = f", no better for {patience}" if progress.stopped_early else ""
    volumes = [one.model_dump() for one in reference_volumes([*cases.labelled, *cases.validation], plan)]
    facts = {"classes": plan.classes, "settings": settings.resolved(), "scores": result, "volumes": volumes}
    save_model(folder.model, checkpoint_weights(folder, used), plan, facts)
    write_json(folder.result, result)
    say(f"{folder.path}: finished {progress.step} steps{early}; {result['note']}; model in {folder.model}")


def _plan_from_file(settings: RunSettings, path: str) -> Plan:
    if settings.unlabelled_ratio is not None:
        raise UserError(
            f"unlabelled_ratio: got {settings.unlabelled_ratio:g} and a plan file, expected one of them; "
            "leave one out, or say plan.unlabelled_batch"
        )
    plan = Plan.load(Path(path))
    changes = for_every_channel(settings.plan, len(plan.channels))
    return Plan.checked(merged(plan.model_dump(mode="json"), changes), where="plan")


def _plan_of(settings: RunSettings, dataset: Dataset, splits: Splits, workers: int) -> Plan:
    if settings.plan_file:
        plan = _plan_from_file(settings, settings.plan_file)
        require_budget(plan, settings.plan_file)
        return plan
    return make_plan(
        dataset,
        splits,
        dims=settings.dims,
        memory_gb=settings.memory_gb,
        unlabelled_ratio=settings.unlabelled_ratio,
        overrides=settings.plan,
        workers=workers,
    )


def _say_windowed(splits: Splits, plan: Plan, workers: int) -> None:
    """Tell the user how many scans count as windowed already, where the plan has `eight_bit`."""
    if not any(rule.eight_bit for rule in plan.normalisation):
        return
    facts = all_facts(splits.not_test, workers).values()
    ranges = [[(i.lowest, i.highest) for i in case.images if isinstance(i, ImageFacts)] for case in facts]
    count = sum(windowed_already(of_case, plan) for of_case in ranges)
    if count:
        say(f"{count} of {len(ranges)} scans: {AS_WINDOWED}")


def _say_mirrored(settings: RunSettings, plan: Plan) -> None:
    name, config = method_settings(settings)
    for warning in mirrored_sides(plan, METHODS[name].Config.parse(config, where="method")):
        say(warning)


def _labelled_groups(dataset: Dataset, splits: Splits) -> tuple[int, int]:
    """How many groups of scans are labelled, and how many could be: all that have labels and are not held out."""
    held_out = {case.group_name for case in (*splits.val, *splits.test)}
    able = {case.group_name for case in dataset.cases if case.label is not None and case.split != "unlabelled"}
    return len({case.group_name for case in splits.labelled}), len(able - held_out)


def _refuse_other_settings(folder: RunFolder, settings: RunSettings) -> None:
    # parsed, so that settings that came later have their defaults
    begun, given = RunSettings.parse(folder.read_config(), where=str(folder.config)), settings.resolved()
    refuse_other_file(begun.method, given["method"], str(folder.path), "--method ")
    try:
        before, now = flat(begun.resolved()), flat(given)
    except UserError as error:
        raise UserError(f"{folder.config}: {error}") from None
    file = settings.plan_file
    if file and (file != before.get("plan_file") or Path(file).exists()):
        # the run has its plan: the file may be gone, or in another place (a bench that was moved), but not another plan
        same = _plan_from_file(settings, file) == Plan.load(folder.plan)
        before["plan_file"] = file if same else str(folder.plan)
    if settings.pseudo_labels and before.get("pseudo_labels"):
        before["pseudo_labels"] = settings.pseudo_labels  # wherever they lie by now: provenance.json knows their hashes
    changed = [
        f"{key}: {before.get(key)!r} -> {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise UserError(
            f"{folder.path}: got other settings than it was begun with ({'; '.join(changed)}); "
            "use the same settings, or another --out"
        )


def loader_workers(device: str) -> int:
    """Reading patches from memory-mapped arrays takes milliseconds: only a GPU is fast enough to wait for it."""
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    return min(4, max(1, default_workers() - 1)) if on_gpu else 0
