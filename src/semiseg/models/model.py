"""A model is a folder: `model.safetensors` (weights) and `model.json` (everything else)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from semiseg.data.plan import Plan
from semiseg.devices import memory_gb
from semiseg.errors import InputError, UserError
from semiseg.files import is_there, read_json, replacing, write_json
from semiseg.networks import network_from
from semiseg.networks.ensemble import Ensemble, members
from semiseg.networks.network_plan import NetworkPlan
from semiseg.runs.checkpoint import read_checkpoint, read_weights, require_alike
from semiseg.runs.folder import RunFolder

FORMAT = 1
"""Of model.json: raise it when what is written there changes its meaning."""
BUNDLES = Path(__file__).parent / "bundles"
"""Models that come with the package, each in a folder of its own name."""


def save_model(folder: Path, weights: Mapping[str, Tensor], plan: Plan, facts: Mapping[str, Any]) -> None:
    """Write a model folder. `facts` (method, settings, scores, ...) is kept for reading; prediction needs the plan.

    Of an `Ensemble`, model.json lists the `networks` by the prefixes of their weights.
    """
    values = {"format": FORMAT, "plan": plan.model_dump(mode="json"), **facts}
    if several := members(weights):
        values["networks"] = several
    with replacing(folder / "model.safetensors") as temporary:
        # not save_file, whose files nobody but their owner may read
        temporary.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}))
    write_json(folder / "model.json", values)


def load_model(path: Path, checkpoint: Literal["best", "last"] | None = None) -> LoadedModel:
    """The model in a model folder, of a run (its exported model, or the named checkpoint), or one that comes with the
    package, by its name, where no such path exists.

    Raises InputError if there is none, or its weights do not fit its plan.
    """
    path = _located(Path(path))
    run = RunFolder(path)
    if run.config.exists():
        if checkpoint is not None:
            return assemble(checkpoint_weights(run, checkpoint), _plan_of(run), path)
        if not (run.model / "model.json").exists():
            raise InputError(
                f"{path}: got a run that is not finished, expected one with a model; "
                "finish it with `semiseg train ... --resume`, or ask for --checkpoint last"
            )
        path = run.model
    elif checkpoint is not None:
        raise InputError(f"{path}: got --checkpoint {checkpoint} with a model folder, expected a run; leave it out")
    description = path / "model.json"
    if not description.exists():
        raise InputError(f"{path}: got no model.json, expected a run or a model folder; check the path")
    values = read_json(description, "a model's description", "export it again")
    try:
        plan, made = values["plan"], values["format"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{description}: {error!r}, expected a model's description; export it again") from None
    if made != FORMAT:
        raise InputError(f"{description}: got format {made!r}, expected {FORMAT}; use the version that made it")
    weights = read_weights(path / "model.safetensors")
    if (listed := values.get("networks", [])) != members(weights):
        raise InputError(
            f"{description}: got networks {listed}, expected those of model.safetensors, {members(weights)}; "
            "export it again"
        )
    return assemble(weights, _checked(lambda: Plan.checked(plan, where=f"{description}: plan")), path)


def load_teacher_and_student(path: Path) -> tuple[LoadedModel, LoadedModel] | None:
    """The averaged and the trained network of a run's newest checkpoint; None for what is no run, or has no average."""
    run = RunFolder(path)
    newest = run.newest_checkpoint() if run.config.exists() else None
    if newest is None or newest.facts.get("predictor") != "average":
        return None
    plan = _plan_of(run)
    teacher, student = (assemble(newest.part(f"method.{name}"), plan, path) for name in ("average", "network"))
    return teacher, student


def model_facts(path: Path) -> dict[str, Any]:
    """What model.json of a run or model folder holds beside the plan; empty where there is none that can be read."""
    run = RunFolder(_located(Path(path)))
    description = (run.model if run.config.exists() else run.path) / "model.json"
    try:
        return dict(read_json(description, "a model's description", "export it again"))
    except (InputError, ValueError, TypeError):
        return {}


