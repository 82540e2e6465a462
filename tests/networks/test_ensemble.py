"""Networks that predict together: their mean, their names, their weights, and the way into a model folder and back."""

import json

import pytest
import torch
from support.plans import make_plan

from semiseg.errors import InputError
from semiseg.methods import build_method
from semiseg.models.model import build_network, load_model, save_model, start_from
from semiseg.networks import network_from
from semiseg.networks.ensemble import Ensemble, fresh_copy, members
from semiseg.networks.network_plan import NetworkPlan

SMALL = {
    "unet": {"widths": [8, 16, 32]},
    "roam-unet": {"widths": [8, 16, 32]},
    "fcdensenet": {"blocks": [2, 2, 3], "growth": 8, "first": 16},
}


def small(name, dims=2):
    chosen = NetworkPlan.halving({"name": name, **SMALL[name]}, dims)
    return network_from(chosen, 1, 3, (16,) * dims)


@pytest.mark.parametrize("size", [(16, 16), (16, 16, 16)])
@pytest.mark.parametrize("count", [1, 3])
def test_its_logits_are_the_logarithm_of_the_mean_probability(size, count):
    torch.manual_seed(0)
    ensemble = Ensemble(small("unet", len(size)) for _ in range(count))
    image = torch.randn(2, 1, *size)
    logits = ensemble(image)
    mean = torch.stack([network(image).softmax(1) for network in ensemble.networks]).mean(0)
    torch.testing.assert_close(logits.exp(), mean)
    torch.testing.assert_close(logits.softmax(1), mean)
    assert logits.dtype == torch.float32


def test_members_are_counted_in_order():
    single = small("unet").state_dict()
    assert members(single) == []
    assert members({}) == []
    twelve = Ensemble(torch.nn.Conv2d(1, 1, 1) for _ in range(12))
    assert members(twelve.state_dict()) == [f"networks.{number}" for number in range(12)]  # 10 after 9, not after 1


@pytest.mark.parametrize("name", SMALL)
def test_a_fresh_copy_has_other_weights_of_the_same_kind(name):
    """Neither those of the network nor torch's own start, where the network draws its weights in another way."""
    torch.manual_seed(0)
    network, alike = small(name), small(name)
    trained = {key: torch.full_like(value, 7) for key, value in network.state_dict().items()}
    network.load_state_dict(trained)
    fresh = fresh_copy(network)
    assert all((value == 7).all() for value in network.state_dict().values())
    assert fresh.state_dict().keys() == alike.state_dict().keys()
    for key, value in alike.state_dict().items():
        found = fresh.state_dict()[key]
        if len(value.unique()) == 1:  # normalisation, and biases that start at zero
            torch.testing.assert_close(found, value, msg=key)
            continue
        assert not torch.equal(found, value)
        assert (found != 7).all(), key
        if value.numel() > 200:
            deviation = float(value.std())
            assert float(found.std()) == pytest.approx(deviation, rel=0.2), key
            assert float(found.mean()) == pytest.approx(0, abs=0.2 * deviation), key
            assert float(found.abs().max()) == pytest.approx(float(value.abs().max()), rel=0.5), key


def test_a_fresh_copy_follows_the_global_generator():
    network = small("unet")
    copies = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        copies.append(fresh_copy(network).head.weight)
    assert torch.equal(copies[0], copies[1])
    assert not torch.equal(copies[0], copies[2])


# in a model folder


@pytest.fixture
def plan():
    return make_plan(patch=(8, 8, 8), network={"widths": (4, 8), "strides": ((2, 2, 2),)})


@pytest.fixture
def method(plan):
    return build_method("cps", build_network(plan), {})


@pytest.fixture
def folder(tmp_path, plan, method):
    save_model(tmp_path / "model", method.predictor.state_dict(), plan, {"classes": plan.classes})
    return tmp_path / "model"


def described(folder, **changes):
    """model.json, changed where told."""
    values = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**values, **changes}))
    return values


def test_several_networks_come_back(folder, method):
    assert described(folder)["networks"] == ["networks.0", "networks.1"]
    before = torch.get_rng_state()
    loaded = load_model(folder).network
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(loaded, Ensemble)
    assert not any(module.training for module in loaded.modules())
    image = torch.randn(1, 1, 8, 8, 8)
    torch.testing.assert_close(loaded(image), method.predictor(image), rtol=0, atol=0)


def test_a_new_run_starts_from_the_first(folder, plan, method):
    network = build_network(plan)
    assert start_from(network, folder) == []
    for name, value in method.predictor.networks[0].state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


@pytest.mark.parametrize("listed", [[], ["networks.0"], ["networks.0", "networks.1", "networks.2"]])
def test_a_list_that_does_not_fit_the_weights_is_refused(folder, listed):
    described(folder, networks=listed)
    with pytest.raises(InputError, match=r"model.json: got networks \[.*expected those of model.safetensors, \['netw"):
        load_model(folder)


def test_a_folder_of_one_network_lists_none_and_loads_as_ever(tmp_path, plan):
    network = build_network(plan)
    save_model(tmp_path / "model", network.state_dict(), plan, {})
    assert "networks" not in described(tmp_path / "model")
    loaded = load_model(tmp_path / "model").network
    assert type(loaded) is type(network)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    described(tmp_path / "model", networks=["networks.0"])
    with pytest.raises(InputError, match=r"got networks \['networks.0'\], expected those of model.safetensors, \[\]"):
        load_model(tmp_path / "model")
