"""Label maps that a model guessed, as a student trains on them: voxels that it was not sure of are IGNORE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from semiseg.data.dataset import Case
from semiseg.data.facts import source_hash
from semiseg.data.plan import Plan
from semiseg.data.prepare import PreparedCase, prepare_cases
from semiseg.data.splits import Splits
from semiseg.errors import InputError
from semiseg.prediction.label_files import label_file
from semiseg.tables import read_table

TABLE = "pseudo_labels.csv"
COLUMNS = ("case", "used", "reason", "kept")
"""`used`: yes or no; `reason`: why not; `kept`: share of voxels that are not IGNORE."""


def to_guess(splits: Splits) -> list[Case]:
    """The unlabelled scans that are no labelled ones too."""
    labelled = {case.name for case in splits.labelled}
    return [case for case in splits.unlabelled if case.name not in labelled]


def ignore_value(plan: Plan) -> int:
    """What stands for IGNORE in the label maps: the plan's own value, else the largest of 8 bits that is no class."""
    if plan.ignore is not None:
        return plan.ignore
    taken = set(plan.classes.values())
    return max(set(range(256)) - taken, default=max(taken) + 1)


def pseudo_labelled(folder: Path, splits: Splits) -> list[Case]:
    """The unlabelled cases that the table in `folder` says are used, with their label maps there.

    Raises InputError for a table that cannot be read, a case in it that is not to be guessed, and a missing label map.
    """
    path = Path(folder) / TABLE
    unlabelled = {case.name: case for case in to_guess(splits)}
    cases = []
    for row in read_table(path, COLUMNS, "a table of pseudo-labels", "restore it, or make them anew"):
        name = row["case"]
        if name not in unlabelled:
            raise InputError(
                f"{path}: got case {name!r}, expected unlabelled scans of this run; use the pseudo-labels of its scans"
            )
        if row["used"] == "yes":
            label = label_file(folder, unlabelled[name])
            if not label.is_file():
                raise InputError(f"{label}: got no such file, expected the label map of {path.name}; restore it")
            cases.append(replace(unlabelled[name], label=label))
    return cases


def origins(cases: Sequence[Case]) -> list[dict[str, str]]:
    """Rows of a run's provenance.json for cases with a pseudo-label."""
    return [
        {"case": case.name, "label": str(case.label), "hash": source_hash(case.label), "from": "pseudo-label"}
        for case in cases
        if case.label is not None
    ]


def prepare_pseudo_labelled(cases: Sequence[Case], plan: Plan, workers: int) -> list[PreparedCase]:
    """Like scans with labels, in whose files nothing but classes and `ignore_value` stands."""
    values = {"ignore": ignore_value(plan), "relabel": {}, "other_is_background": False}
    return prepare_cases(cases, plan.model_copy(update=values), workers=workers)
