"""Tables of classes: which values of a published numbering each class of a method's paper unites.

`roam28` is the set of ROAM (arXiv 2003.09439) and QuickNAT (arXiv 1801.04161): background and 27 structures, in
QuickNAT's order. The numbers are facts of three numberings:

- FreeSurfer's colour table (FreeSurferColorLUT.txt), which CMA segmentations such as IBSR's and CANDI's share.
- The 2012 multi-atlas labelling challenge (Neuromorphometrics, BrainCOLOR protocol; Landman and Warfield 2012).
- QuickNAT's own indices 0 to 27 (the list of classes in the documentation of QuickNAT's first release).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from semiseg.data.dataset import Case, Dataset
from semiseg.data.facts import LabelFacts, case_facts
from semiseg.data.label_values import is_label_value
from semiseg.errors import InputError, UserError
from semiseg.files import read_yaml
from semiseg.settings import shown

Table = Mapping[str, tuple[int, ...]]
"""Class name to the values in label files that it unites; predictions hold the first."""

_ORDER = (
    *("background", "left cortical WM", "left cortical GM", "right cortical WM", "right cortical GM"),
    *("left lateral ventricle", "left cerebellar WM", "left cerebellar GM", "left thalamus", "left caudate"),
    *("left putamen", "left pallidum", "3rd ventricle", "4th ventricle", "brain stem", "left hippocampus"),
    *("left amygdala", "left ventral DC", "right lateral ventricle", "right cerebellar WM", "right cerebellar GM"),
    *("right thalamus", "right caudate", "right putamen", "right pallidum", "right hippocampus", "right amygdala"),
    "right ventral DC",
)

QUICKNAT_28: dict[str, int] = {name: index for index, name in enumerate(_ORDER)}
"""Name to index in QuickNAT's order."""

# Cortex and white matter with the parcels of aparc (1000, 2000), a2009s (11100, 12100) and wmparc (3000, 4000; 5001
# and 5002 not parcellated); lateral ventricles with their inferior horns; white-matter hypointensities that have a
# side; thalamus with the number of older versions. What has no side (corpus callosum 251 to 255, hypointensities 77)
# is background, like everything else.
FREESURFER: dict[str, tuple[int, ...]] = {
    "background": (0,),
    "left cortical WM": (2, 78, *range(3000, 3036), 5001),
    "right cortical WM": (41, 79, *range(4000, 4036), 5002),
    "left cortical GM": (3, *range(1000, 1036), *range(11100, 11176)),
    "right cortical GM": (42, *range(2000, 2036), *range(12100, 12176)),
    "left lateral ventricle": (4, 5),
    "right lateral ventricle": (43, 44),
    "left cerebellar WM": (7,),
    "right cerebellar WM": (46,),
    "left cerebellar GM": (8,),
    "right cerebellar GM": (47,),
    "left thalamus": (10, 9),
    "right thalamus": (49, 48),
    "left caudate": (11,),
    "right caudate": (50,),
    "left putamen": (12,),
    "right putamen": (51,),
    "left pallidum": (13,),
    "right pallidum": (52,),
    "left hippocampus": (17,),
    "right hippocampus": (53,),
    "left amygdala": (18,),
    "right amygdala": (54,),
    "left ventral DC": (28,),
    "right ventral DC": (60,),
    "3rd ventricle": (14,),
    "4th ventricle": (15,),
    "brain stem": (16,),
}

# Even numbers are right, odd ones left among the cortical parcels 100 to 207. The vermis (71 to 73), basal forebrain
# (75, 76), accumbens (23, 30), CSF (46), vessels and the optic chiasm are background.
CHALLENGE: dict[str, tuple[int, ...]] = {
    "background": (0,),
    "left cortical WM": (45,),
    "right cortical WM": (44,),
    "left cortical GM": tuple(range(101, 208, 2)),
    "right cortical GM": tuple(range(100, 208, 2)),
    "left lateral ventricle": (52, 50),
    "right lateral ventricle": (51, 49),
    "left cerebellar WM": (41,),
    "right cerebellar WM": (40,),
    "left cerebellar GM": (39,),
    "right cerebellar GM": (38,),
    "left thalamus": (60,),
    "right thalamus": (59,),
    "left caudate": (37,),
    "right caudate": (36,),
    "left putamen": (58,),
    "right putamen": (57,),
    "left pallidum": (56,),
    "right pallidum": (55,),
    "left hippocampus": (48,),
    "right hippocampus": (47,),
    "left amygdala": (32,),
    "right amygdala": (31,),
    "left ventral DC": (62,),
    "right ventral DC": (61,),
    "3rd ventricle": (4,),
    "4th ventricle": (11,),
    "brain stem": (35,),
}

