"""Label-free scores of one scan, with networks whose answer is known and warps that move whole voxels."""

import math

import numpy as np
import pytest
import torch
from support.pixelwise import Pixelwise, plan_of
from torch import nn

from semiseg.data.structures import structures_of
from semiseg.methods.strong import PUBLISHED_WARP
from semiseg.models.model import LoadedModel
from semiseg.rank.scores import border_entropy, dice, disagreement, score_image, warped_guess
from semiseg.transforms.warp import Warp


class Says(nn.Module):
    """The same picture of one class's place whatever it sees, in the middle of the patch."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x):
        gaps = [window - side for window, side in zip(x.shape[2:], self.mask.shape, strict=True)]
        pads = [side for gap in reversed(gaps) for side in ((gap + 1) // 2, gap // 2)]
        mask = nn.functional.pad(self.mask.float(), pads).expand(len(x), 1, *x.shape[2:])
        return 50 * torch.cat([1 - mask, mask], dim=1)


class Rolled(Pixelwise):
    """Puts what it finds one row too low."""

    def forward(self, x):
        return super().forward(x.roll(1, dims=-2))


def score(network, image, warp, plan, spacing_mm=(1.0, 1.0, 1.0)):
    models = [LoadedModel(one, plan, "model") for one in (network if isinstance(network, list) else [network])]
    return {row["class"]: row for row in score_image(models, np.asarray(image, np.float32), warp, spacing_mm)}


def shifts(size, *columns):
    """A warp for each slice that takes every value from `columns` columns further left."""
    rows, width = size
    r, c = torch.meshgrid(torch.linspace(-1, 1, rows), torch.arange(width).float(), indexing="ij")
    return Warp(torch.stack([torch.stack([r, -1 + 2 * (c - n) / (width - 1)], dim=-1) for n in columns]))


def quarter_turn(side):
    axis = torch.linspace(-1, 1, side)
    r, c = torch.meshgrid(axis, axis, indexing="ij")
    return Warp(torch.stack([c, -r], dim=-1)[None])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_pixelwise_network_is_exactly_equivariant(dims):
    image = np.random.default_rng(0).random((1, 5, 18, 20))
    size = image.shape[-dims:]
    warp = Warp.draw((5 if dims == 2 else 1, 1, *size), PUBLISHED_WARP, (1.0,) * dims, torch.Generator().manual_seed(0))
    assert 0.3 < warp.inside.float().mean() < 0.999
    rows = score(Pixelwise(), image, warp, plan_of(dims))
    assert rows["object"]["equivariance_dice"] == rows["mean"]["equivariance_dice"] == 1


def test_a_network_that_ignores_its_input_is_scored_by_hand():
    """Columns 0 to 2 of 6, whatever it sees. Moved by 2, they are 2 to 4; the voxels from inside are 2 to 5: of the
    network's 3 columns one is left, of the moved ones 3, and one of them in common: 2 / (1 + 3)."""
    mask = torch.zeros(4, 6)
    mask[:, :3] = 1
    rows = score(Says(mask), np.zeros((1, 1, 4, 6)), shifts((4, 6), 2), plan_of(2))
    assert rows["object"]["equivariance_dice"] == 0.5
    # a second slice that stays where it is adds 3 columns to all three: pooled over the volume, no mean of slices
    rows = score(Says(mask), np.zeros((1, 2, 4, 6)), shifts((4, 6), 2, 0), plan_of(2))
    assert rows["object"]["equivariance_dice"] == 2 * (1 + 3) / (4 + 6)


def test_a_quarter_turn_tells_rows_from_columns():
    image = np.zeros((1, 1, 5, 5))
    image[0, 0, 1, 2] = 1
    assert score(Pixelwise(), image, quarter_turn(5), plan_of(2))["object"]["equivariance_dice"] == 1
    assert score(Rolled(), image, quarter_turn(5), plan_of(2))["object"]["equivariance_dice"] == 0
    assert score(Rolled(), image, shifts((5, 5), 1), plan_of(2))["object"]["equivariance_dice"] == 1


def test_what_is_found_nowhere_has_no_score():
    rows = score(Pixelwise(), np.zeros((1, 1, 4, 6)), shifts((4, 6), 1), plan_of(2))
    assert rows["object"]["equivariance_dice"] is None
    assert rows["object"]["border_entropy"] is None
    assert rows["object"]["volume_ml"] == 0
    assert rows["mean"]["equivariance_dice"] is None


