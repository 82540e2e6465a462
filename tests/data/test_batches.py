from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from semiseg.data.batches import Batches, load, numbers
from semiseg.data.plan import Normalisation, Plan
from semiseg.data.prepare import PreparedCase
from semiseg.networks.network_plan import NetworkPlan
from semiseg.types import IGNORE


def plan_of(dims=2, **more) -> Plan:
    patch = {2: (8, 8), 3: (6, 8, 8)}[dims]
    values = {
        "dims": dims,
        "channels": ("MRI",),
        "classes": {"background": 0, "a": 1, "b": 2},
        "slice_axis": 2 if dims == 2 else None,
        "spacing_mm": (1.0, 2.0, 3.0),
        "normalisation": (Normalisation(),),
        "patch": patch,
        "batch": 2,
        "unlabelled_batch": 3,
        "network": NetworkPlan(widths=(4,), strides=()),
    }
    return Plan(**{**values, **more})


def case_of(folder: Path, name: str, value: float, shape=(5, 10, 7), label=True) -> PreparedCase:
    """An image of one value; its label is 1 in one corner voxel and 2 in the opposite one."""
    folder.mkdir(exist_ok=True)
    image, mask = folder / f"{name}.npy", folder / f"{name}-label.npy"
    foreground = folder / f"{name}-foreground.npy"
    np.save(image, np.full((1, *shape), value, np.float16))
    if label:
        array = np.zeros(shape, np.uint8)
        array[0, 0, 0], array[-1, -1, -1] = 1, 2
        np.save(mask, array)
        np.save(foreground, np.array([[1, 0, 0, 0], [2, *(n - 1 for n in shape)]], np.int32))
    return PreparedCase(name, image, mask if label else None, foreground if label else None, (1.0, 1.0, 1.0), shape)


@pytest.fixture
def cases(tmp_path):
    labelled = [case_of(tmp_path, f"l{k}", k + 1) for k in range(3)]
    unlabelled = [case_of(tmp_path, f"u{k}", -k - 1, label=False) for k in range(4)]
    return labelled, unlabelled


@pytest.mark.parametrize("dims", [2, 3])
def test_a_batch_is_a_function_of_its_number(cases, dims):
    plan = plan_of(dims)
    one, other = Batches(*cases, plan, seed=0), Batches(*cases, plan, seed=0)
    for number in (7, 0, 3):
        a, b = one[number], other[number]
        for name in ("image", "label", "unlabelled", "inside"):
            assert torch.equal(getattr(a, name), getattr(b, name))
    positions = [list(one.positions(n, "labelled")) for n in range(20)]
    assert positions != [list(Batches(*cases, plan, seed=1).positions(n, "labelled")) for n in range(20)]


def test_shapes_padding_and_streams(cases):
    batch = Batches(*cases, plan_of(), seed=0)[0]
    assert batch.image.shape == (2, 1, 8, 8)
    assert batch.unlabelled.shape == (3, 1, 8, 8)
    assert (batch.image[:, 0] >= 0).all()  # labelled values are positive, unlabelled ones negative
    assert (batch.unlabelled[:, 0] <= 0).all()
    assert batch.spacing_mm == (1.0, 2.0)
    # the scans are 7 wide, the patch 8: one column is padding
    assert ((batch.label == IGNORE).sum((1, 2)) == 8).all()
    assert (batch.label[..., 0] == IGNORE).all()
    assert not batch.inside[..., 0].any()
    assert (~batch.inside).float().mean() == pytest.approx(1 / 8)