_QUICKNAT: dict[str, tuple[int, ...]] = {name: (index,) for name, index in QUICKNAT_28.items()}

TABLES: dict[str, dict[str, Table]] = {
    "roam28": {"FreeSurfer": FREESURFER, "2012 challenge": CHALLENGE, "QuickNAT index": _QUICKNAT}
}
"""Name of a set of classes to its numberings, the likeliest first."""


def apply_table(dataset: Dataset, classes: str) -> Dataset:
    """The dataset with the classes of a table instead of its own; regions that need other classes are dropped.

    classes: a name in TABLES, whose numbering is the one that names most of its classes by values in the first
    readable label file (a note says which), or a YAML or JSON file: `name: value`, or `name: [values]` of which
    predictions hold the first; `other: background` makes every value that is not listed background.

    Raises UserError for an unknown name, InputError for a file that is not such a table.
    """
    return numbered(choose_table(dataset, classes))


def choose_table(dataset: Dataset, classes: str) -> Dataset:
    """`apply_table` that opens no label file: the numbering of a name in TABLES is left to `numbered`."""
    path = Path(classes)
    if path.suffix in (".yaml", ".yml", ".json"):
        table, others = _read_table(path)
        return with_table(replace(dataset, table=""), table, others)
    if classes not in TABLES:
        raise UserError(
            f"--classes: got {classes!r}, expected {' or '.join(TABLES)}, or a .yaml or .json file; correct it"
        )
    return replace(dataset, table=classes)


def numbered(dataset: Dataset, cases: Collection[str] | None = None) -> Dataset:
    """The dataset with its `table` in the numbering of a label file; as it is where it needs none.

    cases: names of those whose label may be opened for it; all unless told.
    """
    if not dataset.table:
        return dataset
    labelled = [case for case in dataset.cases if case.label is not None and (cases is None or case.name in cases)]
    name = _numbering(labelled, TABLES[dataset.table])
    note = f"classes {dataset.table}, {name} numbering"
    return with_table(replace(dataset, table=""), TABLES[dataset.table][name], True, note)


def with_table(dataset: Dataset, table: Table, other_is_background: bool, note: str = "") -> Dataset:
    """The dataset with the classes of `table`, in QuickNAT's order where these are its 28."""
    names = sorted(table, key=QUICKNAT_28.__getitem__) if table.keys() == QUICKNAT_28.keys() else table
    classes = {name: table[name][0] for name in names}
    known = set(classes.values())
    return replace(
        dataset,
        classes=classes,
        relabel={value: table[name][0] for name in names for value in table[name][1:]},
        other_is_background=other_is_background,
        regions={name: values for name, values in dataset.regions.items() if known.issuperset(values)},
        notes=(*dataset.notes, note) if note else dataset.notes,
    )


def _numbering(labelled: Iterable[Case], numberings: Mapping[str, Table]) -> str:
    """The one with most classes that have a value in a label file; the first where none can be read."""
    facts = (case_facts(replace(case, images=())).label for case in labelled)
    found = next((set(one.values) for one in facts if isinstance(one, LabelFacts)), set[int]())
    return max(numberings, key=lambda name: sum(not found.isdisjoint(values) for values in numberings[name].values()))


def _read_table(path: Path) -> tuple[Table, bool]:
    document = read_yaml(path, "lines `name: value` or `name: [values]`", "correct it")  # JSON is YAML
    if not isinstance(document, dict) or not document:
        raise InputError(f"{path}: got no table, expected lines `name: value` or `name: [values]`; write one")
    other = document.pop("other", None)
    if other not in (None, "background"):
        raise InputError(f"{path}: got other: {shown(other)}, expected `other: background` or no such line; correct it")
    table = {str(name): _values(path, name, values) for name, values in document.items()}
    listed = [value for values in table.values() for value in values]
    if repeated := sorted(value for value, count in Counter(listed).items() if count > 1):
        raise InputError(f"{path}: got value {repeated[0]} twice, expected each in one class; remove one")
    background = next((name for name, values in table.items() if 0 in values), "background")
    if background in table:
        values = (0, *(value for value in table.pop(background) if value != 0))
    elif listed:
        values = (0,)
    if not table:
        raise InputError(f"{path}: got only {background!r}, expected a class besides the background; name one")
    return {background: values, **table}, other == "background"


def _values(path: Path, name: Any, values: Any) -> tuple[int, ...]:
    listed = values if isinstance(values, list) else [values]
    if not listed or not all(map(is_label_value, listed)):
        raise InputError(
            f"{path}: got {shown(values)} for class {shown(name)}, expected a whole number of 32 bits or a list of them"
        )
    return tuple(listed)
