"""A model folder: what is written comes back, and what does not fit is refused with one message."""

import json

import pytest
import torch
from safetensors.torch import load, load_file, save_file
from support.plans import make_plan

from semiseg.errors import InputError
from semiseg.models.model import build_network, load_model, save_model, start_from

NETWORK = {"widths": (4, 8), "strides": ((2, 2, 2),)}


@pytest.fixture
def plan():
    return make_plan(patch=(8, 8, 8), network=NETWORK)


@pytest.fixture
def folder(tmp_path, plan):
    save_model(tmp_path / "model", build_network(plan).state_dict(), plan, {"classes": plan.classes})
    return tmp_path / "model"


def test_a_model_comes_back_and_the_generator_is_left_alone(folder, plan):
    before = torch.get_rng_state()
    model = load_model(folder)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.plan == plan
    assert not model.network.training
    network = build_network(plan)
    assert start_from(network, folder) == []
    for name, value in network.state_dict().items():
        assert torch.equal(value, model.network.state_dict()[name])


def test_a_head_for_other_classes_starts_anew(folder, plan):
    more = plan.model_copy(update={"classes": {"background": 0, "a": 1, "b": 2, "c": 3}})
    assert start_from(build_network(more), folder) == ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("[]", r"model.json: TypeError.*expected a model's description; export it again"),
        ('{"format": 1}', r"model.json: KeyError\('plan'\)"),
        ('{"format": 99, "plan": {}}', "model.json: got format 99, expected 1"),
        ('{"format": 1, "plan": [1]}', r"model.json: plan: got \[1\], input should be a valid dictionary"),
    ],
)
def test_another_description_is_refused(folder, description, message):
    (folder / "model.json").write_text(description)
    with pytest.raises(InputError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "got values in head.bias that are not finite, expected numbers; export the model again"),
        (float("inf"), "got values in head.bias that are not finite"),
        (torch.full((3,), 1e300, dtype=torch.float64), "got values in head.bias that are not finite"),
        (torch.tensor([1, 2, 3]), "got head.bias of type int64, expected float32"),
        (torch.tensor([True, False, True]), "got head.bias of type bool, expected float32"),
    ],
)
def test_weights_that_cannot_predict_are_refused(folder, value, message):
    """They would call everything background, and nobody would know why."""
    weights = load_file(folder / "model.safetensors")
    weights["head.bias"] = value if isinstance(value, torch.Tensor) else torch.full_like(weights["head.bias"], value)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(InputError, match=message):
        load_model(folder)


@pytest.mark.parametrize("kind", [torch.float16, torch.float64, torch.float8_e4m3fn])
def test_weights_of_another_precision_are_taken(folder, kind):
    weights = load((folder / "model.safetensors").read_bytes())  # not mapped: the file is written over
    save_file({name: weight.to(kind) for name, weight in weights.items()}, folder / "model.safetensors")
    loaded = load_model(folder).network.state_dict()
    for name, weight in weights.items():
        assert torch.equal(loaded[name], weight.to(kind).to(weight.dtype))


def test_weights_that_do_not_fit_are_refused(folder):
    values = json.loads((folder / "model.json").read_text())
    values["plan"]["network"]["widths"] = [4, 9]
    (folder / "model.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"got encoder\.\S+ of shape .* expected .* as this network has; export"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match=r"model.safetensors: .*expected whole weights"):
        load_model(folder)


@pytest.mark.parametrize("prefix", ["", "networks.0."])
def test_a_roam_unet_of_before_its_up_sampling_was_normalised_is_refused_in_words(tmp_path, prefix):
    plan = make_plan(patch=(8, 8, 8), network={"name": "roam-unet", "widths": (4, 8), "strides": ((2, 2, 2),)})
    weights = build_network(plan).state_dict()
    assert "decoder.up.0.0.weight" in weights
    named = {f"{prefix}{name.replace('up.0.0.', 'up.0.')}": w for name, w in weights.items() if "up.0.1." not in name}
    save_model(tmp_path / "model", named, plan, {})
    message = r"model: got a U-Net without normalisation after its up-sampling, as roam-unet was.*; train it anew"
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "model")
    with pytest.raises(InputError, match=message):
        start_from(build_network(plan), tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([1], "model.json: plan: got"),
        ({"classes": {"background": 0, "a": 2**40}}, "model.json: plan.classes.a: got 1099511627776"),
        ({"network": {"widths": [2**20, 2**20], "strides": [[2, 2, 2]]}}, "of shape .* as this network has; export"),
    ],
)
def test_a_description_that_no_file_of_ours_has_is_refused_before_a_network_is_built(folder, changes, message):
    """The last one would take 100 TB."""
    values = json.loads((folder / "model.json").read_text())
    values["plan"] = values["plan"] | changes if isinstance(changes, dict) else changes
    (folder / "model.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_a_path_without_a_model(tmp_path, folder):
    with pytest.raises(InputError, match=r"got no model.json, expected a run or a model folder"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="got --checkpoint best with a model folder, expected a run"):
        load_model(folder, "best")
