import math

import pytest
from support.fingerprints import BRAIN, HIPPOCAMPUS, facts, kept_by_training

from semiseg.data.fingerprint import Fingerprint
from semiseg.data.planning import BATCH, plan_from, training_memory_gb
from semiseg.errors import UserError
from semiseg.networks.network_plan import NetworkPlan
from semiseg.networks.unet import UNet

CT = facts((512, 512, 300), (0.8, 0.8, 1.0), channels=("CT",), classes=10, window=True)
THICK = facts((320, 320, 24), (0.7, 0.7, 6.0))


def stride_of(plan):
    return [math.prod(steps) for steps in zip(*plan.network.strides, strict=True)]


@pytest.mark.parametrize("name", ["HIPPOCAMPUS", "BRAIN", "CT", "THICK"])
@pytest.mark.parametrize("dims", ["auto", "2", "3"])
@pytest.mark.parametrize("memory_gb", [2.0, 8.0, 32.0])
def test_every_plan_can_be_trained(name, dims, memory_gb):
    fingerprint = globals()[name]
    plan = plan_from(fingerprint, dims=dims, memory_gb=memory_gb)
    plan.check("plan")  # consistent: divisible by the stride, one width more than strides, ...
    assert dims == "auto" or plan.dims == int(dims)
    used = training_memory_gb(
        plan.patch, plan.batch + plan.unlabelled_batch, plan.network, len(plan.channels), len(plan.classes)
    )
    assert used <= memory_gb
    assert BATCH[plan.dims][0] <= plan.batch <= BATCH[plan.dims][1]
    for side, step in zip(plan.patch, stride_of(plan), strict=True):
        assert side / step >= 8
    assert len(plan.network.widths) <= 6
    assert plan.network.widths[0] == 32
    assert max(plan.network.widths) <= (512 if plan.dims == 2 else 320)


def test_hippocampus_crops():
    plan = plan_from(HIPPOCAMPUS)
    assert (plan.dims, plan.slice_axis, plan.patch) == (3, None, (36, 52, 36))
    assert plan.network.widths == (32, 64, 128)
    assert plan.spacing_mm == (1.0, 1.0, 1.0)
    assert not plan.crop_nonzero
    flat = plan_from(HIPPOCAMPUS, dims="2")
    assert (flat.dims, flat.slice_axis, flat.patch) == (2, 2, (36, 52))
    assert flat.spacing_mm == (1.0, 1.0, None)
    assert flat.batch == flat.unlabelled_batch == 16
    assert flat.reason == (
        "2-D was asked for (auto would take 3-D: voxels are at most 1.0 times as long as wide, and there are "
        "35 slices); slices are taken across the axis inferior to superior"
    )


def test_brain_is_cropped_and_the_patch_is_nearly_a_cube():
    plan = plan_from(BRAIN)
    assert plan.dims == 3
    assert plan.crop_nonzero
    assert all(88 <= side <= 128 for side in plan.patch)
    assert max(plan.patch) - min(plan.patch) <= 16
    larger = plan_from(BRAIN, memory_gb=80)
    assert larger.patch == (144, 176, 144)  # the whole box, rounded up to a multiple of 16
    flat = plan_from(BRAIN, dims="2")
    assert flat.patch == (144, 176)


def test_ct_keeps_its_window_and_is_never_cropped_to_nonzero():
    plan = plan_from(facts((512, 512, 300), (0.8, 0.8, 1.0), ("CT",), zero=0.9, window=True))
    assert plan.normalisation[0].scheme == "window"
    assert not plan.crop_nonzero
    assert plan.dims == 3
    extents = [side * mm for side, mm in zip(plan.patch, plan.patch_spacing_mm, strict=True)]
    assert max(extents) / min(extents) < 1.3
    assert plan_from(CT, dims="2").patch == (512, 512)


def test_thick_slices_are_segmented_one_by_one():
    plan = plan_from(THICK)
    assert (plan.dims, plan.slice_axis) == (2, 2)
    assert plan.reason == (
        "slices are 8.6 times as far apart as voxels within them; slices are taken across the axis inferior to superior"
    )
    assert plan.spacing_mm == (0.7, 0.7, None)
    sagittal = plan_from(facts((20, 256, 256), (5.0, 1.0, 1.0)))
    assert (sagittal.slice_axis, sagittal.prepared_axes) == (0, (0, 1, 2))


def test_thick_slices_in_3d_are_halved_last():
    plan = plan_from(THICK, dims="3")
    assert [steps[2] for steps in plan.network.strides][:2] == [1, 1]
    assert plan.network.strides[0] == (2, 2, 1)


