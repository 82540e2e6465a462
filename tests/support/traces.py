"""Five training steps of every method and preset on tiny pictures: what each loss term was, and the weights at the end.

`python tests/support/traces.py tests/methods/traces.json` writes them; a test compares with those that are kept there.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from semiseg.draws import Draws
from semiseg.methods import build_method
from semiseg.networks.unet import UNet
from semiseg.types import IGNORE, Batch

STEPS = 5
INTENSITY = {"probability": 0.8, "contrast": 0.3, "gamma": 0.3, "noise": 0.1, "blur": 1, "brightness": 0.2}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "supervised": ("supervised", {}),
    "supervised, regions": ("supervised", {"regions": ((1, 2), (2,))}),
    "supervised, no average": ("supervised", {"ema": 0.0}),
    "roam": ("roam", {}),
    "roam 2020": ("roam", {"preset": "2020"}),
    "roam mixmatch": ("roam", {"preset": "mixmatch"}),
    "roam, confidence": ("roam", {"confidence": 0.4, "ramp_end": 0.0}),
    "roam, everything": (
        "roam",
        {"intensity": INTENSITY, "cutmix": 0.8, "confidence": 0.34, "per_sample": True, "views": 2, "ramp_end": 0.3},
    ),
    "roam, regions": ("roam", {"regions": ((1, 2), (2,))}),
    "roam, late": ("roam", {"ramp_start": 0.5, "layers": ("2",)}),
    "roam, labelled alone": ("roam", {"unlabelled": False}),
    "equireg": ("equireg", {}),
    "equireg 2020": ("equireg", {"preset": "2020"}),
    "equireg, plain": ("equireg", {"confidence": 0.0, "cutmix": 0.0, "intensity": {"probability": 0.0}}),
    "equireg, sharpened": ("equireg", {"confidence": 0.34, "temperature": 0.5, "warp_logits": True}),
    "equireg, on labelled": ("equireg", {"confidence": 0.0, "on_labelled": True, "dice": False}),
    "equireg, annealing linear": ("equireg", {"annealing": "linear", "confidence": 0.34}),
    "equireg, annealing log": ("equireg", {"annealing": "log", "confidence": 0.34}),
    "equireg, annealing exp": ("equireg", {"annealing": "exp", "regions": ((1, 2), (2,))}),
} | {name: (name, {}) for name in ("mean_teacher", "uamt", "cps", "fixmatch", "unimatch", "bcp")}
"""Title to method and settings."""


def batch_of(dims: int, step: int) -> Batch:
    """Two labelled and two unlabelled noisy pictures; some voxels are not annotated, some are outside."""
    generator = torch.Generator().manual_seed(step)
    size = (16,) * dims
    label = (torch.rand(4, *size, generator=generator) * 3).long()
    image = (label + 0.5 * torch.randn(label.shape, generator=generator))[:, None]
    label[0, :3] = IGNORE
    inside = torch.ones(2, *size, dtype=torch.bool)
    inside[1, -4:] = False
    return Batch(image[:2], label[:2], image[2:], inside, (1.0, 1.5, 2.0)[:dims])


def trace(title: str, dims: int, norm: str = "instance") -> dict[str, Any]:
    """Terms and watched numbers of each step, and a hash of every weight after the last one."""
    name, settings = SETTINGS[title]
    torch.manual_seed(0)
    network = UNet(1, 3, dims, widths=(4, 8), strides=[(2,) * dims], norm=norm)
    method = build_method(name, network, settings)
    optimiser = torch.optim.SGD((p for p in method.parameters() if p.requires_grad), lr=0.05)
    steps = []
    for step in range(STEPS):
        method.train()
        objective = method(batch_of(dims, step), Draws(7, step), step / STEPS)
        optimiser.zero_grad()
        objective.total.backward()
        optimiser.step()
        method.after_step(step / STEPS)
        terms = {term: float(value.detach()) for term, value in objective.terms.items()}
        steps.append({"terms": terms, "watch": {watched: float(value) for watched, value in objective.watch.items()}})
    weights = hashlib.blake2b(digest_size=16)
    for tensor in method.state_dict().values():
        weights.update(tensor.contiguous().numpy().tobytes())
    return {"steps": steps, "weights": weights.hexdigest()}


def traces() -> dict[str, dict[str, Any]]:
    """All of them, by title, number of axes and kind of normalisation."""
    torch.set_num_threads(1)
    plain = {f"{title}, {dims}-D": trace(title, dims) for title in SETTINGS for dims in (2, 3)}
    batch_norm = {
        f"{title}, 2-D, batch norm": trace(title, 2, "batch")
        for title in ("supervised", "roam", "equireg", "equireg 2020")
    }
    return plain | batch_norm


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(traces(), indent=1) + "\n", encoding="utf-8")
