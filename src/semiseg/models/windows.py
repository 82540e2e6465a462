"""A network over a whole scan: at once where it fits into a patch, else by overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from semiseg.data.plan import Plan
from semiseg.devices import require_memory
from semiseg.networks.frozen import forward_frozen
from semiseg.transforms.rim import rim
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

    Slices (2-D) or the volume (3-D) that fit into the plan's patch are padded to it with their rim, as in
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
            view = torch.cat([there.image(item[None]) for item in items])
            seen_so = _probabilities(network, view, plan, device).mul_(valid)
            total += torch.cat([back(item[None]) for item in seen_so])
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

    at_once = plan.batch + plan.unlabelled_batch  # what training had memory for, with gradients
    if all(side <= window for side, window in zip(items.shape[2:], plan.patch, strict=True)):
        chunks = (_padded(chunk, plan.patch) for chunk in items.split(at_once))
        return torch.cat([forward(chunk.to(device))[inside].cpu() for chunk, inside in chunks])
    from monai.inferers import sliding_window_inference  # takes seconds to import

    padded, inside = _padded(items, plan.patch)
    windows = sliding_window_inference(
        padded,
        roi_size=plan.patch,
        sw_batch_size=at_once,
        predictor=forward,
        overlap=plan.overlap,
        mode="gaussian",
        sw_device=device,
        device="cpu",
    )
    assert isinstance(windows, Tensor)
    return windows[inside]


def _padded(
    x: Float[Tensor, "n c *spatial"], patch: Sequence[int]
) -> tuple[Float[Tensor, "n c *whole"], tuple[Any, ...]]:
    """In the middle of a patch, along axes that are shorter, as in training; and where it lies there."""
    size = x.shape[2:]
    if all(side >= window for side, window in zip(size, patch, strict=True)):
        return x, (...,)
    whole = [max(side, window) for side, window in zip(size, patch, strict=True)]
    before = [(there - side + 1) // 2 for side, there in zip(size, whole, strict=True)]  # the larger half
    inside: tuple[Any, ...] = (..., *(slice(first, first + side) for first, side in zip(before, size, strict=True)))
    padded = rim(x).expand(*x.shape[:2], *whole).clone()
    padded[inside] = x
    return padded, inside


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
