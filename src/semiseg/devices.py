"""Where tensors live, in which precision, and how much memory that took."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from semiseg.errors import OutOfMemory, UserError


def chosen_device(name: str) -> torch.device:
    """`auto`: a GPU if there is one, else the processor. Raises UserError for a device that is not there."""
    if name == "auto":
        gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(gpu)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` holds no number
    except (RuntimeError, AssertionError, ValueError, OverflowError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"--device: got {name!r} ({reason}), expected auto, cpu, cuda[:N] or mps; try --device auto"
        ) from None
    return device


def memory_gb(device: torch.device) -> float | None:
    """What the device has in all: a GPU its own, a processor the machine's. None where nothing says so."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 1e9
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return None


def require_memory(device: torch.device, needed_gb: float, of_what: str) -> None:
    """Raise OutOfMemory, before anything is set aside, for what the device could not hold even if it were empty: some
    systems promise memory that they do not have, and kill who uses it."""
    has = memory_gb(device)
    if has is not None and needed_gb > has:
        raise OutOfMemory(
            f"{of_what}: got a patch and batch that need at least {needed_gb:.3g} GB, expected at most {has:.3g} GB, "
            f"which {device} has; lower batch, patch or network.widths in the plan"
        )


def peak_memory_gb() -> float | None:
    """Most memory that this process has held: of the GPU where one was used, else of the machine. None on Windows."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return round(torch.cuda.max_memory_allocated() / 1e9, 3)
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)


def chosen_precision(precision: str, kind: str) -> str:
    """`auto` is bf16 where the hardware multiplies it (a recent GPU, a processor with AMX or AVX-512 BF16), else 32.

    Raises UserError for 16 without a GPU.
    """
    if precision == "16" and kind == "cpu":
        raise UserError("training.precision: got 16 on a processor, expected 32 or bf16; 16 needs a GPU")
    if precision != "auto":
        return precision
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    return "bf16" if kind == "cpu" and processor_flags() & {"amx_bf16", "avx512_bf16"} else "32"


def chosen_layout(layout: str, precision: str, kind: str) -> str:
    """How tensors lie in memory. `auto` is channels_last for 16 bits on a GPU or a processor with AMX, whose units work
    through channels, else contiguous; measured in benchmarks/step.md."""
    if layout != "auto":
        return layout
    has_units = kind == "cuda" or "amx_bf16" in processor_flags()
    return "channels_last" if precision != "32" and has_units else "contiguous"


def processor_flags() -> set[str]:
    """What the first processor can do, where Linux tells; else nothing."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return set(next((line for line in lines if line.startswith("flags")), "").split())