@pytest.mark.parametrize("dims", [2, 3])
def test_padding_is_the_median_of_the_outermost_voxels(tmp_path, dims):
    case = case_of(tmp_path, "noise", 1.0, shape=(5, 8, 7))
    values = np.random.default_rng(0).normal(size=(1, 5, 8, 7)).astype(np.float16)
    np.save(case.image, values)
    patch = (12, 10) if dims == 2 else (9, 12, 10)
    picture = Batches([case], [], plan_of(dims, patch=patch, batch=1), seed=0)[0].image[0, 0]
    outside = torch.ones(patch, dtype=torch.bool)
    outside[(..., slice(2, 10), slice(2, 9)) if dims == 2 else (slice(2, 7), slice(2, 10), slice(2, 9))] = False
    part = picture[~outside].reshape((8, 7) if dims == 2 else (5, 8, 7)).numpy()
    assert any(np.array_equal(part, one) for one in (values[0] if dims == 2 else values))
    ranked = np.sort(np.concatenate([np.take(part, end, axis).ravel() for axis in range(dims) for end in (0, -1)]))
    assert picture[outside].unique().tolist() == [ranked[(len(ranked) - 1) // 2]]


def test_every_case_comes_once_before_any_comes_again(cases):
    batches = Batches(*cases, plan_of(), seed=0)
    names = [name for n in range(6) for name in batches.names(n)]
    assert Counter(name for name in names if name[0] == "l") == {f"l{k}": 4 for k in range(3)}
    unlabelled = [name for name in names if name[0] == "u"]
    assert set(unlabelled[:4]) == set(unlabelled[4:8]) == {f"u{k}" for k in range(4)}
    assert unlabelled[:4] != unlabelled[4:8] or unlabelled[8:12] != unlabelled[:4]


def test_a_share_of_labelled_patches_holds_foreground(cases):
    never, always = (
        [
            bool((batch.label > 0).any(dim=(1, 2)).all())
            for batch in (Batches(*cases, plan_of(foreground_share=share), seed=0)[n] for n in range(30))
        ]
        for share in (0.0, 1.0)
    )
    assert all(always)
    assert sum(never) < 15
    labels = torch.stack([Batches(*cases, plan_of(foreground_share=1.0), seed=0)[n].label for n in range(30)])
    assert 10 < int((labels == 1).sum()) < 50  # both classes are centred on
    assert 10 < int((labels == 2).sum()) < 50


def test_small_scans_lie_in_the_middle_of_the_padding_as_in_prediction(tmp_path):
    small = case_of(tmp_path, "small", 1.0, shape=(4, 3, 5))
    ((case, first), *_) = Batches([small], [], plan_of(3), seed=0).positions(0, "labelled")
    assert (case.name, first) == ("small", (-1, -3, -2))  # of 2, 5 and 3 voxels of padding the larger half


def test_patches_of_foreground_have_its_voxel_in_the_middle(tmp_path):
    case = case_of(tmp_path, "large", 1.0, shape=(20, 30, 40))
    np.save(case.foreground, np.array([[1, 9, 20, 15]], np.int32))
    batches = Batches([case], [], plan_of(3, foreground_share=1.0), seed=0)
    assert [first for _, first in batches.positions(0, "labelled")] == [(9 - 3, 20 - 4, 15 - 4)] * 2


def test_without_unlabelled_scans_the_stream_is_empty(cases):
    batch = Batches(cases[0], [], plan_of(), seed=0)[0]
    assert batch.unlabelled.shape == (0, 1, 8, 8)
    assert batch.inside.shape == (0, 8, 8)
    assert batch.inside.dtype == torch.bool


def test_zeros_are_no_part_of_the_picture_where_the_plan_says_so(tmp_path):
    """Of unlabelled scans; labels are trained there all the same."""
    case = case_of(tmp_path, "masked", 1.0, shape=(5, 10, 7))
    image = np.load(case.image)
    image[:, :, 3:6, 2:4] = 0
    np.save(case.image, image)
    for masked in (False, True):
        batch = Batches([case], [case], plan_of(mask_zeros=masked), seed=0)[0]
        padding = batch.inside.sum() == 3 * 8 * 7
        assert padding != masked
        if masked:
            assert (batch.inside[..., 1:] == (batch.unlabelled[:, 0, :, 1:] != 0)).all()
        assert ((batch.label != IGNORE).sum(dim=(1, 2)) == 8 * 7).all()


def test_a_voxel_that_is_zero_in_one_channel_is_inside(tmp_path):
    case = case_of(tmp_path, "two", 1.0, shape=(5, 8, 8))
    np.save(case.image, np.stack([np.zeros((5, 8, 8)), np.eye(8)[None].repeat(5, 0)]).astype(np.float16))
    plan = plan_of(mask_zeros=True, channels=("a", "b"), normalisation=(Normalisation(), Normalisation()))
    batch = Batches([case], [case], plan, seed=0)[0]
    assert (batch.inside == torch.eye(8, dtype=torch.bool)).all()


def test_numbers_share_the_slots_out():
    assert numbers(0, 2, 0, 1, 2) == [0, 1, 2, 3]
    assert numbers(0, 2, 0, 2, 1) == [0, 2]
    assert numbers(1, 3, 1, 2, 2) == [6, 7, 10, 11]


@pytest.mark.slow
def test_worker_processes_load_the_same_batches(cases):
    batches = Batches(*cases, plan_of(), seed=0)
    for alone, shared in zip(load(batches, [4, 5, 6], 0), load(batches, [4, 5, 6], 2), strict=True):
        assert torch.equal(alone.image, shared.image)
        assert torch.equal(alone.unlabelled, shared.unlabelled)
