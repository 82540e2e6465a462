import pytest
import torch
from support.fingerprints import BRAIN, HIPPOCAMPUS, kept_by_training

from semiseg.data.planning import plan_from, training_memory_gb
from semiseg.networks import network_from
from semiseg.networks.network_plan import NetworkPlan

SMALL = {
    "roam-unet": {"widths": [8, 16, 32]},
    "fcdensenet": {"blocks": [2, 2, 3], "growth": 4, "first": 8},
    "monai:BasicUNet": {"options": {"features": [8, 8, 16, 16, 32, 8]}},
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", SMALL)
def test_the_estimate_is_what_the_backward_pass_keeps(name, dims):
    chosen = NetworkPlan.halving({"name": name, **SMALL[name]}, dims)
    patch = (32,) * dims
    before = torch.get_rng_state()
    estimate = 1e9 * training_memory_gb(patch, 2, chosen, 1, 3)
    assert torch.equal(torch.get_rng_state(), before)  # measuring draws weights of its own
    measured = kept_by_training(network_from(chosen, 1, 3, patch), patch)
    assert 0.8 * measured <= estimate <= 1.4 * measured


@pytest.mark.parametrize(("name", "multiple"), [("roam-unet", 16), ("fcdensenet", 32), ("monai:BasicUNet", 32)])
@pytest.mark.parametrize("dims", ["2", "3"])
def test_patches_suit_the_network_and_the_memory(name, multiple, dims):
    for fingerprint in (HIPPOCAMPUS, BRAIN):
        plan = plan_from(fingerprint, dims=dims, memory_gb=24, overrides={"network": {"name": name}})
        assert plan.network.name == name
        assert all(side % multiple == 0 for side in plan.patch)
        used = training_memory_gb(
            plan.patch, plan.batch + plan.unlabelled_batch, plan.network, len(plan.channels), len(plan.classes)
        )
        assert used <= 24


def test_fcdensenet103_needs_about_a_gigabyte_a_slice():
    chosen = NetworkPlan(name="fcdensenet")
    used = training_memory_gb((224, 224), 1, chosen, 4, 4)
    assert 1.0 < used < 1.6
