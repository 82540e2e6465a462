"""Segmentation of medical scans from a few labelled and many unlabelled ones.

The public names are imported when they are first used, so that `import semiseg` costs nothing.
"""

# ruff: noqa: F401 - the imports below are for type checkers and editors
from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semiseg.data.check import CheckReport, check_dataset
    from semiseg.data.dataset import Case, Dataset
    from semiseg.data.layouts import open_dataset, open_inputs
    from semiseg.data.plan import Plan
    from semiseg.data.planning import make_plan
    from semiseg.data.splits import Splits, make_splits
    from semiseg.draws import Draws
    from semiseg.errors import InputError, UserError
    from semiseg.evaluation.evaluate import Evaluation, evaluate_folder
    from semiseg.experiments.experiment import plan_dataset, prepare_dataset, train_run
    from semiseg.experiments.run_settings import RunSettings
    from semiseg.methods import METHODS
    from semiseg.methods.method import Method, MethodConfig
    from semiseg.methods.strong import ConsistencyConfig
    from semiseg.models.model import LoadedModel, load_model, save_model
    from semiseg.networks.frozen import forward_frozen
    from semiseg.prediction.cases import Predictions, predict_cases
    from semiseg.rank.correlation import Correlation, draw_correlation, rank_correlation
    from semiseg.rank.ranking import Ranking, Transforms, rank_cases
    from semiseg.report.page import report_folders
    from semiseg.rounds.rounds import train_rounds
    from semiseg.runs.folder import RunFolder
    from semiseg.transforms.mixing import Box, Mix
    from semiseg.transforms.warp import Warp, WarpConfig
    from semiseg.types import IGNORE, Batch, Geometry, Objective

_HOMES = {
    "data.check": ("CheckReport", "check_dataset"),
    "data.dataset": ("Case", "Dataset"),
    "data.layouts": ("open_dataset", "open_inputs"),
    "data.plan": ("Plan",),
    "data.planning": ("make_plan",),
    "data.splits": ("Splits", "make_splits"),
    "draws": ("Draws",),
    "errors": ("InputError", "UserError"),
    "evaluation.evaluate": ("Evaluation", "evaluate_folder"),
    "experiments.experiment": ("plan_dataset", "prepare_dataset", "train_run"),
    "experiments.run_settings": ("RunSettings",),
    "methods": ("METHODS",),
    "methods.method": ("Method", "MethodConfig"),
    "methods.strong": ("ConsistencyConfig",),
    "models.model": ("LoadedModel", "load_model", "save_model"),
    "networks.frozen": ("forward_frozen",),
    "prediction.cases": ("Predictions", "predict_cases"),
    "rank.correlation": ("Correlation", "draw_correlation", "rank_correlation"),
    "rank.ranking": ("Ranking", "Transforms", "rank_cases"),
    "report.page": ("report_folders",),
    "rounds.rounds": ("train_rounds",),
    "runs.folder": ("RunFolder",),
    "transforms.mixing": ("Box", "Mix"),
    "transforms.warp": ("Warp", "WarpConfig"),
    "types": ("IGNORE", "Batch", "Geometry", "Objective"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'semiseg' has no attribute {name!r}")
    value = getattr(import_module(f"semiseg.{_HOME_OF[name]}"), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
