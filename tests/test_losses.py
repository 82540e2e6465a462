import pytest
import torch
import torch.nn.functional as F

from semiseg import losses
from semiseg.types import IGNORE


def logits_of(p):
    return p.clamp(min=1e-9).log()


def test_cross_entropy_equals_torch_for_hard_and_soft_targets():
    logits, label = torch.randn(2, 3, 5, 4), torch.randint(0, 3, (2, 5, 4))
    label[0, 0] = IGNORE
    valid = label != IGNORE
    ours = losses.masked_mean(losses.cross_entropy(losses.one_hot(label, 3), logits), valid)
    torch.testing.assert_close(ours, F.cross_entropy(logits, label, ignore_index=IGNORE))
    soft = torch.randn(2, 3, 5, 4).softmax(1)
    torch.testing.assert_close(losses.cross_entropy(soft, logits).mean(), F.cross_entropy(logits, soft))


def test_kl_equals_torch_and_is_zero_for_equal_distributions():
    target, logits = torch.randn(2, 3, 5).softmax(1), torch.randn(2, 3, 5)
    expected = F.kl_div(logits.log_softmax(1), target, reduction="none").sum(1)
    torch.testing.assert_close(losses.kl(target, logits), expected)
    torch.testing.assert_close(losses.kl(target, logits_of(target)), torch.zeros(2, 5), atol=1e-6, rtol=0)
    certain = torch.tensor([[1.0, 0.0]])
    assert torch.isfinite(losses.kl(certain, torch.randn(1, 2))).all()  # 0 log 0 is 0


def test_a_voxel_that_is_not_annotated_counts_as_background():
    expected = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])
    assert torch.equal(losses.one_hot(torch.tensor([[IGNORE, 2]]), 3), expected)


def test_squared_error_by_hand():
    target, p = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.7, 0.3]])
    torch.testing.assert_close(losses.squared_error(target, logits_of(p)), torch.tensor([0.18]))


def test_soft_dice_by_hand_and_for_perfect_soft_targets():
    target = torch.tensor([[[0.0, 0.5, 1.0, 1.0], [1.0, 0.5, 0.0, 0.0]]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    assert float(losses.soft_dice(target, logits_of(target), valid)) == pytest.approx(0, abs=1e-5)
    p = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]])
    # foreground: 2 * (0.5 + 0.25) / (4 * 0.25 + 1 + 0.25)
    assert float(losses.soft_dice(target, logits_of(p), valid)) == pytest.approx(1 - 1.5 / 2.25)
    half = torch.full((1, 2, 1), 0.5)  # a single voxel, whose squares add up to less than one
    assert float(losses.soft_dice(half, half * 0, valid[:, :1])) == pytest.approx(0, abs=1e-5)


def test_soft_dice_does_not_take_the_tails_of_a_guess_for_a_class():
    """Mixed with the guess of another image, a label keeps at least half of its voxel; other classes get crumbs."""
    label = torch.tensor([[[0, 1], [1, 0]]])
    guess = torch.tensor([0.96, 0.03, 0.01])[None, :, None, None].expand(1, 3, 2, 2)
    target = 0.5 * losses.one_hot(label, 3) + 0.5 * guess
    logits = losses.one_hot(label, 3).log().clamp(min=-30)
    valid = torch.ones_like(label, dtype=torch.bool)
    p, t = losses.one_hot(label, 3)[:, 1], target[:, 1]
    alone = float(1 - 2 * (p * t).sum() / (p.square().sum() + t.square().sum()))
    assert float(losses.soft_dice(target, logits, valid)) == pytest.approx(alone, abs=1e-5)


def test_soft_dice_leaves_out_absent_classes_and_ignored_voxels():
    label = torch.tensor([[0, 1, 1, IGNORE]])
    wrong_where_ignored = losses.one_hot(torch.tensor([[0, 1, 1, 2]]), 3) * 40
    target, valid = losses.one_hot(label, 3), label != IGNORE
    assert float(losses.soft_dice(target, wrong_where_ignored, valid)) == pytest.approx(0, abs=1e-5)
    nothing = losses.soft_dice(losses.one_hot(label * 0, 3), wrong_where_ignored.requires_grad_(), valid)
    nothing.backward()
    assert float(nothing.detach()) == 0


