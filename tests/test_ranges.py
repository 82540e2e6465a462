"""The numbers that settings may have: an end of a range that belongs to it is taken, what lies beyond is refused."""

import pytest

from semiseg.errors import UserError
from semiseg.experiments.run_settings import StudentConfig
from semiseg.methods import METHODS
from semiseg.methods.method import MethodConfig, UnlabelledConfig
from semiseg.methods.strong import ConsistencyConfig, StrongConfig
from semiseg.training.session import TrainingConfig
from semiseg.transforms.intensity import IntensityConfig
from semiseg.transforms.warp import WarpConfig

RANGES = {
    WarpConfig: {
        "probability": "[0, 1]",
        "rotate_deg": "[0, 180]",
        "shear_deg": "[0, 90)",
        "shift": "[0, inf)",
        "elastic": "[0, inf)",
        "smooth": "(0, inf)",
        "at_least": "[0, inf)",
    },
    IntensityConfig: {
        "probability": "[0, 1]",
        "contrast": "[0, inf)",
        "brightness": "[0, inf)",
        "gamma": "[0, inf)",
        "noise": "[0, inf)",
        "blur": "[0, 100]",
    },
    TrainingConfig: {
        "steps": "[1, inf)",
        "lr": "(0, inf)",
        "weight_decay": "[0, inf)",
        "warm_up": "[0, 1)",
        "decay": "(0, 1]",
        "decay_every": "[1, inf)",
        "clip": "(0, inf)",
        "accumulation": "[1, inf)",
        "validate_every": "[1, inf)",
        "checkpoint_every": "[1, inf)",
        "log_every": "[1, inf)",
        "fine_tune": "[0, 1]",
    },
    StudentConfig: {
        "precision": "(0, 1]",
        "threshold": "[0, 1]",
        "lowest_dice": "[0, 1]",
        "largest_z": "(0, inf)",
        "augmentation": "[0, 10]",
    },
    MethodConfig: {"ema": "[0, 1)"},
    UnlabelledConfig: {"weight": "[0, inf)", "ramp_start": "[0, 1]", "ramp_end": "[0, 1]"},
    StrongConfig: {"cutmix": "[0, 1]", "confidence": "[0, 1)"},
    ConsistencyConfig: {"temperature": "(0, inf)"},
    METHODS["supervised"].Config: {},
    METHODS["mean_teacher"].Config: {
        "ema": "(0, 1)",
        "weight": "[0, inf)",
        "ramp_end": "[0, 1]",
        "noise": "[0, inf)",
    },
    METHODS["uamt"].Config: {"passes": "[2, inf)", "dropout": "(0, 1)", "certainty": "(0, 1]"},
    METHODS["cps"].Config: {"weight": "[0, inf)", "ramp_end": "[0, 1]"},
    METHODS["fixmatch"].Config: {"cutmix": "[0, 1]", "confidence": "[0, 1)"},
    METHODS["unimatch"].Config: {"dropout": "(0, 1)"},
    METHODS["bcp"].Config: {
        "ema": "(0, 1)",
        "weight": "[0, inf)",
        "ramp_start": "[0, 1]",
        "ramp_end": "[0, 1]",
        "side": "(0, 1)",
    },
    METHODS["equireg"].Config: {"cutmix": "[0, 1]", "confidence": "[0, 1)"},
    METHODS["roam"].Config: {
        "alpha": "(0, inf)",
        "views": "[1, inf)",
        "temperature": "(0, inf)",
        "weight": "[0, inf)",
        "ramp_end": "[0, 1]",
    },
}
"""Of the settings that a class has of its own, or gives another default."""


def ends(config, name, interval):
    """Values at, or next to, the ends of an interval that may be had; values beyond that may not."""
    near = 1 if "int" in str(config.model_fields[name].annotation) else 1e-6
    low, high = (float(end) for end in interval[1:-1].split(","))
    inside = [low if interval[0] == "[" else low + near]
    outside = [low - near if interval[0] == "[" else low]
    if high < float("inf"):
        inside += [high if interval[-1] == "]" else high - near]
        outside += [high + near if interval[-1] == "]" else high]
    else:
        outside += [high, float("nan")]
    return inside, outside


CASES = [(config, name, interval) for config, ranges in RANGES.items() for name, interval in ranges.items()]


def refused(config, name, value):
    """Whether a value is out of its range; some ends of ranges have to go with another setting, which is no matter."""
    try:
        config.parse({name: value}, "it")
    except UserError as error:
        return f"it.{name}: got {value!r}, input should be" in str(error)
    return False


@pytest.mark.parametrize(("config", "name", "interval"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_the_ends_of_a_range(config, name, interval):
    inside, outside = ends(config, name, interval)
    assert not any(refused(config, name, value) for value in inside)
    assert all(refused(config, name, value) for value in outside)


@pytest.mark.parametrize("config", RANGES, ids=lambda config: config.__name__)
def test_every_setting_with_a_range_is_in_the_table(config):
    own = {name: config.model_fields[name] for name in config.model_fields.keys() & config.__annotations__.keys()}
    bounds = {name: [type(rule).__name__ for rule in field.metadata] for name, field in own.items()}
    assert {name for name, rules in bounds.items() if {"Ge", "Gt", "Le", "Lt"} & {*rules}} == RANGES[config].keys()
