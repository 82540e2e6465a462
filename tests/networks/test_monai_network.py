import pytest
import torch
from support.toys import batch_of

from semiseg.draws import Draws
from semiseg.errors import MissingExtra, UserError
from semiseg.methods import build_method
from semiseg.networks import network_from
from semiseg.networks.editable import layers_of
from semiseg.networks.network_plan import NetworkPlan

SMALL = {
    "BasicUNet": {"features": [4, 4, 8, 8, 8, 4]},
    "UNet": {"channels": [4, 8], "strides": [2]},
    "SegResNet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "DynUNet": {"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]},
    "AttentionUnet": {"channels": [4, 8], "strides": [2]},
}


def built(name, dims=2, side=16, **options):
    torch.manual_seed(0)
    chosen = NetworkPlan.parse({"name": f"monai:{name}", "options": {**SMALL.get(name, {}), **options}}, "network")
    return network_from(chosen, 1, 3, (side,) * dims)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SMALL)
def test_roam_runs_with_any_network(name, dims):
    network = built(name, dims, side=32)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.randn(2, 1, *[32] * dims))
    assert logits.dtype == torch.float32
    assert logits.shape == (2, 3, *[32] * dims)
    method = build_method("roam", network, {"layers": ["input", "last"], "mix_skips": False, "ramp_end": 0.0})
    method.train()
    for step in range(3):  # draws both layers
        method(batch_of(dims, size=32), Draws(0, step), 0.5).total.backward()
    first = next(p for p in network.parameters() if p.ndim > 1)
    assert first.grad.abs().sum() > 0


def test_building_changes_neither_weights_nor_modes_nor_statistics():
    network = built("SegResNet", norm="batch")
    assert network.training
    assert all(module.training for module in network.modules())
    counts = [int(b) for name, b in network.named_buffers() if "num_batches" in name]
    assert counts
    assert set(counts) == {0}


def test_layers_run_once_and_end_before_the_logits():
    network = built("BasicUNet", side=32)
    layers = layers_of(network, 1, (32, 32))
    assert [layer.name for layer in layers] == network.layers
    assert (layers[0].name, layers[0].short, layers[0].shape) == ("input", "input", (1, 32, 32))
    assert (layers[-1].name, layers[-1].short, layers[-1].shape) == ("network.upcat_1", "last", (4, 32, 32))
    assert not any(layer.name in ("network", "network.final_conv") for layer in layers)
    assert all(layer.skips is None for layer in layers)


@pytest.mark.parametrize(
    ("name", "options", "side", "message"),
    [
        ("SegResnet2", {}, 16, "got 'monai:SegResnet2', expected monai:SegResNet"),
        ("Qqqqq", {}, 16, "expected a class of monai.networks.nets"),
        ("UNet", {"chanels": 3}, 16, "network.options: .*expected arguments .*num_res_units.*MONAI says: .*'chanels'"),
        ("FlexibleUNet", {"backbone": "efficientnet-b0", "pretrained": True}, 32, "expected none, as .* --init"),
        ("HoVerNet", {"pretrained_url": "file:///x"}, 32, "network.options.pretrained_url: got 'file:///x', expected"),
        ("BasicUNet", {}, 40, None),
        ("SegResNet", {"blocks_down": [1, 1, 1], "blocks_up": [1, 1]}, 18, "cannot segment a patch of .18, 18."),
        ("DynUNet", {"strides": [2, 2, 2]}, 16, r"makes \(3, 8, 8\) of a patch of \(16, 16\)"),
        ("BasicUNetPlusPlus", {"features": [4, 4, 8, 8, 8, 4]}, 32, "its output is a list, not one tensor"),
    ],
)
def test_mistakes_are_explained(name, options, side, message):
    if message is None:
        built(name, 2, side, **options)  # pads for itself
        return
    with pytest.raises(UserError, match=message):
        built(name, 2, side, **options)


def test_a_network_that_needs_another_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "einops", None)
    with pytest.raises((MissingExtra, UserError), match="einops"):
        built("UNETR", 2, 16)
