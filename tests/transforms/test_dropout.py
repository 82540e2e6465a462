import pytest
import torch

from semiseg.draws import Draws
from semiseg.transforms.dropout import ChannelDropout


def drop_of(probability=0.5, step=0):
    return ChannelDropout.draw(probability, Draws(0, step).of("dropout"))


@pytest.mark.parametrize("size", [(4, 5), (3, 4, 2)])
def test_whole_channels_are_left_out_and_the_others_keep_the_mean(size):
    h = torch.randn(3, 16, *size)
    dropped = drop_of(0.25)(h)
    kept = dropped.flatten(2).abs().sum(2) > 0
    assert kept.any(1).all()
    assert not kept.all(1).any()
    torch.testing.assert_close(dropped[kept], h[kept] / 0.75)
    assert not torch.equal(kept[0], kept[1])  # every sample loses channels of its own


def test_one_draw_is_the_same_wherever_it_is_called_and_another_is_not():
    h = torch.randn(2, 32, 4, 4)
    drop = drop_of()
    assert torch.equal(drop(h), drop(h))
    assert torch.equal(drop(h)[:, :, 0] != 0, drop(h[:, :, 0]) != 0)
    assert not torch.equal(drop(h), drop_of(step=1)(h))


def test_the_probability_is_that_of_a_channel():
    left = torch.stack([drop_of(0.3, step)(torch.ones(4, 50)) for step in range(20)])
    assert float((left == 0).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(left.mean()) == pytest.approx(1, abs=0.05)


def test_halves_stay_halves_and_gradients_pass_through_what_is_left():
    h = torch.ones(2, 8, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    dropped = drop_of()(h)
    assert dropped.dtype == torch.bfloat16
    dropped.sum().backward()
    assert torch.equal(h.grad, dropped.detach())
