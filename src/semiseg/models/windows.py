"""A network over a whole scan: at once where it fits into a patch, else by overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from semiseg.data.plan import Plan
from semiseg.devices import require_memory
from semiseg.networks.frozen import forward_frozen
from semiseg.transforms.warp import Warp

VIEWS = ((7.0, 1.0), (-7.0, 1.0), (0.0, 1.1), (0.0, 0.9))
"""Test-time augmentation, beside the scan as it is: in-plane rotation in degrees, and scale."""


def predict_probabilities(
    network: nn.Module,
    image: Float[np.ndarray, "c i j k"],
    plan: Plan,
    device: torch.device | str = "cpu",
    *,
    tta: bool = False,
) -> Float[Tensor, "classes i j k"]:
    """Class probabilities of a prepared scan, on the CPU; they add up to 1 at every voxel.

    Slices (2-D) or the volume (3-D) that fit into the plan's patch are padded to it with zeros, as in
    training, and run at once; larger ones by overlapping windows with Gaussian weights. The network's mode is
    restored.

    tta: average over the scan as it is and VIEWS of it: rotated by +-7 degrees in the first two axes of the
    network (the slice; the axial plane in 3-D), enlarged and reduced by 10 %, all interpolated linearly,
    predictions warped back. No mirroring: training has none by default, and left is not right. Five times the
    work.
    """
    require_memory(torch.device(device), window_memory_gb(plan), "plan")
    volume = torch.from_numpy(np.array(image, np.float32))
    items = volume.transpose(0, 1) if plan.dims == 2 else volume[None]
    total = _probabilities(network, items, plan, device)
    if tta:
        seen = torch.ones(1, 1, *items.shape[2:])
        for there, back in _views(items.shape[2:], plan.patch_spacing_mm):
            valid = there.inside[:, None].float()
            view = _probabilities(network, _warped(there, items), plan, device)
            total += _warped(back, view.mul_(valid))
            seen = seen + back(valid)
        total /= seen
    return total.transpose(0, 1) if plan.dims == 2 else total[0]


def window_memory_gb(plan: Plan) -> float:
    """What segmenting one patch needs at least: the patch, logits, probabilities, and what the first convolution of a
    U-Net takes and gives."""
    features = 2 * plan.network.widths[0] if plan.network.widths else 0
    return 4e-9 * math.prod(plan.patch) * (len(plan.channels) + 2 * len(plan.classes) + features)


def _probabilities(
    network: nn.Module, items: Float[Tensor, "n c *spatial"], plan: Plan, device: torch.device | str
) -> Float[Tensor, "n classes *spatial"]:
    def forward(x: Tensor) -> Tensor:
        return forward_frozen(network, x).float().softmax(1)

    size = items.shape[2:]
    at_once = plan.batch + plan.unlabelled_batch  # what training had memory for, with gradients
    if all(side <= window for side, window in zip(size, plan.patch, strict=True)):
        missing = [window - side for side, window in zip(size, plan.patch, strict=True)]
        before = [(gap + 1) // 2 for gap in missing]  # the larger half first, as in training
        after = [gap - first for gap, first in zip(missing, before, strict=True)]
        pads = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
        inside: list[Any] = [slice(first, first + n) for first, n in zip(before, size, strict=True)]
        chunks = [
            forward(functional.pad(chunk, pads).to(device))[(..., *inside)].cpu() for chunk in items.split(at_once)
        ]
        return torch.cat(chunks)
    from monai.inferers import sliding_window_inference  # takes seconds to import

    windows = sliding_window_inference(
        items,
        roi_size=plan.patch,
        sw_batch_size=at_once,
        predictor=forward,
        overlap=plan.overlap,
        mode="gaussian",
        sw_device=device,
        device="cpu",
    )
    assert isinstance(windows, Tensor)
    return windows


def _views(size: Sequence[int], spacing_mm: Sequence[float]) -> Iterator[tuple[Warp, Warp]]:
    """Each of VIEWS as a warp and its inverse."""
    half_mm = torch.tensor([max(n - 1, 1) / 2 * mm for n, mm in zip(size, spacing_mm, strict=True)])
    axes = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in size]
    centres_mm = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) * half_mm
    for degrees, scale in VIEWS:
        angle = torch.deg2rad(torch.tensor(degrees))
        matrix = torch.eye(len(size))
        matrix[:2, :2] = torch.stack(
            [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
        )
        matrix /= scale
        there, back = ((centres_mm @ m.mT / half_mm)[None] for m in (matrix, torch.linalg.inv(matrix)))
        yield Warp(there), Warp(back)


def _warped(warp: Warp, items: Float[Tensor, "n c *spatial"]) -> Float[Tensor, "n c *spatial"]:
    return torch.cat([warp(item[None]) for item in items])
