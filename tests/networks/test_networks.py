"""Every network by name: what it is built of, what comes out, and that ROAM can mix inside it."""

from itertools import pairwise

import pytest
import torch
from support.toys import batch_of

from semiseg.draws import Draws
from semiseg.errors import UserError
from semiseg.methods import build_method
from semiseg.networks import network_from
from semiseg.networks.fcdensenet import FCDenseNet
from semiseg.networks.network_plan import NetworkPlan
from semiseg.transforms.hidden import edited

SMALL = {
    "unet": {"widths": [4, 8, 16]},
    "roam-unet": {"widths": [4, 8, 16]},
    "fcdensenet": {"blocks": [2, 2, 3], "growth": 4, "first": 8},
}
STAGED = pytest.mark.parametrize("name", SMALL)
BOTH = pytest.mark.parametrize("dims", [2, 3])


def small(name, dims, **more):
    torch.manual_seed(0)
    chosen = NetworkPlan.halving({"name": name, **SMALL[name], **more}, dims)
    return network_from(chosen, 1, 3, (16,) * dims)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_old_plans_mean_the_same():
    saved = {"name": "unet", "widths": [32, 64], "strides": [[2, 2]], "norm": "instance"}
    assert NetworkPlan.parse(saved, "network").strides == ((2, 2),)
    assert NetworkPlan().widths == (32, 64, 128, 256)
    assert NetworkPlan().norm == "instance"


@STAGED
def test_a_saved_plan_is_read_back(name):
    chosen = NetworkPlan.halving({"name": name}, 3)
    chosen.check(3, "network")
    assert NetworkPlan.parse(chosen.model_dump(mode="json"), "network") == chosen


def test_the_published_unet_of_roam():
    chosen = NetworkPlan.halving({"name": "roam-unet"}, 2)
    assert chosen.stride(2) == (16, 16)
    network = network_from(chosen, 1, 28, (256, 256))
    widths = [1, 64, 128, 256, 512, 1024]
    pairs = list(pairwise(widths))
    expected = sum(9 * (i * o + o * o) + 4 * o for i, o in pairs)  # two convolutions, two batch norms
    up = pairs[1:]
    expected += sum(4 * o * i + 9 * (2 * i * i + i * i) + 4 * i for i, o in up)  # and a transposed one
    expected += 64 * 28 + 28
    assert parameters(network) == expected
    kinds = {type(module).__name__ for module in network.modules()}
    assert {"MaxPool2d", "BatchNorm2d", "ReLU"} <= kinds
    assert not {"LeakyReLU", "InstanceNorm2d"} & kinds
    weight = network.encoder.stages[2][1].weight  # Xavier: evenly within sqrt(6 / (9 * inputs + 9 * outputs))
    assert float(weight.detach().abs().max()) == pytest.approx((6 / (9 * 128 + 9 * 256)) ** 0.5, rel=1e-3)


def test_fcdensenet103_has_the_size_and_the_features_that_are_published():
    network = network_from(NetworkPlan(name="fcdensenet"), 4, 4, (224, 224))
    assert 9.3e6 < parameters(network) < 9.4e6
    outputs = []
    hooks = [m.register_forward_hook(lambda _m, _i, o: outputs.append(o.shape[1])) for m in network.encoder.stages]
    hooks += [m.register_forward_hook(lambda _m, _i, o: outputs.append(o.shape[1])) for m in network.decoder.stages]
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 4, 32, 32))
    # their table 2: m = 112, 192, 304, 464, 656 down; new features alone on the way up, m = 256 before the head
    assert outputs == [112, 192, 304, 464, 656, 240, 192, 160, 112, 80, 256]


def test_a_dense_layer_sees_everything_before_it():
    network = FCDenseNet(1, 2, 2, blocks=(3, 1), growth=2, first=4)
    block = network.encoder.stages[0][1]
    assert [layer[2].in_channels for layer in block.layers] == [4, 6, 8]
    x = torch.randn(1, 4, 4, 4)
    block.eval()
    first = block.layers[0](x)
    second = block.layers[1](torch.cat([x, first], 1))
    third = block.layers[2](torch.cat([x, first, second], 1))
    torch.testing.assert_close(block(x), torch.cat([x, first, second, third], 1))


def test_dropout_is_off_unless_asked_for():
    assert not any(isinstance(m, torch.nn.Dropout) for m in small("fcdensenet", 2).modules())
    drops = [m.p for m in small("fcdensenet", 2, dropout=0.2).modules() if isinstance(m, torch.nn.Dropout)]
    assert drops == [0.2] * (2 + 2 + 3 + 2 + 2 + 2)  # every dense layer, and the two transitions down


@STAGED
@BOTH
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_shape_precision_and_layout(name, dims, norm):
    network = small(name, dims, norm=norm).to(
        memory_format=torch.channels_last if dims == 2 else torch.channels_last_3d
    )
    x = torch.randn(2, 1, *[16] * dims)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    assert logits.shape == (2, 3, *[16] * dims)
    assert logits.dtype == torch.float32
    with pytest.raises(ValueError, match="must be divisible"):
        network(torch.zeros(1, 1, *[18] * dims))


@STAGED
@BOTH
def test_every_weight_learns(name, dims):
    network = small(name, dims)
    network(torch.randn(2, 1, *[16] * dims)).square().sum().backward()
    silent = [key for key, p in network.named_parameters() if p.ndim > 1 and not p.grad.abs().sum() > 0]
    assert silent == []


@STAGED
@BOTH
def test_zeroing_a_layer_and_its_skips_leaves_nothing_of_the_image(name, dims):
    network = small(name, dims).eval()
    one, other = torch.randn(2, 1, 1, *[16] * dims)
    for layer in network.layers:
        outputs = []
        for x in (one, other):
            with edited(network, network.edits_at(layer, torch.zeros_like)):
                outputs.append(network(x))
        torch.testing.assert_close(*outputs, rtol=0, atol=0)


@STAGED
@BOTH
@pytest.mark.parametrize("layer", ["input", "1", "2", "3", "last"])
def test_roam_mixes_at_every_layer_and_skip(name, dims, layer):
    method = build_method("roam", small(name, dims), {"layers": [layer], "ramp_end": 0.0})
    method.train()
    terms = method(batch_of(dims), Draws(0, 0), 0.5).terms
    for term in terms.values():
        (gradient,) = torch.autograd.grad(term, [method.network.head.weight], retain_graph=True)
        assert gradient.abs().sum() > 0
    sum(terms.values()).backward()
    first = next(p for p in method.network.parameters() if p.ndim > 1)
    assert first.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "vnet"}, "network.name: got 'vnet', expected unet, roam-unet, fcdensenet, monai:CLASS"),
        ({"name": "fcdensenet", "widths": [4]}, r"network.widths: got \(4,\), expected nothing, as fcdensenet"),
        ({"name": "unet", "growth": 4}, "network.growth: got 4, expected nothing, as unet"),
        ({"name": "fcdensenet", "blocks": [4]}, r"network.blocks: got \(4,\), expected at least two positive"),
        ({"name": "fcdensenet", "growth": 0}, "network.growth: got 0, expected over 0"),
        ({"name": "monai:UNet", "norm": "batch"}, "network.norm: got 'batch', expected nothing, as monai:UNet"),
    ],
)
def test_settings_that_a_network_does_not_have(values, message):
    with pytest.raises(UserError, match=message):
        NetworkPlan.halving(values, 2).check(2, "network")
