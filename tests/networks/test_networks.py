"""Every network by name: what it is built of, what comes out, and that ROAM can mix inside it."""

import pytest
import torch
from reference import unet as oracle
from support.toys import batch_of

from semiseg.draws import Draws
from semiseg.errors import UserError
from semiseg.methods import build_method
from semiseg.networks import network_from
from semiseg.networks.ensemble import fresh_copy
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
    assert parameters(network) == oracle.parameters((64, 128, 256, 512, 1024), 1, 28) == 31_046_044
    kinds = {type(module).__name__ for module in network.modules()}
    assert {"MaxPool2d", "BatchNorm2d", "ReLU"} <= kinds
    assert not {"LeakyReLU", "InstanceNorm2d"} & kinds


def test_the_first_weights_of_roams_unet_are_xaviers_normal_ones_and_torchs():
    """Xavier: deviation sqrt(2 / (9 inputs + 9 outputs)); torch's: evenly within 1 / sqrt(outputs times pixels)."""
    torch.manual_seed(0)
    network = network_from(NetworkPlan.halving({"name": "roam-unet", "widths": [16, 32, 64]}, 2), 1, 3, (16, 16))
    for again in (network, fresh_copy(network)):
        weight = again.encoder.stages[2][1].weight.detach()  # of 32 features to 64
        assert float(weight.std()) == pytest.approx((2 / (9 * 32 + 9 * 64)) ** 0.5, rel=0.02)
        fourth = float(weight.pow(4).mean() / weight.var() ** 2)
        assert fourth == pytest.approx(3, abs=0.15)  # evenly drawn weights have 1.8
        up = again.decoder.up[0][0].weight.detach()
        end = 1 / (32 * 2 * 2) ** 0.5
        assert 0.99 * end < float(up.abs().max()) <= end
        assert float(up.std()) == pytest.approx(end / 3**0.5, rel=0.02)
    assert not torch.equal(weight, network.encoder.stages[2][1].weight)
    assert not torch.equal(up, network.decoder.up[0][0].weight)


def test_roams_unet_is_the_published_one_pixel_by_pixel():
    torch.manual_seed(0)
    chosen = NetworkPlan.halving({"name": "roam-unet", "widths": [2, 3, 4]}, 2)
    network = network_from(chosen, 1, 3, (8, 8))
    for name, weight in network.named_parameters():  # scales and offsets that do something
        if weight.ndim == 1:
            weight.data = torch.randn(weight.shape) if name.endswith("bias") else 0.5 + torch.rand(weight.shape)
    x = torch.randn(2, 1, 8, 8)
    weights = {name: weight.detach().numpy() for name, weight in network.named_parameters()}
    expected = torch.from_numpy(oracle.logits(weights, x.numpy())).float()
    torch.testing.assert_close(network.train()(x), expected, rtol=1e-4, atol=1e-5)


@STAGED
@BOTH
def test_momentum_and_epsilon_of_batch_norm(name, dims):
    """As Keras has them: a hundredth of each batch goes into the statistics, a thousandth to the variance."""
    network = small(name, dims, norm="batch", momentum=0.01, epsilon=1e-3)
    plain = small(name, dims, norm="batch")
    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert {(m.momentum, m.eps) for m in norms} == {(0.01, 1e-3)}
    inputs = []
    norms[0].register_forward_hook(lambda _m, given, _o: inputs.append((given[0], _o.clone())))
    x = 0.05 * torch.randn(2, 1, *[16] * dims)
    assert not torch.allclose(network.train()(x), plain.train()(x), rtol=1e-2)
    before, after = inputs[0]
    scale, offset = (weight.detach().numpy() for weight in (norms[0].weight, norms[0].bias))
    rows = before.detach().reshape(*before.shape[:2], -1, 1).numpy()
    expected, mean, variance = oracle.batch_norm(rows, scale, offset, 1e-3)
    torch.testing.assert_close(
        after.detach().reshape(rows.shape), torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-5
    )
    for kept, start, batch in ((norms[0].running_mean, 0.0, mean), (norms[0].running_var, 1.0, variance)):
        torch.testing.assert_close(kept, torch.from_numpy(oracle.running(start, batch)).float())


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
        ({"name": "unet", "epsilon": 0.1}, "network.epsilon: got 0.1, expected 1e-05, as instance norm does not have"),
        ({"name": "unet", "momentum": 0.2}, "network.momentum: got 0.2, expected 0.1, as instance norm does not have"),
        (
            {"name": "monai:UNet", "momentum": 0.2},
            "network.momentum: got 0.2, expected nothing, as monai:UNet does not",
        ),
        ({"name": "monai:UNet", "norm": "batch"}, "network.norm: got 'batch', expected nothing, as monai:UNet"),
    ],
)
def test_settings_that_a_network_does_not_have(values, message):
    with pytest.raises(UserError, match=message):
        NetworkPlan.halving(values, 2).check(2, "network")
