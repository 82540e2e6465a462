"""A network whose probabilities are its input, and a plan for it."""

import torch
from support.plans import make_plan
from torch import nn

TWO = {"background": 0, "object": 1}


def plan_of(dims, **changes):
    """Two classes; a 2-D plan whose slices, like the volumes in 3-D, fit into a patch."""
    flat = {"dims": 2, "slice_axis": 0, "patch": (24, 24), "network": {"strides": [(2, 2)] * 3}}
    return make_plan(**{"classes": TWO, "patch": (24, 24, 24)} | (flat if dims == 2 else {}) | changes)


class Pixelwise(nn.Module):
    """The probability of class 1 is the intensity: linear in it, so exactly equivariant under linear interpolation."""

    def forward(self, x):
        p = x[:, :1].clamp(1e-6, 1 - 1e-6)
        return torch.cat([1 - p, p], dim=1).log()