def test_regions_unite_classes():
    """Two classes that the network tells apart by place alone, and whose union is where the picture is bright."""

    class Halves(nn.Module):
        def forward(self, x):
            bright = x[:, 0].clamp(1e-6, 1 - 1e-6)
            left = torch.zeros_like(bright)
            left[..., : x.shape[-1] // 2] = 1
            return torch.stack([1 - bright, bright * left, bright * (1 - left)], dim=1).clamp(1e-9).log()

    classes = {"background": 0, "core": 4, "rim": 2}
    regions = {"whole": (2, 4), "core": (4,)}
    image = np.zeros((1, 1, 8, 8))
    image[0, 0, 2:6, 1:7] = 1
    plan = plan_of(2, classes=classes, regions=regions, patch=(8, 8))
    assert [(each.name, each.value, each.kind, each.members(plan)) for each in structures_of(plan)] == [
        ("core", "4", "class", (1,)),
        ("rim", "2", "class", (2,)),
        ("whole", "2+4", "region", (2, 1)),
        ("core", "4", "region", (1,)),
    ]
    listed = score_image(
        [LoadedModel(Halves(), plan, "m")], image.astype(np.float32), shifts((8, 8), 1), (1.0, 1.0, 1.0)
    )
    assert [(row["class"], row["value"], row["kind"]) for row in listed] == [
        ("mean", "", "mean"),
        ("regions_mean", "", "mean"),
        ("core", "4", "class"),
        ("rim", "2", "class"),
        ("whole", "2+4", "region"),
        ("core", "4", "region"),
    ]
    mean, regions_mean, core, rim, whole, again = (row["equivariance_dice"] for row in listed)
    # of 4 rows: core is columns 1-3 and moves to 2-4; where the bright columns 2-7 are seen, core is said in 2-3
    assert core == again == pytest.approx(2 * 2 / (2 + 3))
    assert rim == pytest.approx(2 * 3 / (4 + 3))
    assert whole == 1
    assert mean == pytest.approx((core + rim) / 2)
    assert regions_mean == pytest.approx((1 + core) / 2)


def test_several_models_are_averaged_and_compared():
    class Constant(nn.Module):
        def __init__(self, p):
            super().__init__()
            self.p = p

        def forward(self, x):
            p = torch.full_like(x, self.p)
            return torch.cat([1 - p, p], dim=1).log()

    image, warp, plan = np.ones((1, 3, 4, 6)), shifts((4, 6), 1, 1, 1), plan_of(2)
    rows = score([Constant(0.9), Constant(0.4)], image, warp, plan, spacing_mm=(2.0, 5.0, 10.0))
    assert rows["object"]["volume_ml"] == pytest.approx(3 * 4 * 6 * 0.1)  # 0.65 on average
    assert rows["object"]["disagreement"] == 1
    assert rows["mean"]["volume_ml"] is None
    rows = score([Constant(0.9), Constant(0.6), Constant(0.7)], image, warp, plan)
    assert rows["object"]["disagreement"] == 0
    assert score(Constant(0.9), image, warp, plan)["object"]["disagreement"] is None
    rows = score([Constant(0.9), Constant(0.2), Constant(0.2)], image, warp, plan)
    assert rows["object"]["volume_ml"] == 0  # 0.43
    assert rows["object"]["disagreement"] == 1  # the two that find nothing are no pair


@pytest.mark.parametrize("dims", [2, 3])
def test_classes_warped_one_by_one_are_those_warped_together(dims):
    probability = torch.rand(4, 5, 9, 8, generator=torch.Generator().manual_seed(0)).softmax(0)
    items = probability.transpose(0, 1) if dims == 2 else probability[None]
    generator = torch.Generator().manual_seed(1)
    warp = Warp.draw((len(items), 1, *items.shape[2:]), PUBLISHED_WARP, (1.0,) * dims, generator)
    expected = warp(items).argmax(1)
    assert torch.equal(warped_guess(warp, probability, dims), expected if dims == 2 else expected[0])


# single scores


def test_dice():
    a, b = torch.tensor([True, True, False, False]), torch.tensor([False, True, True, True])
    assert dice(a, b) == 2 * 1 / (2 + 3)
    assert dice(a, torch.zeros(4, dtype=torch.bool)) == 0
    assert dice(torch.zeros(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)) is None


def test_border_entropy_is_that_of_the_border_alone():
    mask = torch.tensor([[[1, 1, 1, 0, 0]]]).bool()
    p = torch.tensor([[[0.5, 0.5, 0.75, 0.5, 0.5]]])
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert border_entropy(p, mask, 3) == pytest.approx(quarter)
    assert border_entropy(torch.ones_like(p), mask, 3) == 0
    assert border_entropy(torch.full_like(p, 1.000001), mask, 3) == 0
    assert border_entropy(p, torch.ones_like(mask), 3) is None  # the picture's edge is no border
    assert border_entropy(p, torch.zeros_like(mask), 3) is None


def test_in_2d_a_border_lies_within_the_slice():
    mask = torch.zeros(2, 3, 3, dtype=torch.bool)
    mask[0] = True
    p = torch.full((2, 3, 3), 0.5)
    assert border_entropy(p, mask, 2) is None
    assert border_entropy(p, mask, 3) == pytest.approx(1)
    mask[0, :, 2] = False
    p[0, :, 1] = 1
    assert border_entropy(p, mask, 2) == 0
    assert border_entropy(p, mask, 3) == pytest.approx(0.5)


def test_disagreement_is_over_pairs():
    masks = [torch.tensor(values).bool() for values in ([1, 1, 0], [0, 1, 1], [0, 0, 0])]
    assert disagreement(masks) == pytest.approx(1 - (0.5 + 0 + 0) / 3)
    assert disagreement([masks[0], masks[0]]) == 0
    assert disagreement([masks[2], masks[2]]) is None
    assert disagreement([masks[0]]) is None