def test_across_thick_slices_in_3d_the_finer_scans_count():
    coarse, fine = (
        facts((320, 320, 24), (0.7, 0.7, 6.0), scans=4),
        facts((320, 320, 48), (0.7, 0.7, 3.0), scans=1),
    )
    mixed = Fingerprint(
        coarse.channels,
        coarse.classes,
        coarse.shapes + fine.shapes,
        coarse.boxes + fine.boxes,
        coarse.spacings_mm + fine.spacings_mm,
        coarse.zero_shares + fine.zero_shares,
        coarse.normalisation,
    )
    assert plan_from(mixed, dims="3").spacing_mm[2] == pytest.approx(4.2)  # 10th percentile of 3, 6, 6, 6, 6


def test_few_slices_are_segmented_one_by_one():
    plan = plan_from(facts((128, 5, 128)))
    assert (plan.dims, plan.slice_axis) == (2, 1)
    assert "there are only 5 slices" in plan.reason


def test_small_memory_gives_smaller_patches():
    sizes = [math.prod(plan_from(CT, memory_gb=gb).patch) for gb in (2, 4, 8, 16)]
    assert sizes == sorted(set(sizes))


def test_impossible_memory():
    with pytest.raises(UserError, match=r"memory_gb: got 0.001, expected at least .* for the smallest patch"):
        plan_from(CT, memory_gb=0.001)


def test_overrides_are_kept_and_the_rest_goes_with_them():
    plan = plan_from(HIPPOCAMPUS, dims="2", overrides={"network": {"widths": [16, 32, 64, 128]}, "batch": 4})
    assert plan.network.widths == (16, 32, 64, 128)
    assert len(plan.network.strides) == 3
    assert plan.patch == (40, 56)
    assert (plan.batch, plan.unlabelled_batch) == (4, 4)
    plan = plan_from(HIPPOCAMPUS, overrides={"patch": [32, 32, 32], "unlabelled_batch": 1})
    assert plan.patch == (32, 32, 32)
    assert plan.unlabelled_batch == 1
    plan = plan_from(CT, overrides={"spacing_mm": [2.0, 2.0, 2.0], "augmentation": {"warp": {}}})
    assert plan.spacing_mm == (2.0, 2.0, 2.0)
    assert plan_from(HIPPOCAMPUS, overrides={"dims": 2, "slice_axis": 0}).patch == (52, 36)
    assert plan_from(BRAIN, overrides={"memory_gb": 2.0}) == plan_from(BRAIN, memory_gb=2.0)
    strides = [[2, 2, 1], [2, 2, 2]]
    plan = plan_from(HIPPOCAMPUS, overrides={"network": {"strides": strides, "norm": "batch"}})
    assert plan.patch == (36, 52, 36)
    assert plan.network.widths == (32, 64, 128)
    assert plan.network.norm == "batch"