def test_a_batch_without_an_annotated_voxel_costs_nothing_and_teaches_nothing():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    loss = losses.supervised(logits, torch.full((2, 4), IGNORE))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_masked_mean_selects():
    x = torch.tensor([1.0, float("nan"), 3.0])
    assert float(losses.masked_mean(x, torch.tensor([True, False, True]))) == 2
    assert float(losses.masked_mean(x, torch.zeros(3, dtype=torch.bool))) == 0


def test_a_mean_over_images_weighs_them_alike_and_selects():
    """By hand: (1 + 2) / 2 of the first, 6 of the second, zero of the third, of which nothing is selected."""
    x = torch.tensor([[1.0, 2.0, float("nan")], [6.0, 100.0, 100.0], [7.0, 7.0, 7.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    mean = losses.mean_over_images(x, mask)
    assert float(mean.detach()) == pytest.approx((1.5 + 6 + 0) / 3)
    mean.backward()
    torch.testing.assert_close(x.grad, torch.tensor([[1 / 6, 1 / 6, 0], [1 / 3, 0, 0], [0, 0, 0]]))
    volume = torch.rand(2, 3, 4, 5)
    whole = torch.ones(volume.shape, dtype=torch.bool)
    torch.testing.assert_close(losses.mean_over_images(volume, whole), volume.mean())


def test_a_weight_means_the_same_for_any_number_of_classes():
    """Sum over classes: splitting the background into more empty classes changes no consistency term."""
    p, q = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.6, 0.4]])
    more = F.pad(p, (0, 5)), F.pad(q, (0, 5))
    for loss in (losses.squared_error, losses.kl):
        torch.testing.assert_close(loss(p, logits_of(q)), loss(more[0], logits_of(more[1])), atol=1e-5, rtol=0)


REGIONS = ((1, 2, 3), (1, 3), (3,))


def slow_regions(target, logits, valid):
    """Voxel by voxel, as the definition says."""
    p, entropy, dice = logits.double().softmax(1), [], []
    for region in REGIONS:
        inside = sum(p[:, index] for index in region)
        true = sum(target[:, index] for index in region).double()
        entropy += [-(true * inside.log() + (1 - true) * (1 - inside).log())[valid].mean()]
        inside, true = inside[valid], true[valid]
        if true.sum() > 0:
            dice += [1 - 2 * (inside * true).sum() / (inside.square().sum() + true.square().sum())]
    return sum(entropy) / len(entropy) + sum(dice) / len(dice)


def test_supervision_by_regions_equals_the_slow_definition():
    logits, label = torch.randn(2, 4, 5, 6), torch.randint(0, 4, (2, 5, 6))
    label[0, :2] = IGNORE
    expected = slow_regions(losses.one_hot(label, 4), logits, label != IGNORE)
    ours = losses.supervised(logits, label, regions=REGIONS)
    torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=1e-5)
    label[label == 3] = 0  # a region that is not there has no Dice
    expected = slow_regions(losses.one_hot(label, 4), logits, label != IGNORE)
    torch.testing.assert_close(losses.supervised(logits, label, regions=REGIONS).double(), expected, atol=1e-5, rtol=0)


def test_one_region_of_all_foreground_is_two_classes():
    target, logits = torch.randn(2, 2, 7).softmax(1), torch.randn(2, 2, 7)
    both = (losses.labelled_entropy(target, logits, ((1,),)), losses.cross_entropy(target, logits))
    torch.testing.assert_close(*both)
    assert torch.equal(losses.labelled_entropy(target, logits), both[1])


def test_regions_stay_finite_for_certain_networks():
    logits = torch.tensor([[200.0, 0.0, -200.0, 0.0]], requires_grad=True)
    loss = losses.labelled_entropy(torch.tensor([[0.0, 0.0, 1.0, 0.0]]), logits, ((2,), (1, 2, 3))).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 2] < 0 < logits.grad[0, 0]
