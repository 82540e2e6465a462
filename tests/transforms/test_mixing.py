import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semiseg.transforms.mixing import Box, Mix, sharpen


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), per_sample=st.booleans(), alpha=st.sampled_from([0.1, 0.75, 1.0, 4.0]))
def test_mixed_distributions_are_distributions_and_rows_keep_their_character(seed, per_sample, alpha):
    target = torch.randn(5, 3, 4, 4, generator=generator(seed)).softmax(1)
    mix = Mix.draw(5, alpha, generator(seed), per_sample)
    mixed = mix(target)
    torch.testing.assert_close(mixed.sum(1), torch.ones(5, 4, 4))
    assert (mix.share >= 0.5).all()
    assert (mix.share <= 1).all()
    assert sorted(mix.partner.tolist()) == list(range(5))
    assert per_sample or len(set(mix.share.tolist())) == 1


def test_mix_is_the_formula_on_any_shape():
    mix = Mix(torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    x = torch.tensor([[4.0, 8.0], [0.0, 2.0]])
    assert mix(x).tolist() == [[3.0, 6.5], [2.0, 5.0]]
    valid = torch.tensor([[True, False], [True, True]])
    assert mix.mask(valid).tolist() == [[True, False], [True, False]]


def test_spared_rows_stay_as_they_are_and_others_are_mixed_with_them():
    mix = Mix(torch.tensor([2, 0, 1]), torch.tensor([0.7, 0.7, 0.6])).sparing(1)
    x = torch.tensor([[1.0, 0.3], [3.0, 0.0], [5.0, 0.1]])
    mixed = mix(x)
    assert torch.equal(mixed[0], x[0])
    torch.testing.assert_close(mixed[1:], torch.stack([0.7 * x[1] + 0.3 * x[0], 0.6 * x[2] + 0.4 * x[1]]))
    valid = torch.tensor([[True, True], [False, True], [False, False]])
    assert mix.mask(valid).tolist() == [[True, True], [False, True], [False, False]]


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("per_sample", [False, True])
def test_features_in_16_bits_are_mixed_with_the_share_of_the_targets(precision, per_sample):
    """The share that the features show is that of the targets, to the rounding of the features themselves."""
    mix = Mix(torch.tensor([1, 0]), torch.tensor([0.7119, 0.8353] if per_sample else [0.7119, 0.7119]))
    assert all(abs(float(share.bfloat16()) - float(share)) > 5e-4 for share in mix.share)
    x = torch.randn(2, 64, 9, 8, generator=generator())
    x = x.to(precision).to(memory_format=torch.channels_last)
    mixed = mix(x)
    assert mixed.dtype == precision
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    by_hand = [mix.share[k] * x[k].double() + (1 - mix.share[k].double()) * x[1 - k].double() for k in (0, 1)]
    assert torch.equal(mixed, mix(x.float()).to(precision))  # nothing is rounded but the result
    torch.testing.assert_close(mixed.double(), torch.stack(by_hand), rtol=0.004, atol=1e-3)
    target = torch.eye(2).reshape(2, 2, 1, 1)  # its first class shows the share itself
    shown = ((mixed - x[[1, 0]]).double() * (x - x[[1, 0]]).double()).sum((1, 2, 3)) / (
        (x - x[[1, 0]]).double().square().sum((1, 2, 3))
    )
    torch.testing.assert_close(shown.float(), mix(target)[[0, 1], [0, 1], 0, 0], rtol=0, atol=1e-4)


def test_the_gradient_of_mixed_rows_is_mixed_back_and_keeps_its_layout():
    """By hand: its own share of its mixture's gradient, and the rest of the one that it is the partner of."""
    mix = Mix(torch.tensor([2, 0, 1]), torch.tensor([0.6, 0.7, 0.9]))
    x = torch.randn(3, 2, 5, 4, generator=generator()).to(memory_format=torch.channels_last).requires_grad_()
    above = torch.randn(3, 2, 5, 4, generator=generator(1))
    (gradient,) = torch.autograd.grad(mix(x), x, above.to(memory_format=torch.channels_last))
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    expected = torch.stack(
        [0.6 * above[0] + 0.3 * above[1], 0.7 * above[1] + 0.1 * above[2], 0.9 * above[2] + 0.4 * above[0]]
    )
    torch.testing.assert_close(gradient, expected)


def test_shares_follow_beta():
    """max(l, 1 - l) with l ~ Beta(1, 1) is even on [0.5, 1]."""
    shares = torch.stack([Mix.draw(2, 1.0, generator(seed)).share[0] for seed in range(400)])
    assert float(shares.mean()) == pytest.approx(0.75, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / 48, rel=0.25)


@pytest.mark.parametrize("size", [(20, 24), (12, 16, 10)])
def test_box_takes_the_same_box_of_everything(size):
    box = Box.draw((6, 1, *size), (0.2, 0.4), 1.0, generator())
    x = torch.arange(6.0).reshape(6, 1, *[1] * len(size)).expand(6, 1, *size)
    pasted = box(x)
    for k in range(6):
        inside, outside = pasted[k, 0][box.where[k]], pasted[k, 0][~box.where[k]]
        assert (inside == float(box.partner[k])).all()
        assert (outside == k).all()
        assert 0.15 < float(box.where[k].float().mean()) < 0.45
    valid = x[:, 0] == 2
    assert torch.equal(box.mask(valid), pasted[:, 0] == 2)


def test_box_on_a_hidden_layer_is_the_box_at_its_resolution():
    box = Box.draw((4, 1, 16, 16), (0.2, 0.4), 1.0, generator(1))
    coarse = box(torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 2, 8, 8))
    fine = box(torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 2, 16, 16))
    assert coarse.shape == (4, 2, 8, 8)
    moved = box.partner != torch.arange(4)
    assert float((coarse != torch.arange(4.0).reshape(4, 1, 1, 1))[moved].float().mean()) == pytest.approx(
        float((fine != torch.arange(4.0).reshape(4, 1, 1, 1))[moved].float().mean()), abs=0.1
    )