def _located(path: Path) -> Path:
    if is_there(path):
        return path
    shipped = sorted(folder.name for folder in BUNDLES.iterdir())
    if str(path) in shipped:
        return BUNDLES / path
    raise InputError(
        f"{str(path)[:300]}: got no such run or model, expected one, or the name of a model that comes with semiseg "
        f"({', '.join(shipped)}); check the path"
    )


def checkpoint_weights(run: RunFolder, which: Literal["best", "last"]) -> dict[str, Tensor]:
    """Weights of the predictor at the best validation, or at the newest checkpoint."""
    if which == "best":
        if not run.best.exists():
            raise InputError(
                f"{run.path}: got --checkpoint best, expected a run with validation scans; use --checkpoint last"
            )
        return read_checkpoint(run.best).part("predictor")
    newest = run.newest_checkpoint()
    if newest is None:
        raise InputError(f"{run.path}: got no checkpoint, expected one; train the run first")
    predictor = newest.facts.get("predictor")
    weights = newest.part(f"method.{predictor}")
    if not weights:
        raise InputError(f"{run.path}: got a checkpoint without weights of {predictor!r:.80}; train the run again")
    return weights


def start_from(network: nn.Module, path: Path) -> list[str]:
    """Copy a model's weights into `network` wherever name and shape agree; of several networks, the first one's.

    Returns the names that kept their own (a head for other classes). Raises InputError if nothing else agrees.
    """
    model = load_model(path).network
    weights = (model.networks[0] if isinstance(model, Ensemble) else model).state_dict()
    own = network.state_dict()
    fitting = {name: w for name, w in weights.items() if name in own and own[name].shape == w.shape}
    left = [name for name in own if name not in fitting]
    if len(fitting) < len(own) / 2:
        raise InputError(
            f"{path}: {len(fitting)} of {len(own)} weights fit this network, expected most of them; "
            "use the same plan.network (`--plan` with that run's plan.json)"
        )
    network.load_state_dict({**own, **fitting})
    return left


def _plan_of(run: RunFolder) -> Plan:
    return _checked(lambda: Plan.load(run.plan))


def _checked(read: Callable[[], Plan]) -> Plan:
    """A plan that was written, not typed: what is wrong with it is damage."""
    try:
        return read()
    except UserError as error:
        raise InputError(str(error)) from None


def _most_gb(network: NetworkPlan) -> float:
    """More than the weights of a U-Net or FC-DenseNet take: as if every layer were as wide as the widest."""
    layers = len(network.widths) + sum(network.blocks)
    widest = max((*network.widths, network.first + network.growth * sum(network.blocks)))
    return 4e-9 * 4 * 3**3 * layers * float(widest) ** 2


def assemble(weights: Mapping[str, Tensor], plan: Plan, path: Path) -> LoadedModel:
    """The plan's network with these weights. Raises InputError, which names `path`, for weights that do not fit."""
    if not plan.network.from_monai and _most_gb(plan.network) > (memory_gb(torch.device("cpu")) or 0):
        with torch.device("meta"):  # first without content: a plan can describe more weights than fit into memory
            described = [build_network(plan) for _ in members(weights) or [""]]
        expected = (Ensemble(described) if members(weights) else described[0]).state_dict()
        require_alike(path, weights, expected, "export the model again")
    with torch.random.fork_rng(devices=[]):  # initial weights are about to be replaced: leave the generator alone
        alike = [build_network(plan) for _ in members(weights)]
        network = Ensemble(alike) if alike else build_network(plan)
    require_alike(path, weights, network.state_dict(), "export the model again")
    network.load_state_dict(dict(weights))
    return LoadedModel(network=network.eval(), plan=plan, name=str(path))


def build_network(plan: Plan) -> nn.Module:
    """The plan's network with fresh weights from torch's global generator: (b, channels, *patch) -> 32-bit logits."""
    return network_from(plan.network, len(plan.channels), len(plan.classes), plan.patch)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in evaluation mode that returns 32-bit logits, and the plan that it was trained with."""

    network: nn.Module
    plan: Plan
    name: str
    """Where it comes from, for messages."""


def weights_hash(model: LoadedModel) -> str:
    """128 bits that tell one set of weights from another, as 32 hexadecimal digits."""
    return hashlib.blake2b(save(model.network.state_dict()), digest_size=16).hexdigest()
