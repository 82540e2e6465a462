import json

import pytest
from support.plans import make_plan

from semiseg.data.plan import Plan
from semiseg.errors import InputError, UserError


def test_saved_and_loaded(tmp_path):
    plan = make_plan(classes={"background": 0, "b": 53, "a": 17}, spacing_mm=(1, 0.5, None))
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == plan
    assert list(loaded.classes) == ["background", "b", "a"]  # the order is the network's


def test_a_saved_plan_lists_relabelled_values_in_ranges(tmp_path):
    relabel = {1000: 3, 1002: 3, 1001: 3, 5: 3, 2000: 0, -2: 0}
    plan = make_plan(classes={"background": 0, "cortex": 3}, relabel=relabel)
    plan.save(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())["relabel"] == {"0": "-2, 2000", "3": "5, 1000-1002"}
    assert Plan.load(tmp_path / "plan.json") == plan
    for given, message in (
        ({"3": "1000-"}, r"relabel: got '1000-', expected values and ranges, as in '1000-1035, 11100'"),
        ({"3": "1-4", "0": "4"}, "relabel: got 4 twice, expected each value once"),
    ):
        with pytest.raises(UserError, match=message):
            make_plan(relabel=given)


def test_axes():
    assert make_plan().prepared_axes == (0, 1, 2)
    plan = make_plan(dims=2, slice_axis=1, patch=(8, 8), spacing_mm=(1.0, None, 3.0))
    assert plan.prepared_axes == (1, 0, 2)
    assert plan.patch_spacing_mm == (1.0, 3.0)
    assert make_plan(resize=(256, 256, None), spacing_mm=(None, None, 2.0)).patch_spacing_mm == (1.0, 1.0, 2.0)


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
        ({"spacing_mm": (1, 1, 0)}, "spacing_mm.2: got 0, input should be greater than or equal to 0.000001"),
        ({"memory_gb": 0}, "memory_gb: got 0, input should be greater than 0"),
        ({"memory_gb": 1e9}, "memory_gb: got 1000000000.0, input should be less than or equal to 100000"),
        ({"spacing_mm": (1, 1, 1e300)}, r"spacing_mm.2: got 1e\+300, input should be less than or equal to 1000000"),
        ({"spacing_mm": (10**400, 1, 1)}, r"spacing_mm.0: got 1000000.*, input should be a valid number"),
        ({"patch": (2**31, 8, 8)}, "patch.0: got 2147483648, input should be less than or equal to 1073741824"),
        ({"batch": 2**21}, "batch: got 2097152, input should be less than or equal to 1048576"),
        ({"unlabelled_batch": 10**400}, "unlabelled_batch: got 1000.*, input should be less than or equal to 1048576"),
        ({"overlap": 0.999}, "overlap: got 0.999, input should be less than or equal to 0.9"),
        ({"classes": {"background": 0, "a": 2**40}}, "classes.a: got 1099511627776, input should be less than or"),
        ({"ignore": -(2**31) - 1}, "ignore: got -2147483649, input should be greater than or equal to -2147483648"),
        ({"relabel": {2**31: 1}}, "relabel.2147483648.*: got '2147483648', input should be less than"),
        ({"relabel": {"1": "9-5"}}, "relabel: got '9-5', expected a range that rises"),
        ({"relabel": {"1": "0-2000000000"}}, "relabel: got '0-2000000000', expected a range that rises, by less than"),
        ({"relabel": {"1": "1" * 5000}}, "relabel: got '1111.*, expected values and ranges"),
        ({"network": {**NETWORK, "widths": (8, 2**41)}}, "network.widths.1: got 2199023255552, input should be less"),
        ({"network": {"name": "fcdensenet", "blocks": (10**9, 2)}}, "network.blocks.0: got 1000000000, input should"),
        ({"normalisation": [{"scheme": "window", "deviation": 0}]}, "normalisation.0.deviation: got 0, input should"),
        ({"normalisation": [{"scheme": "window", "high": 1e39}]}, r"normalisation.0.high: got 1e\+39, input should be"),
        ({"crop_box": [[0, 10**400], None, None]}, "crop_box.0.1: got 1000.*, input should be less than or equal to"),
        ({"normalisation": []}, r"normalisation: got \(\), expected 1, one for each channel"),
        ({"classes": {"a": 1, "b": 1}}, "classes: .*expected distinct values"),
        ({"crop_box": [None, [8, 8], None]}, r"crop_box.1: got \(8, 8\), expected a first voxel of at least 0"),
        ({"crop_box": [[-1, 8], None, None]}, r"crop_box.0: got \(-1, 8\), expected a first voxel of at least"),
        ({"crop_box": [[1, 8], None]}, "crop_box"),
        ({"resize": [None, 0, None]}, "resize.1: got 0, input should be greater than or equal to 1"),
        ({"normalisation": [{"eight_bit": True}]}, "normalisation of MRI.eight_bit: got True, expected nothing, as z"),
        ({"normalisation": [{"low": -9}]}, "normalisation of MRI.low: got -9.0, expected nothing, as zscore does not"),
        (
            {"normalisation": [{"scheme": "window", "low": 5, "high": 5}]},
            ".* MRI.high: got 5.0, expected more than low",
        ),
    ],
)
def test_edited_plans_are_checked(tmp_path, changes, message):
    values = {**make_plan().model_dump(mode="json"), **changes}
    (tmp_path / "plan.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=f"plan.json.{message}"):
        Plan.load(tmp_path / "plan.json")


FOUR = {"background": 0, "a": 1, "b": 2, "c": 4}


def test_regions_as_class_indices():
    plan = make_plan(classes=FOUR, regions={"whole": (1, 2, 4), "core": (4, 1)})
    assert plan.region_members == ()
    assert plan.model_copy(update={"train_on": "regions"}).region_members == ((1, 2, 3), (3, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regions": {"all": (1, 3)}}, r"plan.regions.all: got \(1, 3\), expected foreground values of plan.classes"),
        ({"regions": {"all": (0, 1)}}, r"plan.regions.all: got \(0, 1\), expected foreground values"),
        ({"regions": {"all": ()}}, r"plan.regions.all: got \(\), expected foreground values"),
        ({"relabel": {9: 3}}, r"plan.relabel: got \{9: 3\}, expected values of plan.classes to stand for"),
        ({"train_on": "regions"}, "plan.train_on: got 'regions', expected classes, as plan.regions is empty"),
        (
            {"train_on": "regions", "regions": {"whole": (1, 2, 4), "part": (1,)}},
            r"expected classes, or regions that tell 'c' from 'b' \(both in \['whole'\]\)",
        ),
        (
            {"train_on": "regions", "regions": {"one": (1, 2), "two": (2,)}},
            r"expected classes, or regions that tell 'c' from 'background' \(both in none\)",
        ),
    ],
)
def test_relabelling_and_regions_go_with_the_classes(changes, message):
    values = make_plan(classes=FOUR).model_dump(mode="json") | changes
    with pytest.raises(UserError, match=message):
        Plan.checked(values, "plan")


@pytest.mark.parametrize("name", ['a\n9 1 1 1 1 1 1 "x"', "a\tb", "a\x00", "\ud800", "a\x85"])
def test_names_with_control_characters_are_refused(name):
    """They would write lines of their own into labels.txt and labels.ctbl."""
    values = make_plan().model_dump(mode="json")
    for kind, given in (("classes", {"background": 0, name: 1}), ("channels", [name]), ("regions", {name: [1]})):
        with pytest.raises(UserError, match=rf"plan\.{kind}: got .* expected names without control characters"):
            Plan.checked({**values, kind: given}, where="plan")
    Plan.checked({**values, "classes": {"background": 0, "zäh <b>&\u00a0": 1, "b": 2}}, where="plan")