@pytest.mark.parametrize("size", [(20, 24), (12, 16, 10)])
def test_a_box_of_the_partners_that_it_is_told_for_images_and_labels(size):
    partner = torch.tensor([2, 2, 0])
    box = Box.draw((3, 1, *size), (0.3, 0.3), 1.0, generator(), partner)
    assert box.partner is partner
    assert torch.equal(box.where, Box.draw((3, 1, *size), (0.3, 0.3), 1.0, generator()).where)
    label = torch.arange(3).reshape(3, *[1] * len(size)).expand(3, *size)
    pasted = box.labels(label)
    assert pasted.dtype == label.dtype
    for row, other in enumerate(partner.tolist()):
        assert (pasted[row][box.where[row]] == other).all()
        assert (pasted[row][~box.where[row]] == row).all()
    assert torch.equal(pasted, box(label[:, None].float())[:, 0].long())
    ignored = torch.where(label == 2, -100, label)
    assert torch.equal(box.labels(ignored) == -100, pasted == 2)


def test_box_probability():
    boxes = Box.draw((400, 1, 8, 8), (0.1, 0.4), 0.25, generator()).where.flatten(1).any(1)
    assert 0.18 < float(boxes.float().mean()) < 0.32


def test_sharpen():
    p = torch.tensor([[0.8, 0.2]])
    assert sharpen(p, 1.0) is p
    torch.testing.assert_close(sharpen(p, 0.5), torch.tensor([[0.64, 0.04]]) / 0.68)
    assert torch.isfinite(sharpen(torch.tensor([[1.0, 0.0]]), 0.01)).all()


def test_boxes_lie_anywhere_from_the_first_voxel_to_the_last():
    box = Box.draw((400, 1, 6, 5), (0.2, 0.3), 1.0, torch.Generator().manual_seed(0))
    assert box.where.any(0).all()  # every voxel is in one of them
    assert not box.where.all(dim=(1, 2)).any()


def test_draws_are_compared_by_identity():
    """By value, tensors would be asked for the truth of many elements."""
    mixes = [Mix.draw(3, 0.5, torch.Generator().manual_seed(0)) for _ in range(2)]
    assert mixes[0] == mixes[0]
    assert mixes[0] != mixes[1]
    assert len({*mixes}) == 2
