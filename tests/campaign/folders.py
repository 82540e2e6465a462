"""Layouts: folders that are missing, doubled, renamed, unreadable or a loop; names of every kind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from campaign.case import ANY, Case
from campaign.world import words

COMMANDS = {
    "check": "check D",
    "plan": "@plan out",
    "prepare": "@prepare",
    "train": "train D --labelled 2 --test 1 --score @tiny --out out",
    "predict": "predict RUN D --overlay --out out",
    "evaluate": "evaluate PRED D --out out",
    "review": "review RUN D --count 1 --out out",
}
Damage = Callable[[Path], object]


def cases() -> Iterator[Case]:
    yield from _folders()
    yield from _names()
    yield from _other_layouts()


# folders


def move(source: str, target: str) -> Damage:
    return lambda here: (here / source).rename(here / target)


def copy(source: str, target: str) -> Damage:
    return lambda here: shutil.copy(here / source, here / target)


def without(name: str) -> Damage:
    return lambda here: shutil.rmtree(here / name)


def text_for(name: str) -> Damage:
    return lambda here: (shutil.rmtree(here / name), (here / name).write_text("no folder"))


def link_for(name: str, target: str) -> Damage:
    return lambda here: (shutil.rmtree(here / name), (here / name).symlink_to(target))


def closed(name: str, mode: int = 0) -> Damage:
    return lambda here: (here / name).chmod(mode)


def many(here: Path) -> None:
    for number in range(1000):
        (here / "D" / "images" / f"note{number}.txt").touch()
        (here / "D" / "labels" / f"stray{number}.nii.gz").touch()


def hidden(here: Path) -> None:
    """As macOS leaves them on the disks of others."""
    for part in ("images", "labels"):
        (here / "D" / part / "._case0.nii.gz").write_text("x")


FOLDERS: dict[str, tuple[Damage, tuple[int, ...]]] = {
    "no-dataset": (without("D"), (3,)),
    "no-images": (without("D/images"), (3,)),
    "no-labels": (without("D/labels"), (0, 3)),
    "images-renamed": (move("D/images", "D/imagess"), (3,)),
    "empty-images": (lambda here: [path.unlink() for path in (here / "D/images").iterdir()], (3,)),
    "images-is-a-file": (text_for("D/images"), (3,)),
    "labels-is-a-file": (text_for("D/labels"), (0, 3)),
    "dataset-is-a-file": (text_for("D"), (3,)),
    "dataset-is-a-loop": (link_for("D", "D"), (2, 3)),
    "images-is-a-loop": (link_for("D/images", "images"), (3,)),
    "images-leads-up": (link_for("D/images", ".."), (3,)),
    "labels-leads-to-images": (link_for("D/labels", "images"), (3, 4)),
    "dataset-not-to-be-opened": (closed("D"), (2, 3)),
    "images-not-to-be-opened": (closed("D/images"), (2, 3)),
    "images-not-to-be-listed": (closed("D/images", 0o100), (2, 3)),
    "labels-not-to-be-opened": (closed("D/labels"), (0, 2, 3, 4)),
    "description-not-to-be-read": (closed("D/dataset.json"), (0, 2, 3)),
    "description-is-a-folder": (
        lambda here: ((here / "D/dataset.json").unlink(), (here / "D/dataset.json").mkdir()),
        (0, 3),
    ),
    "twice-with-two-endings": (copy("D/images/case0.nii.gz", "D/images/case0.nii"), (3,)),
    "the-same-scan-twice": (copy("D/images/case0.nii.gz", "D/images/case3.nii.gz"), (0, 3, 4)),
    "a-stray-label": (copy("D/labels/case0.nii.gz", "D/labels/case9.nii.gz"), ANY),
    "a-thousand-strays": (many, ANY),
    "deeply-nested": (lambda here: (here / "D" / Path(*["deeper"] * 200)).mkdir(parents=True), (0,)),
    "hidden-files": (hidden, (0,)),
    "two-layouts": (lambda here: shutil.copytree(here / "D/images", here / "D/imagesTr"), ANY),
    "a-table-too": (lambda here: (here / "D/dataset.csv").write_text("case,image\na,images/case0.nii.gz\n"), ANY),
}
"""Name to what becomes of the study, and how `check` ends."""


def _folders() -> Iterator[Case]:
    for name, (damage, exits) in FOLDERS.items():
        for command, line in COMMANDS.items():
            # what a command never opens cannot stop it, and scans that fail are listed
            ends = exits if command == "check" else (*exits, 0, 4)
            yield Case(f"folder/{name}/{command}", words(line), ends, ("D", "case"), damage)


# names

WHOLE = {
    "emoji": "🧠",
    "comma": "a,b;c",
    "more-dots": "a...",
    "dash": "-rf",
    "quotes": "a'b\"c\\d",
    "channel": "case_0000",
    "upper": "CASE0",
    "number": "007",
    "null": "null",
}
"""Names that a scan may have."""
ODD = {
    "latin-1": os.fsdecode(b"caf\xe9"),
    "lone-byte": os.fsdecode(b"\xff"),
    "combining": "e\u0301\u200b\u202e",
    "newline": "a\nb",
    "tab-and-bell": "a\tb\a",
    "escape": "\x1b[31mred",
    "spaces": "  a b  ",
    "option": "--overwrite",
    "percent": "%s%n{0}${HOME}`id`$(id)",
    "formula": "=cmd|' C calc'!A0",
    "markup": "<script>alert(1)<script>",
    "dots": "..",
    "long": "x" * 240,
    "as-a-shard": "1of2",
    "as-a-result": "manifest",
    "probability": "case0_prob",
    "tilde": "~root",
}


def _names() -> Iterator[Case]:
    alone = "predict RUN in --probabilities --overlay --out out"
    for label, name in {**WHOLE, **ODD}.items():
        names = (label, ascii(name)[1:20], name[:20], "D", "in", "UTF-8")
        for command, line in COMMANDS.items():
            exits = (0,) if command == "check" and label in WHOLE else (0, 2, 3, 4)
            yield Case(f"name/{label}/{command}", words(line), exits, names, partial(_rename, name=name))
        yield Case(f"name/{label}/predict-folder", words(alone), (0, 2, 3, 4), names, partial(_alone, name=name))


def _rename(here: Path, name: str) -> None:
    for part in ("images", "labels"):
        (here / "D" / part / "case2.nii.gz").rename(here / "D" / part / f"{name}.nii.gz")


def _alone(here: Path, name: str) -> None:
    (here / "in").mkdir()
    shutil.copy(here / "D/images/case5.nii.gz", here / "in" / f"{name}.nii.gz")


# layouts of others


def nnunet(*names: str, channels: int = 1, **more: object) -> Damage:
    """A data set in N, of copies of one scan; with a dataset.json unless `channels` is 0."""

    def write(here: Path) -> None:
        for name in names:
            target = here / "N" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(here / ("D/labels/case0.nii.gz" if "labels" in name else "D/images/case0.nii.gz"), target)
        described = {str(number): f"T{number}" for number in range(channels)}
        if channels:
            document = {"channel_names": described, "labels": {"background": 0, "a": 17}, **more}
            (here / "N" / "dataset.json").write_text(json.dumps(document))

    return write


def covid(content: bytes, *names: str) -> Damage:
    return lambda here: ((here / "N").mkdir(), *((here / "N" / name).write_bytes(content) for name in names))


def npy(kind: str, shape: str) -> bytes:
    """A header that promises an array; nothing follows."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00v\x00" + text.encode()


