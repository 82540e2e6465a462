"""Every setting of every method changes the objective or the step: an option that does nothing is a defect."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from support.toys import OPEN, batch_of, method_of, optimiser_for

from semiseg.draws import Draws
from semiseg.methods import METHODS
from semiseg.methods.strong import PUBLISHED_WARP
from semiseg.settings import Settings
from semiseg.transforms.intensity import IntensityConfig
from semiseg.transforms.warp import WarpConfig

OTHER: dict[str, Any] = {
    "ema": 0.5,
    "dice": False,
    "annealing": "exp",
    "regions": ((1, 2), (2,)),
    "unlabelled": False,
    "weight": 3.0,
    "ramp": {"linear": "sigmoid", "sigmoid": "linear"},
    "ramp_start": 0.7,
    "ramp_end": 1.0,
    "cutmix": 0.8,
    "cutmix_share": (0.5, 0.6),
    "confidence": 0.4,
    "temperature": 0.3,
    "layers": ("2",),
    "alpha": 5.0,
    "per_sample": True,
    "mix_labelled": True,
    "mix_skips": False,
    "views": 3,
    "warp_logits": True,
    "on_labelled": True,
    "one_pass": True,
    "per_image": True,
    "noise": 0.5,
    "passes": 3,
    "dropout": 0.2,
    "dropout_layers": ("last",),
    "certainty": 0.3,
    "side": 0.3,
}
"""Another value than the default's, which the test of that setting gives. A dictionary: by the default."""
BESIDE: dict[str, dict[str, Any]] = {
    "ramp": {"ramp_end": 1.0},
    "ramp_start": {"ramp_end": 0.9},
    "cutmix_share": {"cutmix": 1.0},
    "mix_skips": {"layers": ("2",)},
    "view_intensity": {"views": 2},
    "warp_logits": {"warp": {"rotate_deg": 20, "probability": 1.0}},
}
"""What has to be on for a setting to matter, in both methods that are compared."""
ELSEWHERE = {
    "preset": "below",
    "augment": "read by the loop: tests/training/test_fit.py",
}
WARPED = {"probability": 1.0, "rotate_deg": 20, "elastic": 0.05, "flip": (0,), "shift": 0.2, "shear_deg": 10}
PARTS: dict[str, dict[str, Any]] = {
    "intensity": {
        "probability": 0.5, "contrast": 0.9, "brightness": 0.9, "gamma": 0.9, "noise": 0.9, "blur": 2.0,
    },
    "warp": {
        "probability": 0.5, "rotate_deg": 80, "scale": (0.5, 0.6), "shear_deg": 40, "shift": 0.4, "elastic": 0.2,
        "smooth": 0.4, "flip": (1,), "at_least": 2,
    },
}  # fmt: skip
"""Another value of every part of a group of settings."""


def steps_of(name: str, settings: dict[str, Any]) -> list[dict[str, float]]:
    return _steps_of(name, json.dumps(settings))


@cache
def _steps_of(name: str, settings: str) -> list[dict[str, float]]:
    """The terms of two steps of the loop's own optimiser, and what the predictor makes of an image after them."""
    method = method_of(name, 2, **json.loads(settings))
    for key, weight in method.named_parameters():
        if key.endswith("head.weight"):  # sure of most voxels, not of all
            weight.data.mul_(6)
    optimiser = optimiser_for(method, lr=0.05)
    method.train()
    seen = []
    for step in range(2):
        batch = batch_of(2, step)
        if not method.wants_unlabelled:
            batch = batch_of(2, step, unlabelled=0)
        objective = method(batch, Draws(5, step), 0.4 + 0.4 * step)
        optimiser.zero_grad()
        objective.total.backward()
        optimiser.step()
        method.after_step(0.5)
        seen.append({term: float(value.detach()) for term, value in objective.terms.items()})
    with torch.no_grad():
        seen.append({"predicted": float(method.predictor(batch_of(2, 9).image).square().mean())})
    return seen


