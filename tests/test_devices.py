"""Devices that are not there, and memory that no device has."""

import pytest
import torch

from semiseg.devices import chosen_device, memory_gb, require_memory
from semiseg.errors import OutOfMemory, UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["meta", "gpu", "", "cpu:x", "cuda:99999999999999999999", "cuda:-1", "\0", "vulkan"])
def test_a_device_that_cannot_compute_is_refused(name):
    with pytest.raises(UserError, match=r"--device: got .*, expected auto, cpu, cuda.*; try --device auto"):
        chosen_device(name)


def test_memory_beyond_what_the_machine_has_is_refused_before_it_is_taken():
    has = memory_gb(CPU)
    assert 0.1 < has < 1e5
    require_memory(CPU, 0.99 * has, "plan")
    with pytest.raises(
        OutOfMemory, match=r"plan: got a patch and batch that need at least .* GB, .*; lower batch, pat"
    ):
        require_memory(CPU, 1.01 * has, "plan")
    assert memory_gb(torch.device("meta")) is None
    require_memory(torch.device("meta"), 1e9, "plan")  # nothing says how much it has
