import numpy as np
import torch
from PIL import Image

from semiseg.colours import PALETTE
from semiseg.networks.unet import UNet
from semiseg.prediction.overlays import facing
from semiseg.training.pictures import draw_pictures, draw_progress, tile
from semiseg.types import IGNORE, Batch


def test_a_tile_is_seen_as_overlays_are():
    """The patient's left (low indices of axis 0) on the right, front or top (high ones of axis 1) up."""
    image = np.zeros((4, 5))
    image[0, 4] = 1
    pixels = tile(image, None)[1:-1, 1:-1, 0]
    assert np.array_equal(pixels == 255, facing(image) == 1)
    assert pixels[0, -1] == 255


def test_a_tile_tints_labels_and_leaves_the_rest_grey():
    image, label = np.linspace(0, 1, 20).reshape(4, 5), np.zeros((4, 5), int)
    label[3, 4], label[0, 0] = 2, IGNORE
    pixels = tile(image, label)[1:-1, 1:-1]
    assert pixels.shape == (5, 4, 3)  # the second axis runs upwards
    grey = (pixels[..., 0] == pixels[..., 1]) & (pixels[..., 1] == pixels[..., 2])
    assert np.argwhere(~grey).tolist() == [[0, 0]]
    assert np.abs(pixels[0, 0] - (0.45 * 255 + 0.55 * PALETTE[1])).max() <= 1


def test_rows_of_pictures(tmp_path):
    for dims in (2, 3):
        size = (8,) * dims
        network = UNet(1, 3, dims, widths=(4, 8), strides=[(2,) * dims])
        batch = Batch(
            torch.randn(3, 1, *size),
            torch.zeros(3, *size, dtype=torch.long),
            torch.randn(2, 1, *size),
            torch.ones(2, *size, dtype=torch.bool),
            (1.0,) * dims,
        )
        path = tmp_path / f"{dims}.png"
        pixels = draw_pictures(network, batch, path)
        assert pixels.shape == (5 * 10, 3 * 10, 3)  # image, label, prediction; unlabelled image, guess
        assert np.array_equal(np.asarray(Image.open(path)), pixels)


def test_progress_is_drawn_with_and_without_validation(tmp_path):
    log = [{"step": k, "kind": "train", "terms": {"supervised": 1 / k, "consistency": 0.1}} for k in range(1, 5)]
    draw_progress(log, tmp_path / "a.png")
    draw_progress([*log, {"step": 4, "kind": "validation", "dice": {"ball": 0.5}}], tmp_path / "b.png")
    one, other = (np.asarray(Image.open(tmp_path / name).convert("L")) for name in ("a.png", "b.png"))
    assert one.shape == other.shape
    assert (one != other).any()