def settings_of_every_method() -> Iterator[tuple[str, str]]:
    for name, method in METHODS.items():
        for key, field in method.Config.model_fields.items():
            if key in ELSEWHERE:
                continue
            if isinstance(field.default, Settings):
                yield from ((name, f"{key}.{part}") for part in type(field.default).model_fields)
            else:
                yield name, key


@pytest.mark.parametrize(("name", "key"), list(settings_of_every_method()))
def test_a_setting_changes_the_objective_or_the_step(name, key):
    group, _, part = key.partition(".")
    field = METHODS[name].Config.model_fields[group]
    gates = {gate: value for gate, value in OPEN.items() if gate in METHODS[name].Config.model_fields}
    base = {**gates, "ema": 0.9, **BESIDE.get(group, {})}
    if part:
        kind = {IntensityConfig: "intensity", WarpConfig: "warp"}[type(field.default)]
        whole = WARPED if kind == "warp" else {**dict.fromkeys(PARTS["intensity"], 0.3), "probability": 1.0}
        whole = {**whole, "at_least": 1} if part == "at_least" else whole
        base[group] = whole
        changed = {**base, group: {**whole, part: PARTS[kind][part]}}
    else:
        other = OTHER[key]
        changed = {**base, key: other[field.default] if isinstance(other, dict) else other}
        if key == "ramp":
            base[key] = field.default
    assert changed != base
    assert steps_of(name, base) != steps_of(name, changed)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_settings_take_the_same_steps(name):
    """Otherwise the test above would see a difference where there is none."""
    assert steps_of(name, {"ema": 0.9}) == _steps_of.__wrapped__(name, json.dumps({"ema": 0.9}))


@pytest.mark.parametrize(("name", "preset"), [(n, p) for n, m in METHODS.items() for p in m.Config.presets])
def test_every_value_of_a_preset_is_a_setting_and_the_preset_changes_some_default(name, preset):
    config = METHODS[name].Config
    assert set(config.presets[preset]) <= set(config.model_fields)
    default = config().model_dump()
    assert {**config(preset=preset).model_dump(), "preset": None} != default


def test_presets_of_roam_equireg_and_cps_are_what_was_published():
    """ROAM and MixMatch in weights for sums over classes; what ours adds is off."""
    roam, mixmatch = (METHODS["roam"].Config(preset=name) for name in ("2020", "mixmatch"))
    assert (roam.augment, roam.ema, roam.mix_skips, roam.dice, roam.layers) == (
        False, 0.0, False, False, ("input", "1", "last"),
    )  # fmt: skip
    assert (roam.alpha, roam.temperature, roam.weight, roam.ramp_end) == (0.75, 0.5, 75 / 28, 1.0)
    assert (mixmatch.alpha, mixmatch.temperature, mixmatch.weight, mixmatch.views) == (0.75, 0.5, 7.5, 2)
    assert (mixmatch.layers, mixmatch.per_sample, mixmatch.mix_skips, mixmatch.dice) == (("input",), True, False, False)
    assert roam.warp.probability == mixmatch.warp.probability == 0
    equireg = METHODS["equireg"].Config(preset="2020")
    assert (equireg.ema, equireg.cutmix, equireg.confidence, equireg.intensity.probability) == (0, 0, 0, 0)
    assert (equireg.warp.flip, equireg.warp.at_least, equireg.warp_logits, equireg.dice) == ((0, 1), 3, True, False)
    assert (equireg.one_pass, equireg.per_image) == (True, True)
    assert (equireg.warp.elastic, equireg.warp.smooth) == (7 / 224, 17 / 224)
    for other in METHODS.values():  # what was measured with the defaults stays what it was
        warp = other.Config.model_fields.get("warp")
        assert warp is None or warp.default in (PUBLISHED_WARP, WarpConfig(probability=0))
    assert (PUBLISHED_WARP.elastic, PUBLISHED_WARP.smooth, PUBLISHED_WARP.flip) == (5 / 224, 24 / 224, ())
    assert (METHODS["cps"].Config(preset="2021").weight, METHODS["cps"].Config(preset="2021").ramp_end) == (1.5, 0.0)
