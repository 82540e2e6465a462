"""Five steps of every method and preset are what they were: a change of what a method computes has to be meant."""

import json
from pathlib import Path

import pytest
from support.traces import SETTINGS, STEPS, trace

from semiseg.methods import METHODS

KEPT = json.loads((Path(__file__).parent / "traces.json").read_text(encoding="utf-8"))


def test_every_method_and_preset_has_a_trace():
    traced = {(name, settings.get("preset")) for name, settings in SETTINGS.values()}
    assert {(name, None) for name in METHODS} <= traced
    assert {("roam", "2020"), ("roam", "mixmatch"), ("equireg", "2020")} <= traced


@pytest.mark.parametrize("title", KEPT)
def test_the_terms_of_five_steps_are_those_that_were_kept(title):
    """To the last bit where they were made; other processors add up in another order."""
    name, _, rest = title.rpartition(", 2-D" if ", 2-D" in title else ", 3-D")
    found = trace(name, 2 if ", 2-D" in title else 3, "batch" if "batch norm" in rest else "instance")
    assert len(found["steps"]) == STEPS
    for step, kept in zip(found["steps"], KEPT[title]["steps"], strict=True):
        assert step["terms"].keys() == kept["terms"].keys()
        for term, value in kept["terms"].items():
            assert step["terms"][term] == pytest.approx(value, rel=1e-3, abs=1e-5), term
