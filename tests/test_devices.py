"""Devices that are not there, and memory that no device has."""

import pytest
import torch

from semiseg import devices
from semiseg.devices import chosen_device, chosen_layout, chosen_precision, memory_gb, require_memory
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


@pytest.mark.parametrize(
    ("flags", "precision", "layout"),
    [
        ("flags\t\t: fpu avx2 avx512f amx_bf16 avx512_bf16\n", "bf16", "channels_last"),
        ("flags\t\t: fpu avx2 avx512f avx512_bf16\n", "bf16", "contiguous"),
        ("flags\t\t: fpu avx2 avx512f\n", "32", "contiguous"),
        ("", "32", "contiguous"),
    ],
)
def test_precision_and_layout_are_those_that_the_processor_is_fast_with(
    flags, precision, layout, tmp_path, monkeypatch
):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\nprocessor\t: 1\n")
    monkeypatch.setattr(devices, "Path", lambda _: cpuinfo)
    assert chosen_precision("auto", "cpu") == precision
    assert chosen_layout("auto", precision, "cpu") == layout
    assert chosen_layout("auto", "32", "cpu") == "contiguous"
    for given in ("contiguous", "channels_last"):
        assert chosen_layout(given, precision, "cpu") == given


def test_a_gpu_has_channels_last_in_16_bits_alone():
    assert {one: chosen_layout("auto", one, "cuda") for one in ("32", "bf16", "16")} == {
        "32": "contiguous",
        "bf16": "channels_last",
        "16": "channels_last",
    }