def test_patches_go_by_what_is_cropped_and_resized():
    box = [[8, 232], [8, 232], None]
    flat = plan_from(BRAIN, dims="2", memory_gb=80, overrides={"crop_box": box})
    assert flat.patch == (224, 224)
    assert flat.crop_nonzero  # across slices
    whole = plan_from(BRAIN, overrides={"crop_box": box, "memory_gb": 1000.0})
    assert whole.patch == (224, 224, 144)
    assert plan_from(facts((100, 100, 60)), overrides={"crop_box": [None, [70, 232], None]}).patch[1] == 30
    ct = plan_from(CT, dims="2", overrides={"resize": [256, 256, None]})
    assert ct.patch == (256, 256)
    assert ct.spacing_mm == (1.6, 1.6, None)  # what 512 voxels of 0.8 mm become
    oblong = plan_from(CT, dims="2", overrides={"resize": [256, 192, None], "spacing_mm": [3, 3, None]})
    assert oblong.patch == (256, 192)
    slices = plan_from(facts((630, 401, 1), channels=("CT",), window=True), overrides={"resize": [256, 256, None]})
    assert (slices.dims, slices.slice_axis, slices.patch) == (2, 2, (256, 256))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"crop_box": [[9, 3], None, None]}, r"plan.crop_box.0: got \(9, 3\), expected a first voxel"),
        ({"patchs": [8]}, "plan.patchs: unknown setting; did you mean 'patch'"),
        ({"network": {"width": [8]}}, "plan.network.width: unknown setting; did you mean 'widths'"),
        ({"batch": 0}, "plan.batch: got 0"),
        ({"batch": 10**9}, "plan.batch: got 1000000000, input should be less than"),
        (
            {"batch": 1000, "patch": [32, 32, 32]},
            r"plan.memory_gb: got 8 for patch .*, batch 1000 and unlabelled_batch 1000, expected at lea",
        ),
        (
            {"unlabelled_batch": 1000, "patch": [32, 32, 32]},
            "plan.memory_gb: got 8 for patch .* and unlabelled_batch 1000, expected at least",
        ),
        ({"patch": [2048, 2048, 2048]}, r"plan.memory_gb: got 8 for patch \(2048, 2048, 2048\), batch .*; raise it"),
        ({"network": {"widths": [10**12, 2], "strides": [[2, 2, 2]]}}, "memory_gb: got 8, expected at least .*e"),
        ({"network": {"name": "roam-unet"}, "patch": [512, 512, 512]}, "plan.memory_gb: got 8 for patch"),
        ({"spacing_mm": [None, 1e4, None]}, "plan.spacing_mm.1: got 10000, expected at most .* which is how far scans"),
        ({"spacing_mm": "fine"}, "plan.spacing_mm: got 'fine'"),
        ({"patch": [30, 50, 36]}, "plan.patch: .*expected 3 sizes divisible by"),
        ({"patch": [32, 32]}, r"plan.patch: got \(32, 32\), expected 3 sizes"),
        ({"network": {"strides": [[2, 2]]}}, "plan.network.strides: .*expected 3 positive steps"),
        ({"network": {"widths": [8, 16], "strides": []}}, "plan.network.widths: .*expected 1, one more"),
    ],
)
def test_wrong_overrides_are_named(overrides, message):
    with pytest.raises(UserError, match=message):
        plan_from(HIPPOCAMPUS, overrides=overrides)


def test_the_spacing_of_a_microscope_is_not_rounded_away():
    assert plan_from(facts((64, 64, 64), (2e-5, 2e-5, 2e-5)), dims="3").spacing_mm == (2e-5, 2e-5, 2e-5)
    assert plan_from(facts((64, 64, 64), (0.123456, 1.23456, 1.0)), dims="3").spacing_mm == (0.1235, 1.2346, 1.0)


def test_wrong_dims():
    with pytest.raises(UserError, match="dims: got '4', expected auto, 2 or 3"):
        plan_from(HIPPOCAMPUS, dims="4")


@pytest.mark.parametrize(("dims", "widths"), [(2, (8, 16, 32)), (3, (8, 16))])
def test_memory_is_what_the_backward_pass_keeps(dims, widths):
    plan = NetworkPlan(widths=widths, strides=((2,) * dims,) * (len(widths) - 1))
    patch = (32,) * dims
    measured = kept_by_training(UNet(1, 3, dims, plan.widths, plan.strides), patch)
    estimate = 1e9 * training_memory_gb(patch, 2, plan, 1, 3)
    assert measured <= estimate <= 1.4 * measured


def test_a_batch_that_was_asked_for_fits_what_it_says_it_needs():
    """The number in the message is enough, and next to nothing less."""
    asked = {"patch": [32, 32, 32], "batch": 640}
    with pytest.raises(UserError) as told:
        plan_from(HIPPOCAMPUS, overrides=asked)
    needed = float(str(told.value).partition("expected at least ")[2].partition(";")[0])
    assert plan_from(HIPPOCAMPUS, memory_gb=1.01 * needed, overrides=asked).batch == 640
    with pytest.raises(UserError, match="expected at least"):
        plan_from(HIPPOCAMPUS, memory_gb=0.99 * needed, overrides=asked)


def test_unlabelled_patches_for_each_labelled_one_are_counted_in_memory():
    plain = plan_from(BRAIN, dims="2", memory_gb=2)
    more = plan_from(BRAIN, dims="2", memory_gb=2, unlabelled_ratio=3)
    assert more.unlabelled_batch == 3 * more.batch
    assert more.batch < plain.batch or math.prod(more.patch) < math.prod(plain.patch)
    used = training_memory_gb(more.patch, 4 * more.batch, more.network, len(more.channels), len(more.classes))
    assert used <= 2
    fixed = {"batch": 3}
    ratios = (0.1, 0.5, 1, 2.5)
    assert [plan_from(BRAIN, dims="2", unlabelled_ratio=r, overrides=fixed).unlabelled_batch for r in ratios] == [
        1, 2, 3, 8,
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"unlabelled_ratio: got 3 and plan.unlabelled_batch 6, expected one of them"):
        plan_from(BRAIN, unlabelled_ratio=3, overrides={"unlabelled_batch": 6})
