"""What tests against the slow formulas of tests/reference share: a small batch with holes, and their arrays."""

import numpy as np
import pytest
import torch

from semiseg.methods import build_method
from semiseg.methods.method import Method
from semiseg.networks.ensemble import Ensemble
from semiseg.networks.unet import UNet
from semiseg.transforms.dropout import ChannelDropout
from semiseg.transforms.mixing import Box
from semiseg.transforms.warp import Warp, WarpConfig
from semiseg.types import IGNORE, Batch

SIDE = 8
both = pytest.mark.parametrize("dims", [2, 3])

INTENSITY = {"probability": 0.7, "contrast": 0.5, "brightness": 0.3, "gamma": 0.4, "noise": 0.4}


def mirrors_and_shifts(dims: int) -> WarpConfig:
    """A warp that only moves voxels onto voxels, some of them from outside the picture."""
    return WarpConfig(flip=tuple(range(dims)), shift=0.25)


def ragged_batch(dims: int, labelled: int = 2, unlabelled: int = 3) -> Batch:
    """Noise; voxels that are not annotated, and unlabelled ones that lie outside, in some rows."""
    generator = torch.Generator().manual_seed(dims)
    size = (SIDE,) * dims
    image, other = (torch.randn(rows, 1, *size, generator=generator) for rows in (labelled, unlabelled))
    label = torch.randint(3, (labelled, *size), generator=generator)
    label[0, :2] = IGNORE
    inside = torch.ones(unlabelled, *size, dtype=torch.bool)
    inside[0, :, :3] = False
    inside[-1, 5:] = False
    return Batch(image, label, other, inside, (1.0,) * dims)


def method_under_test(name: str, dims: int, **settings: object) -> Method:
    """Around a U-Net of three resolutions whose predictions differ; its average has moved away from it."""
    torch.manual_seed(1)
    network = UNet(1, 3, dims, widths=(4, 8, 8), strides=[(2,) * dims] * 2)
    method = build_method(name, network, settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in method.network.parameters():
            weight.add_(0.15 * torch.randn(weight.shape, generator=generator))
        for one in method.network.networks if isinstance(method.network, Ensemble) else [method.network]:
            one.head.weight.mul_(2)
    return method


def array(x: torch.Tensor) -> np.ndarray:
    """For the oracles, which compute in 64 bits."""
    return x.detach().double().numpy() if x.is_floating_point() else x.numpy()


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).float()


def logits_of(network: torch.nn.Module, image: torch.Tensor | np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return array(network(image if isinstance(image, torch.Tensor) else tensor(image)))


def source_of(warp: Warp) -> np.ndarray:
    """The index map of a warp that moves voxels onto voxels, as `reference.equireg` takes it; -1 from outside."""
    size = warp.grid.shape[1:-1]
    places = (array(warp.grid) + 1) / 2 * (np.array(size) - 1)
    nearest = np.rint(places).astype(int)
    assert np.abs(places - nearest).max() < 1e-4, "not a map of voxels onto voxels"
    there = ((nearest >= 0) & (nearest < np.array(size))).all(-1)
    flat = np.ravel_multi_index(tuple(np.moveaxis(np.clip(nearest, 0, np.array(size) - 1), -1, 0)), size)
    return np.where(there, flat, -1)


def box_of(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Whose box each row gets, and where it lies."""
    assert box.where.any()
    assert not box.where.all()
    return box.partner.numpy(), box.where.numpy()


def kept_by(drop: ChannelDropout, rows: int, channels: int) -> np.ndarray:
    """Which channels of which rows the dropout leaves."""
    return drop(torch.ones(rows, channels)).numpy() > 0


def assert_terms(found: dict[str, torch.Tensor], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 0, name
        assert float(found[name].detach()) == pytest.approx(value, rel=1e-4), name


def assert_splits(share: float) -> None:
    """A threshold that keeps every voxel, or none, would hide where it is applied."""
    assert 0.05 < share < 0.95, share
