"""What lies outside a picture: more of what its outermost voxels show.

Zeros there look like tissue in a scan that was normalised to a mean of 0. A network that normalises every picture by
itself finds tissue along such a strip, most of all in slices that hold nothing but noise, and learns it from its own
guesses (docs/log.md).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rim(x: Float[Tensor, "b c *spatial"]) -> Float[Tensor, "b c *ones"]:
    """The median of the outermost voxels, for each sample and channel."""
    sides = [x.select(axis, end).flatten(2) for axis in range(2, x.ndim) for end in (0, -1)]
    return torch.cat(sides, 2).median(2).values.reshape(*x.shape[:2], *[1] * (x.ndim - 2))
