"""Where tensors live, in which precision, and how much memory that took."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from semiseg.errors import UserError


def chosen_device(name: str) -> torch.device:
    """`auto`: a GPU if there is one, else the processor. Raises UserError for a device that is not there."""
    if name == "auto":
        gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(gpu)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--device: got {name!r} ({reason}), expected auto, cpu, cuda[:N] or mps; try --device auto"
        ) from None
    return device


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
    """`auto` is bf16 where the hardware multiplies it (a recent GPU, a processor with AMX), else 32.

    Raises UserError for 16 without a GPU.
    """
    if precision == "16" and kind == "cpu":
        raise UserError("training.precision: got 16 on a processor, expected 32 or bf16; 16 needs a GPU")
    if precision != "auto":
        return precision
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    cpuinfo = Path("/proc/cpuinfo")
    has_amx = kind == "cpu" and cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text()
    return "bf16" if has_amx else "32"
