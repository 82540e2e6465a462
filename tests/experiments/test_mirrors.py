"""Who is warned of mirrors, and who is not."""

import pytest
from support.plans import make_plan
from support.runs import settings_of

from semiseg.experiments.experiment import plan_dataset, train_run
from semiseg.experiments.mirrors import mirrored_sides
from semiseg.methods import METHODS

SIDED = {"background": 0, "left hippocampus": 17, "right hippocampus": 53}
PUBLISHED = METHODS["equireg"].Config(preset="2020")


def plan_of(classes=SIDED, flip=(), slice_axis=2, dims=2, probability=1.0):
    warp = {"flip": flip, "probability": probability}
    space = {"dims": dims, "slice_axis": slice_axis if dims == 2 else None, "patch": (8,) * dims}
    return make_plan(classes=classes, augmentation={"warp": warp}, **space)


@pytest.mark.parametrize(("dims", "slice_axis", "axis"), [(2, 2, 0), (2, 1, 0), (3, None, 0), (2, 0, None)])
def test_the_mirror_from_left_to_right_is_the_one_that_matters(dims, slice_axis, axis):
    """In sagittal slices there is none; front to back and up and down swap no sides."""
    supervised = METHODS["supervised"].Config()
    plans = [plan_of(flip=(flip,), dims=dims, slice_axis=slice_axis) for flip in range(dims)]
    found = [flip for flip, plan in enumerate(plans) if [*mirrored_sides(plan, supervised)]]
    assert found == ([] if axis is None else [axis])


@pytest.mark.parametrize(
    ("classes", "pair"),
    [
        (SIDED, "left hippocampus and right hippocampus"),
        ({"background": 0, "lung_R": 1, "lung_L": 2, "heart": 3}, "lung_L and lung_R"),
        ({"0": 0, "10": 10, "49": 49, "16": 16}, "left thalamus and right thalamus"),  # FreeSurfer's numbers
        ({"background": 0, "left lung": 1, "right lung": 2, "left kidney": 3, "right kidney": 4}, "and 1 more pair"),
        ({"background": 0, "left thalamus": 10, "right caudate": 50}, None),
        ({"0": 0, "10": 10, "11": 11, "17": 17}, None),
        ({"background": 0, "tumour": 10, "oedema": 49}, None),  # numbers that happen to be FreeSurfer's
    ],
)
def test_sides_by_name_and_by_freesurfers_table(classes, pair):
    warnings = [*mirrored_sides(plan_of(classes), PUBLISHED)]
    if pair is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert pair in warning
        assert warning.startswith("warning: method.warp.flip: 0 mirrors from left to right")
        assert warning.endswith("are not swapped; leave 0 out of it")


@pytest.mark.parametrize(
    ("plan", "method", "settings", "keys"),
    [
        (plan_of(flip=(0, 1)), "equireg", {"preset": "2020"}, ["plan.augmentation.warp", "method.warp"]),
        (plan_of(flip=(0, 1)), "equireg", {"preset": "2020", "augment": False}, ["method.warp"]),
        (plan_of(flip=(0,), probability=0.0), "supervised", {}, []),
        (plan_of(), "equireg", {}, []),
        (plan_of(), "equireg", {"preset": "2020", "unlabelled": False}, []),
        (plan_of(), "equireg", {"preset": "2020", "unlabelled": False, "on_labelled": True}, ["method.warp"]),
        (plan_of(), "equireg", {"warp": {"flip": (0,), "probability": 0.0}}, []),
        (plan_of(), "roam", {"warp": {"flip": (0,)}}, ["method.warp"]),
    ],
)  # fmt: skip
def test_only_warps_that_are_drawn_are_warned_of(plan, method, settings, keys):
    found = [line.split(": ")[1] for line in mirrored_sides(plan, METHODS[method].Config.parse(settings, "method"))]
    assert found == [f"{key}.flip" for key in keys]


def test_plan_and_train_say_it(plain_cohort, tmp_path, capsys):
    plan = {"augmentation": {"warp": {"flip": [0]}}}
    labels = {"background": 0, "left": 1, "right": 2}
    data = plain_cohort(labelled=2)
    (tmp_path / "table.yaml").write_text("\n".join(f"{name} lung: {value}" for name, value in labels.items()))
    settings = settings_of(data, "supervised", steps=1, plan=plan, data={"classes": str(tmp_path / "table.yaml")})
    plan_dataset(settings, workers=1)
    told = capsys.readouterr()
    train_run(settings, tmp_path / "run", device="cpu", workers=1)
    for out in (told, capsys.readouterr()):
        assert "warning: plan.augmentation.warp.flip: 0 mirrors from left to right" in out.err + out.out
