"""What the commands find: a small study, a run on it, and what every other command has made of these."""

from __future__ import annotations

import csv
import importlib
import json
import os
import pkgutil
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from support.bench_grid import InProcess
from support.command_line import TINY, write_study

import semiseg
from campaign.child import Ended, run
from semiseg.manifest import sealed

TRAIN = (
    *(
        "train",
        "D",
        "--method",
        "equireg",
        "--labelled",
        "2",
        "--val",
        "2",
        "--test",
        "1",
        *TINY,
        "--set=method.ema=0.9",
    ),
    *(f"--set=training.{key}_every=1" for key in ("checkpoint", "validate", "log")),
)
BENCH = (
    *("bench", "D", "--methods", "equireg", "--labelled", "2", "--runs", "1", "--upper-runs", "0", "--val", "1"),
    *("--test", "1", *TINY[:4], "--set", "training.precision=32", *TINY[6:]),
)
PLAN = ("plan", "D", *TINY[:2], *TINY[6:], "--out")
SCAN = "D/images/case5.nii.gz"
"""It has no label."""
SHORT = {
    "@train": TRAIN,
    "@bench": BENCH,
    "@plan": PLAN,
    "@prepare": ("prepare", *PLAN[1:-1], "--labelled", "2"),
    "@corrected": ("train", "D", "--labelled", "1", *TINY, "--corrected", "REVIEW", "--out", "out"),
    "@ranked": ("rank", "RUN", SCAN, "--transforms", "RANK/transforms.json"),
    "@reviewed": ("review", "RUN", "D", "--ranking", "RANK", "--out", "REVIEW"),
    "@tiny": TINY,
    "@scan": (SCAN,),
}


def words(line: str) -> tuple[str, ...]:
    """Of a command line in which SHORT stands for what is longer."""
    return tuple(word for short in line.split() for word in SHORT.get(short, (short,)))


def import_everything() -> None:
    """So that no forked process has to."""
    for module in pkgutil.walk_packages(semiseg.__path__, "semiseg."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("h5py", "nilearn", "sympy", "torch._dynamo", "PIL.JpegImagePlugin", "PIL.BmpImagePlugin", "mpmath"):
        with suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


class World:
    """Made once, in `root`; every case gets a copy of its own."""

    def __init__(self, root: Path, *, study_alone: bool = False) -> None:
        self.root = root
        self.template = root / "template"
        for name in ("here", "home", "tmp", "cache"):
            (self.template / name).mkdir(parents=True)
        (self.template / "above.txt").write_text("not for any command")
        write_study(self.template / "here" / "D")
        if not study_alone:
            self._make()

    def _run(self, *words: str, before: Callable[[], object] | None = None) -> Ended:
        ended = run(words, self.template, before)
        assert ended.code == 0, f"{' '.join(words)}: {ended}"
        return ended

    def _make(self) -> None:
        here = self.template / "here"
        self._run(*TRAIN, "--out", "RUN")
        half_done(here / "RUN", here / "HALF")
        self._run("predict", "RUN", "D/images", "--out", "PRED")
        self._run("evaluate", "PRED", "D", "--out", "SCORES")
        self._run("rank", "RUN", "D/images", "--out", "RANK")
        self._run("review", "RUN", "D", "--count", "1", "--ranking", "RANK", "--out", "REVIEW")
        accept(here / "REVIEW" / "review.csv")
        self._run("export", "RUN", "--out", "BUNDLE")
        self._run(*BENCH, "--out", "BENCH", before=bench_in_process)
        self._run(*PLAN, "plan.json")
        self._run("predict", "RUN", "D/images", "--shard", "1/2", "--out", "PART")
        self._run("evaluate", "PRED", "D", "--shard", "1/2", "--out", "SCORED-PART")
        self._run("simulate", "brats", "--subjects", "1", "--spacing-mm", "6", "--out", "COHORT")
        (here / "names.txt").write_text("case5\ncase6\n")
        (here / "config.yaml").write_text("training: {lr: 0.01}\n")
        (here / "classes.yaml").write_text("hippocampus: [17]\n")
        rows = [
            "case,image,label,split,group",
            *(f"c{k},D/images/case{k}.nii.gz,D/labels/case{k}.nii.gz,,g{k}" for k in range(5)),
        ]
        (here / "table.csv").write_text("\n".join(rows) + "\n")

    def copy(self, name: str, words: Sequence[str]) -> Path:
        """A place with the study and what the words name; absolute paths in its files lead there."""
        place = self.root / "cases" / name.replace("/", "+")
        shutil.rmtree(place, ignore_errors=True)
        named = {"D", *(word.partition("/")[0] for word in words)}

        def unnamed(folder: str, names: list[str]) -> set[str]:
            return {*names} - named if Path(folder) == self.template / "here" else set()

        shutil.copytree(self.template, place, symlinks=True, ignore=unnamed)
        old, new = os.fsencode(self.template), os.fsencode(place)
        for path in (place / "here").rglob("*"):
            if path.suffix in (".json", ".yaml") and path.is_file():
                text = path.read_bytes()
                if old in text:
                    path.write_bytes(_sealed_again(text.replace(old, new)))
        return place


def _sealed_again(text: bytes) -> bytes:
    """Of a JSON file that holds a hash of itself, with another: its paths lead elsewhere now."""
    if b'"hash": "' not in text:
        return text
    values = json.loads(text)
    del values["hash"]
    return json.dumps(sealed(values)).encode()


def half_done(run: Path, half: Path) -> None:
    """The folder as it was when the run was killed between its two steps."""
    shutil.copytree(run, half)
    shutil.rmtree(half / "model")
    (half / "result.json").unlink()
    (half / "checkpoints" / "previous.safetensors").replace(half / "checkpoints" / "last.safetensors")


def accept(sheet: Path) -> None:
    """Say in every line of a review that the segmentation was right."""
    with sheet.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [{**row, "status": "accepted"} for row in reader]
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames or ())
        writer.writeheader()
        writer.writerows(rows)


def bench_in_process() -> None:
    """In a child: the runs of a bench without starting Python anew for each."""
    import semiseg.jobs.launchers

    semiseg.jobs.launchers.launcher_named = lambda *_, **__: InProcess()  # type: ignore[assignment]
