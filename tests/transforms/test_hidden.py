import pytest
import torch

from semiseg.networks.unet import UNet
from semiseg.transforms.hidden import edited


def network_of(dims=2):
    torch.manual_seed(0)
    return UNet(1, 3, dims, widths=(4, 8, 16), strides=[(2,) * dims] * 2)


@pytest.mark.parametrize("dims", [2, 3])
def test_identity_edits_change_nothing_and_leave_no_hook(dims):
    network, x = network_of(dims), torch.randn(2, 1, *[8] * dims)
    plain = network(x)
    for layer in network.layers:
        with edited(network, network.edits_at(layer, lambda h: h)):
            torch.testing.assert_close(network(x), plain, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("dims", [2, 3])
def test_zeroing_a_layer_and_its_skips_leaves_nothing_of_the_input(dims):
    """Every path from the image to the head goes through the layer or a live skip: otherwise a mixed target would be
    compared with a prediction that saw the unmixed image."""
    network = network_of(dims)
    one, other = torch.randn(2, 1, *[8] * dims), torch.randn(2, 1, *[8] * dims)
    for layer in network.layers:
        outputs = []
        for x in (one, other):
            with edited(network, network.edits_at(layer, torch.zeros_like)):
                outputs.append(network(x))
        torch.testing.assert_close(*outputs, rtol=0, atol=0)


def test_editing_the_layer_alone_leaks_through_the_skips():
    network = network_of()
    one, other = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    outputs = []
    for x in (one, other):
        with edited(network, {"encoder.stages.1": torch.zeros_like}):
            outputs.append(network(x))
    assert not torch.allclose(*outputs)


def test_each_edit_is_applied_once_to_each_skip():
    network, calls = network_of(), []

    def note(h):
        calls.append(tuple(h.shape[1:]))
        return h

    expected = {
        "input": [(1, 8, 8)],
        "encoder.stages.0": [(4, 8, 8)],
        "encoder.stages.2": [(16, 2, 2), (4, 8, 8), (8, 4, 4)],
        "decoder.stages.0": [(4, 8, 8), (8, 4, 4)],
        "decoder.stages.1": [(4, 8, 8)],
    }
    for layer, shapes in expected.items():
        calls.clear()
        with edited(network, network.edits_at(layer, note)):
            network(torch.randn(1, 1, 8, 8))
        assert sorted(calls) == sorted(shapes), layer


def test_errors():
    network = network_of()
    with (
        pytest.raises(ValueError, match=r"got 'nowhere', expected one of: input, encoder\.stages\.0"),
        edited(network, {"nowhere": lambda h: h}),
    ):
        pass
    with pytest.raises(ValueError, match="'head' ran 0 times"), edited(network, {"head": lambda h: h}):
        pass
    x = torch.randn(1, 1, 8, 8)
    with pytest.raises(ValueError, match="'head' ran 2 times"), edited(network, {"head": lambda h: h}):
        assert network(x).shape == network(x).shape
    with pytest.raises(ValueError, match="expected one of: input"):
        network.edits_at("encoder.stages.9", lambda h: h)
