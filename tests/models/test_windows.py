"""What a network is shown of a scan that is smaller than its patch."""

import numpy as np
import pytest
import torch
from torch import nn

from semiseg.data.plan import Normalisation, Plan
from semiseg.models.windows import predict_probabilities
from semiseg.networks.network_plan import NetworkPlan


class Witness(nn.Module):
    """Keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen += x.clone()
        return torch.cat([x, -x], 1)


def plan_of(patch, dims) -> Plan:
    return Plan(
        dims=dims, channels=("MRI",), classes={"background": 0, "a": 1}, slice_axis=0 if dims == 2 else None,
        spacing_mm=(1.0, 1.0, 1.0), normalisation=(Normalisation(),), patch=patch, batch=2, unlabelled_batch=0,
        network=NetworkPlan(widths=(4,), strides=()),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dims", "patch"),
    [(2, (12, 10)), (3, (6, 12, 10)), (2, (4, 10))],
    ids=["slices", "a volume", "windows, short along one axis"],
)
def test_padding_is_the_median_of_the_outermost_voxels(dims, patch):
    """By sorting the faces; the median of an even number is the lower one."""
    image = np.random.default_rng(0).normal(size=(1, 6, 8, 7)).astype(np.float32)
    network = Witness()
    probability = predict_probabilities(network, image, plan_of(patch, dims))
    assert probability.shape == (2, 6, 8, 7)
    fills = set()
    for picture in image[0] if dims == 2 else image:
        faces = np.concatenate([np.take(picture, end, axis).ravel() for axis in range(dims) for end in (0, -1)])
        fills.add(np.sort(faces)[(len(faces) - 1) // 2])
    for seen in network.seen:
        padding = seen[0, ..., :2]  # the larger half of what the last axis lacks
        (value,) = padding.unique().tolist()
        assert value in fills
        assert seen[0, ..., -1].unique().tolist() == [value]
    assert len({float(seen[0, ..., 0].max()) for seen in network.seen}) == len(fills)
