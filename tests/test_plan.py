import json

import pytest
from test_space import make_plan

from semiseg.data.plan import Plan
from semiseg.errors import InputError, UserError


def test_saved_and_loaded(tmp_path):
    plan = make_plan(classes={"background": 0, "b": 53, "a": 17}, spacing_mm=(1, 0.5, None))
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == plan
    assert list(loaded.classes) == ["background", "b", "a"]  # the order is the network's


def test_axes():
    assert make_plan().prepared_axes == (0, 1, 2)
    plan = make_plan(dims=2, slice_axis=1, patch=(8, 8), spacing_mm=(1.0, None, 3.0))
    assert plan.prepared_axes == (1, 0, 2)
    assert plan.patch_spacing_mm == (1.0, 3.0)


def test_unreadable_plan(tmp_path):
    with pytest.raises(InputError, match=r"plan.json: .*expected a plan.json; make one with `semiseg plan`"):
        Plan.load(tmp_path / "plan.json")


NETWORK = {"widths": (8, 16), "strides": ((2, 2, 2),)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patches": 3}, "patches: unknown setting; did you mean 'patch'"),
        ({"patch": (8, 8)}, r"patch: got \(8, 8\), expected 3 sizes"),
        ({"patch": (8, 8, 9), "network": NETWORK}, r"patch: .*expected 3 sizes divisible by \(2, 2, 2\)"),
        ({"network": {**NETWORK, "widths": (8,)}}, r"network.widths: got \(8,\), expected 2, one more than"),
        ({"network": {**NETWORK, "strides": ((2, 2),)}}, "network.strides: .*expected 3 positive steps"),
        ({"network": {**NETWORK, "strides": ((0, 1, 1),)}}, "network.strides: .*expected 3 positive steps"),
        ({"slice_axis": 1}, "slice_axis: got 1, expected 0, 1 or 2 in 2-D, none in 3-D"),
        ({"spacing_mm": (1, 1, 0)}, "spacing_mm.2: got 0, input should be greater than 0"),
        ({"memory_gb": 0}, "memory_gb: got 0, input should be greater than 0"),
        ({"normalisation": []}, r"normalisation: got \(\), expected 1, one for each channel"),
        ({"classes": {"a": 1, "b": 1}}, "classes: .*expected distinct values"),
    ],
)
def test_edited_plans_are_checked(tmp_path, changes, message):
    values = {**make_plan().model_dump(mode="json"), **changes}
    (tmp_path / "plan.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=f"plan.json.{message}"):
        Plan.load(tmp_path / "plan.json")
