"""Connected pieces of label maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int


def largest_pieces(index: Int[np.ndarray, "*spatial"], *, corners: bool = False) -> Int[np.ndarray, "*spatial"]:
    """Of every class but 0, the largest connected piece; the rest becomes 0.

    Voxels are connected through their faces; with `corners` through edges and corners too.
    """
    from scipy.ndimage import generate_binary_structure, label

    connected: Any = generate_binary_structure(index.ndim, index.ndim if corners else 1)
    result = np.zeros_like(index)
    for value in np.unique(index[index > 0]):
        pieces, count = label(index == value, connected)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        result[pieces == 1 + int(np.argmax(sizes[1:]))] = value
    return result