STACKS = ("COVID.npy", "COVID_Seg.npy")
OTHERS: dict[str, tuple[Damage, tuple[int, ...]]] = {
    "nnunet-missing-channel": (nnunet("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", channels=2), (3,)),
    "nnunet-second-channel-alone": (nnunet("imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz", channels=2), (3,)),
    "nnunet-channel-9999": (nnunet("imagesTr/a_0000.nii.gz", "imagesTr/a_9999.nii.gz", "labelsTr/a.nii.gz"), (3,)),
    "nnunet-no-suffix": (nnunet("imagesTr/a.nii.gz", "labelsTr/a.nii.gz"), (3,)),
    "nnunet-no-description": (nnunet("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", channels=0), (0, 3)),
    "nnunet-the-same-for-testing": (
        nnunet("imagesTr/a_0000.nii.gz", "imagesTs/a_0000.nii.gz", "labelsTr/a.nii.gz"),
        (3,),
    ),
    "nnunet-file-ending": (nnunet("imagesTr/a_0000.nii.gz", file_ending=".exe"), (3,)),
    "covid-pickle": (covid(npy("|O", "(1,)"), *STACKS), (3,)),
    "covid-negative": (covid(npy("<f4", "(-5, 4, 4)"), *STACKS), (3,)),
    "covid-huge": (covid(npy("<f4", "(1000000, 1000000, 1000)"), *STACKS), (3,)),
    "covid-cut": (covid(npy("<f4", "(2, 4, 4)"), *STACKS), (3,)),
    "covid-zip": (covid(b"PK\x03\x04" + bytes(99), *STACKS), (3,)),
    "covid-empty": (covid(b"", "tr_im.nii.gz", "tr_mask.nii.gz"), (3,)),
    "malc-empty": (lambda here: (here / "N" / "training-images").mkdir(parents=True), (3,)),
    "brats-one-modality": (nnunet("HGG/p1/p1_flair.nii.gz", "HGG/p1/p1_seg.nii.gz", channels=0), (0, 3)),
    "nothing": (lambda here: (here / "N").mkdir(), (3,)),
    "dicom": (covid(bytes(128) + b"DICM" + bytes(99), "IM0001"), (3,)),
}


def _other_layouts() -> Iterator[Case]:
    for name, (damage, exits) in OTHERS.items():
        yield Case(f"layout/{name}/check", words("check N --strict"), exits, ("N",), damage)
        yield Case(f"layout/{name}/train", words("train N @tiny --out out"), (2, *exits), ("N", "--labelled"), damage)
