"""A bundle: a model folder that can be given away, with a model card and without anything of the maker's disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from semiseg.data.plan import Plan
from semiseg.data.splits import SplitNames
from semiseg.errors import UserError
from semiseg.files import is_temporary, new_folder, write_text
from semiseg.manifest import BEGUN, claim
from semiseg.models.model import assemble, checkpoint_weights, model_facts, save_model
from semiseg.runs.contents import CheckpointName, RunResult
from semiseg.runs.folder import RunFolder

SETTINGS = ("method", "training", "plan", "dims", "memory_gb", "seed")
"""What goes along of a run's settings. The others name files, folders or cases."""
LIMITS = (
    "For research only. This is not a medical device: it must not be used to diagnose or to treat anyone. On scans "
    "that differ from its training data (another scanner, protocol, population or disease) it can be wrong without "
    "any warning; compare it with labels of your own first."
)
LEFT_OUT = (
    "Measured on the scans that were not test scans; axes run left to right, back to front, bottom to top. `splits` is "
    "a hash of which scans played which part: equal in two models, they saw the same split. Left out on purpose: the "
    "scans, the names of scans and patients, and every path of the machine that trained it."
)
FILES = ("model.safetensors", "model.json", "README.md")
PACKAGES = ("semiseg", "torch", "monai", "numpy")


def export_bundle(
    run: Path,
    out: Path,
    *,
    checkpoint: Literal["best", "last"] | None = None,
    half: bool = False,
    licence: str = "",
    description: str = "",
    overwrite: bool = False,
) -> Path:
    """Write the model of a finished run as a bundle: model.safetensors, model.json and the model card README.md.

    checkpoint: default: the one that the run's model is of. half: store 16-bit floats, half the size; they are
    computed with in 32 bits again. licence, description: for the card. Names of cases and paths stay behind.
    Returns `out`, which appears whole, or, where the folder was there, gets its model.json last; killed, it can be
    called again. Raises InputError for an unfinished run, UserError if `out` holds something (unless a bundle and
    `overwrite`), or for weights that 16 bits cannot hold.
    """
    folder, out = RunFolder(run), Path(out)
    result = folder.read_result()
    _refuse_to_replace(out, overwrite)
    which = checkpoint or result.checkpoint
    weights, plan = checkpoint_weights(folder, which), Plan.load(folder.plan)
    assemble(weights, plan, folder.path)  # a model that cannot predict is not given away
    settings = {key: value for key, value in folder.read_config().items() if key in SETTINGS}
    facts = {
        "classes": plan.classes,
        "settings": settings,
        "scores": _scores(folder, result, which),
        "volumes": model_facts(folder.path).get("volumes", []),
        "data": {**plan.fingerprint, "splits": splits_hash(folder.read_splits())},
        "versions": {name: version(name) for name in PACKAGES},
        "licence": licence or "not stated",
        "description": description,
    }
    weights, card = _halved(weights) if half else weights, model_card(out.resolve().name, plan, facts)
    with _to_fill(out) as place:
        write_text(place / "README.md", card)
        save_model(place, weights, plan, facts)
    return out


@contextmanager
def _to_fill(out: Path) -> Iterator[Path]:
    """A folder to write the bundle to, model.json last. One that is there stays: it may be a container's volume."""
    if not out.exists():
        with new_folder(out, same=False) as place:
            yield place
        return
    claim(out, "export", ())
    (out / "model.json").unlink(missing_ok=True)  # a mixture of two bundles must not be taken for a model
    yield out
    (out / BEGUN).unlink()


def model_card(name: str, plan: Plan, facts: Mapping[str, Any]) -> str:
    """The card in Markdown. `facts` as `export_bundle` writes them."""
    return (
        "\n\n".join(
            [
                f"# {name}",
                facts["description"]
                or f"Segments {', '.join(list(plan.classes)[1:])} in {' and '.join(plan.channels)}.",
                f"Licence: {facts['licence']}",
                "## Intended use",
                LIMITS,
                f"```console\n$ semiseg predict {name} SCANS --out OUT --overlay\n```",
                f"Input: {len(plan.channels)} channel(s), in this order: {', '.join(plan.channels)}.",
                "## Classes",
                _class_table(plan, facts["scores"]["classes"]),
                "## Training",
                _training(plan, facts),
                "## Training data",
                _data_table(plan, facts["data"]),
                LEFT_OUT,
            ]
        )
        + "\n"
    )


def _class_table(plan: Plan, dice: Mapping[str, float]) -> str:
    rows = ["| value | class | Dice on the validation scans |", "|---|---|---|"]
    rows += [f"| {value} | {name} | {_number(dice.get(name))} |" for name, value in plan.classes.items()]
    regions = [f"\nRegion {name}: {' + '.join(map(str, values))}" for name, values in plan.regions.items()]
    return "\n".join(rows + regions)


def _training(plan: Plan, facts: Mapping[str, Any]) -> str:
    scores, settings = facts["scores"], facts["settings"]
    lines = [
        f"method: {settings['method']['name']}, {scores['step']} steps ({scores['checkpoint']} checkpoint)",
        f"scans: {scores['labelled']} labelled, {scores['unlabelled']} without labels, "
        f"{scores['validation']} with labels for validation",
        f"mean Dice on the validation scans: {_number(scores['validation_dice'])}",
        f"network: {plan.dims}-D {plan.network.name}, patch {'x'.join(map(str, plan.patch))}, "
        f"{plan.batch} + {plan.unlabelled_batch} patches a step",
        f"made with {', '.join(f'{name} {number}' for name, number in facts['versions'].items())}",
        "every setting: `settings` and `plan` in model.json",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _data_table(plan: Plan, data: Mapping[str, Any]) -> str:
    rows = {key.replace("_", " "): value for key, value in data.items()}
    for channel, rule in zip(plan.channels, plan.normalisation, strict=True):
        numbers = {key: value for key, value in rule.model_dump(exclude_defaults=True).items() if key != "scheme"}
        rows[f"intensities of {channel}"] = ", ".join([rule.scheme, *(f"{k} {v}" for k, v in numbers.items())])
    return "\n".join(["| measured | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _scores(folder: RunFolder, result: RunResult, which: CheckpointName) -> dict[str, Any]:
    """Of the chosen checkpoint, and what it was trained on, in numbers alone."""
    chosen = result.of_checkpoint(which)
    logged = [line for line in folder.validations() if line.step == chosen.step]
    counts = result.model_dump(include={"labelled", "unlabelled", "validation", "transductive"})
    return {"checkpoint": which, **chosen.model_dump(), "classes": logged[-1].dice if logged else {}, **counts}


def splits_hash(names: SplitNames) -> str:
    """The same for the same cases in the same parts, whatever order they are listed in."""
    parts = {key: sorted(getattr(names, key)) for key in ("train", "val", "unlabelled", "test")}
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    too_large = [name for name, value in halves.items() if not torch.isfinite(value).all()]
    if too_large:
        raise UserError(
            f"--half: got values beyond 65504 in {too_large[0]}, expected ones that 16 bits hold; export without --half"
        )
    return halves


def _refuse_to_replace(out: Path, overwrite: bool) -> None:
    there = {path.name for path in out.iterdir() if not is_temporary(path.name)} if out.is_dir() else set()
    ours = there <= {*FILES, BEGUN}
    if there and not (ours and (overwrite or BEGUN in there)):  # an export that was interrupted goes on
        action = "pass --overwrite to replace it, or choose another --out" if ours else "choose another --out"
        raise UserError(f"{out}: got a folder that holds {min(there)}, expected none or an empty one; {action}")
