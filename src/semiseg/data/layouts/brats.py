"""Brain tumour segmentation challenge (BraTS), 2019 to 2021 and 2023: a folder for each patient, four modalities.

Labels are 1 necrosis and non-enhancing core, 2 oedema, and the enhancing tumour: 4, since 2023 it is 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from semiseg.data.dataset import Case, Dataset
from semiseg.data.images import case_name
from semiseg.data.layouts.listing import folders_below
from semiseg.errors import InputError

NAME = "brats"
looks_for = (
    "PATIENT/PATIENT_{flair,t1,t1ce,t2,seg}.nii.gz or PATIENT/PATIENT-{t2f,t1n,t1c,t2w,seg}.nii.gz, also in HGG, LGG"
)

MODALITIES = ("flair", "t1", "t1ce", "t2")
"""In the order of the channels, whatever the year."""

_SINCE_2023 = {"t2f": "flair", "t1n": "t1", "t1c": "t1ce", "t2w": "t2"}
_ENDINGS = {f"_{name}": name for name in (*MODALITIES, "seg")} | {
    f"-{name}": meant for name, meant in {**_SINCE_2023, "seg": "seg"}.items()
}


@dataclass(frozen=True)
class _Patient:
    name: str
    files: dict[str, Path]
    """By modality, and `seg`."""
    since_2023: bool


def fits(root: Path) -> bool:
    return any(_patients(root))


def read(root: Path) -> Dataset:
    """The channels are the modalities that all patients have; a patient without seg is an unlabelled case.

    Raises InputError where no modality is shared, and for a patient that is there twice.
    """
    patients: dict[str, _Patient] = {}
    for patient in _patients(root):
        if patient.name in patients:
            place = next(iter(patient.files.values())).parent
            raise InputError(f"{place}: got patient {patient.name!r} a second time, expected each once; remove one")
        patients[patient.name] = patient
    shared = tuple(name for name in MODALITIES if all(name in patient.files for patient in patients.values()))
    if patients and not shared:
        raise InputError(
            f"{root}: got no modality that all patients have, expected one of {', '.join(MODALITIES)}; add it"
        )
    new = [patient.since_2023 for patient in patients.values()]
    enhancing = 3 if new and all(new) else 4
    return Dataset(
        root=root,
        layout=NAME,
        cases=tuple(_case(patient, shared) for patient in patients.values()),
        channels=shared,
        classes={"background": 0, "necrosis": 1, "oedema": 2, "enhancing": enhancing},
        relabel={3: 4} if any(new) and not all(new) else {},
        regions={"whole": (1, 2, enhancing), "core": (1, enhancing), "enhancing": (enhancing,)},
        known=tuple(path for patient in patients.values() for path in patient.files.values()),
        notes=tuple(_missing(list(patients.values()), shared)),
    )


def _patients(root: Path) -> Iterator[_Patient]:
    """Of root itself and the folders below, HGG and LGG among them."""
    for folder in folders_below(root, depth=3):
        name = folder.name or folder.resolve().name
        files: dict[str, Path] = {}
        since_2023 = False
        for path in sorted(folder.glob("[!.]*.nii*")):
            ending = case_name(path).removeprefix(name)
            if ending in _ENDINGS:
                files[_ENDINGS[ending]] = path
                since_2023 |= ending.startswith("-")
            elif case_name(path).endswith("_Segm"):  # one patient of 2020 has a file of another name
                files.setdefault("seg", path)
        if any(modality in files for modality in MODALITIES):
            yield _Patient(name, files, since_2023)


def _case(patient: _Patient, channels: tuple[str, ...]) -> Case:
    images = tuple(patient.files[channel] for channel in channels)
    # since 2023 the last three digits number the scans of a patient
    group = re.sub(r"-\d{3}$", "", patient.name) if patient.since_2023 else ""
    return Case(patient.name, images, patient.files.get("seg"), group)


def _missing(patients: list[_Patient], shared: tuple[str, ...]) -> Iterator[str]:
    for modality in MODALITIES:
        without = [patient.name for patient in patients if modality not in patient.files]
        if modality not in shared and len(without) < len(patients):
            yield f"{modality} is left out: {len(without)} of {len(patients)} patients lack it, the first {without[0]}"
