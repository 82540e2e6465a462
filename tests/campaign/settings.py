"""Settings: every one of a run, of its plan and of each method, with values that it does not expect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from hypothesis import strategies as st
from pydantic import BaseModel
from safetensors.torch import load_file

from campaign.case import ANY, Case, drawn
from campaign.documents import ODD
from campaign.world import TRAIN
from semiseg.data.plan import Plan
from semiseg.experiments.run_settings import RunSettings
from semiseg.methods import METHODS

MORE = st.sampled_from(
    [
        *("2001-99-99", "!!int abc", "!!python/object/apply:os.system ['touch evil']", "&a [*a]", "{a: &a {b: *a}}"),
        *("[.inf, 1, 1]", "[1e-30, 1e-30, 1e-30]", "[1e30, 1, 1]", "[-1, 2]", "[8, 8, 8]", "[0, 0]", "[1.5, 2]", "[8]"),
        *("10%", "0.1", "1e-320", "1e400", "0x10", "~", "on", "'1'", "9" * 5000, "[[2, 2], [2, 2]]", "{0: 1}", "7"),
    ]
)
VALUES = st.one_of(
    MORE, MORE, ODD.map(lambda value: yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip())
)
LONG = {"training.steps", "training.accumulation"}
"""Any number may be asked for, and is done."""


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings, those of groups too."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")


def cases() -> Iterator[Case]:
    yield from _hand_made()
    own = [key for key in keys(RunSettings) if key not in LONG]
    planned = list(keys(Plan, "plan."))
    of_methods = [(name, key) for name, method in METHODS.items() for key in keys(method.Config, "method.")]
    places = st.one_of(
        st.tuples(st.just("equireg"), st.sampled_from(own)),
        st.tuples(st.just("equireg"), st.sampled_from(planned)),
        st.sampled_from(of_methods),
    )
    for index, ((method, key), value) in enumerate(drawn(st.tuples(places, VALUES), 250, 3)):
        yield _case(
            f"setting/drawn/{index}",
            (f"--set=method.name={method}", f"--set={key}={value}"),
            ANY,
            (key.split(".")[-1], key, "got"),
        )


def _case(name: str, words: tuple[str, ...], exits: tuple[int, ...], names: tuple[str, ...]) -> Case:
    # without the flag and the setting of the method that the others are tried on
    named = any(word.startswith("--set=method.name") for word in words)
    base = [word for word in TRAIN if not named or word not in ("--method", "equireg", "--set=method.ema=0.9")]
    return Case(name, (*base, *words, "--out", "out"), exits, (*names, "--set"), then=_finite)


def _finite(here: Path) -> str | None:
    """A run that ends well has weights that are numbers."""
    weights = load_file(here / "out" / "model" / "model.safetensors")
    odd = [name for name, value in weights.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    return f"weights that are not finite: {odd[0]}" if odd else None


def nested_aliases() -> str:
    """Two million values in a few lines."""
    levels = ["a0: &a0 [" + "1, " * 8 + "]"]
    levels += [f"a{level}: &a{level} [{f'*a{level - 1}, ' * 8}]" for level in range(1, 7)]
    return "{" + ", ".join(levels) + "}"


HAND_MADE: dict[str, tuple[str, ...]] = {
    "no-value": ("--set=training.lr",),
    "no-key": ("--set==1",),
    "dots": ("--set=...=1",),
    "ends-in-a-dot": ("--set=training.=1",),
    "value-as-a-group": ("--set=seed.more=1",),
    "unknown": ("--set=training.learning_rate=1",),
    "unknown-group": ("--set=trainer.lr=1",),
    "misspelt-method": ("--set=method.name=roma",),
    "tab": ("--set=seed=\t1",),
    "brackets": ("--set=plan.patch=[8,8",),
    "date": ("--set=seed=2001-99-99",),
    "digits": ("--set=seed=" + "9" * 6000,),
    "tag": ("--set=seed=!!python/object/apply:os.system ['touch evil']",),
    "nested": ("--set=seed=" + "[" * 5000,),
    "nested-group": ("--set=" + ".".join("a" * 3000) + "=1",),
    "long-key": ("--set=" + "x" * 10**5 + "=1",),
    "batch-of-a-billion": ("--set=plan.batch=1000000000",),
    "patch-of-2-to-the-30": ("--set=plan.patch=[1073741824,1073741824]",),
    "patch-of-65536": ("--set=plan.patch=[65536,65536]",),
    "widths-of-a-million": ("--set=plan.network={widths: [1000000, 1000000], strides: [[2, 2]]}",),
    "a-thousand-resolutions": (
        "--set=plan.network={widths: [" + ", ".join("4" * 1000) + "], strides: [" + ", ".join(["[2, 2]"] * 999) + "]}",
    ),
    "strides-of-0": ("--set=plan.network={widths: [4, 8], strides: [[0, 0]]}",),
    "no-widths": ("--set=plan.network={widths: [], strides: []}",),
    "negative-widths": ("--set=plan.network={widths: [-4, 8], strides: [[2, 2]]}",),
    "unknown-network": ("--set=plan.network.name=vnet",),
    "network-of-monai-that-is-none": ("--set=plan.network={name: 'monai:os.system'}",),
    "weights-from-the-internet": (
        "--set=plan.network={name: 'monai:TorchVisionFCModel', options: {weights: DEFAULT}}",
    ),
    "spacing-of-nothing": ("--set=plan.spacing_mm=[0, 0, 0]",),
    "spacing-inf": ("--set=plan.spacing_mm=[.inf, 1, 1]",),
    "spacing-nan": ("--set=plan.spacing_mm=[.nan, 1, 1]",),
    "spacing-tiny": ("--set=plan.spacing_mm=[1.0e-6, 1.0e-6, 1.0e-6]",),
    "resized-to-a-million": ("--set=plan.resize=[1000000, 1000000, 1000000]",),
    "resized-to-32767": ("--set=plan.resize=[32767, 32767, 32767]",),
    "aliases": ("--set=plan.fingerprint=" + nested_aliases(),),
    "holds-itself": ("--set=plan.fingerprint={a: &a [*a]}",),
    "dims-4": ("--dims=4",),
    "labelled-0": ("--labelled=0",),
    "labelled-1000": ("--labelled=1000",),
    "lr-inf": ("--set=training.lr=.inf",),
    "lr-nan": ("--set=training.lr=.nan",),
    "steps-0": ("--steps=0",),
    "memory-inf": ("--set=memory_gb=.inf",),
    "ratio-inf": ("--set=unlabelled_ratio=.inf",),
    "weight-inf": ("--set=method.weight=.inf",),
    "precision-8": ("--precision=8",),
    "methods-method": ("--set=method.name=[roam]",),
    "name-of-a-file": ("--set=method.name=nowhere.py:Method",),
}
"""What must be refused."""


def _hand_made() -> Iterator[Case]:
    for label, words in HAND_MADE.items():
        key = words[0].removeprefix("--set=").removeprefix("--").partition("=")[0]
        yield _case(
            f"setting/{label}", words, (2, 3, 6), (key[:99], key.split(".")[0][:99], key.split(".")[-1], "lower")
        )
