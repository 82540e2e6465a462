import pytest
import torch

from semiseg.networks.unet import UNet


@pytest.mark.parametrize(
    ("dims", "strides", "size"), [(2, [(2, 2), (2, 1)], (8, 6)), (3, [(2, 2, 1), (2, 2, 2)], (8, 8, 6))]
)
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_shapes_and_precision(dims, strides, size, norm):
    network = UNet(2, 4, dims, widths=(4, 8, 8), strides=strides, norm=norm)
    x = torch.randn(2, 2, *size)
    assert network(x).shape == (2, 4, *size)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(x).dtype == torch.float32
    assert network.stride == tuple(a * b for a, b in zip(*strides, strict=True))


def test_every_parameter_learns():
    network = UNet(1, 3, 2, widths=(4, 8, 8), strides=[(2, 2)] * 2)
    network(torch.randn(2, 1, 8, 8)).square().sum().backward()
    assert all(
        p.grad is not None and bool(p.grad.abs().sum() > 0) for n, p in network.named_parameters() if "up" not in n
    )


def test_errors():
    with pytest.raises(ValueError, match=r"network\.strides: got 1 entries, expected 2"):
        UNet(1, 3, 2, widths=(4, 8, 8), strides=[(2, 2)])
    with pytest.raises(ValueError, match=r"divisible by \(4, 4\)"):
        UNet(1, 3, 2, widths=(4, 8, 8), strides=[(2, 2)] * 2)(torch.zeros(1, 1, 8, 6))
