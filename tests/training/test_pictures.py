import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from semiseg.colours import PALETTE, class_colours
from semiseg.networks.unet import UNet
from semiseg.prediction.overlays import facing
from semiseg.training.pictures import draw_pictures, draw_progress, tile
from semiseg.types import IGNORE, Batch

COLOURS = list(class_colours(["background", "a", "b"]).values())


def test_a_tile_is_seen_as_overlays_are():
    """The patient's left (low indices of axis 0) on the right, front or top (high ones of axis 1) up."""
    image = np.zeros((4, 5))
    image[0, 4] = 1
    pixels = tile(image, None, COLOURS)[1:-1, 1:-1, 0]
    assert np.array_equal(pixels == 255, facing(image) == 1)
    assert pixels[0, -1] == 255


def test_a_tile_tints_labels_and_leaves_the_rest_grey():
    image, label = np.linspace(0, 1, 20).reshape(4, 5), np.zeros((4, 5), int)
    label[3, 4], label[0, 0] = 2, IGNORE
    pixels = tile(image, label, COLOURS)[1:-1, 1:-1]
    assert pixels.shape == (5, 4, 3)  # the second axis runs upwards
    grey = (pixels[..., 0] == pixels[..., 1]) & (pixels[..., 1] == pixels[..., 2])
    assert np.argwhere(~grey).tolist() == [[0, 0]]
    assert np.abs(pixels[0, 0] - (0.45 * 255 + 0.55 * np.array(PALETTE[1]))).max() <= 1


def test_a_tile_is_black_below_the_first_percentile_and_white_above_the_99th():
    pixels = tile(np.arange(100.0, 201.0)[:, None], None, COLOURS)
    assert pixels.shape == (3, 103, 3)
    assert (pixels[0] == 64).all()
    assert (pixels[:, 0] == 64).all()
    row = pixels[1, 1:-1, 0][::-1].astype(int)
    assert row[[0, 1, 99, 100]].tolist() == [0, 0, 255, 255]
    assert row[[20, 50]].tolist() == [49, 127]  # (120 - 101) / (199 - 101) * 255, (150 - 101) / (199 - 101) * 255
    assert (tile(np.full((4, 4), 7.0), None, COLOURS)[1:-1, 1:-1] == 0).all()


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
        pixels = draw_pictures(network, batch, path, COLOURS)
        assert pixels.shape == (5 * 10, 3 * 10, 3)  # image, label, prediction; unlabelled image, guess
        assert np.array_equal(np.asarray(Image.open(path)), pixels)


def test_progress_is_drawn_with_and_without_validation(tmp_path):
    log = [{"step": k, "kind": "train", "terms": {"supervised": 1 / k, "consistency": 0.1}} for k in range(1, 5)]
    draw_progress(log, tmp_path / "a.png")
    draw_progress([*log, {"step": 4, "kind": "validation", "dice": {"ball": 0.5}}], tmp_path / "b.png")
    one, other = (np.asarray(Image.open(tmp_path / name).convert("L")) for name in ("a.png", "b.png"))
    assert one.shape == other.shape
    assert (one != other).any()


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The axes that a log is drawn in: of the loss terms, of the Dice."""

    def of(log):
        figures = []
        save = Figure.savefig
        with monkeypatch.context() as patched:
            patched.setattr(Figure, "savefig", lambda self, *_, **__: (figures.append(self), save(self, *_, **__)))
            draw_progress(log, tmp_path / "progress.png")
        (figure,) = figures
        return figure.axes

    return of


def test_a_curve_for_every_term_and_every_class(drawn, tmp_path):
    """Terms and classes may come later, or be left out of a line."""
    left, right = drawn(
        [
            {"step": 1, "kind": "train", "terms": {"supervised": 0.5}},
            {"step": 2, "kind": "train", "terms": {"supervised": 0.25, "consistency": 0.125}},
            {"step": 2, "kind": "validation", "dice": {"ball": 0.5}},
            {"step": 4, "kind": "validation", "dice": {"ball": 0.75, "cube": 0.25}},
        ]
    )
    curves = [{line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in (left, right)]
    assert curves == [
        {"supervised": [[1, 0.5], [2, 0.25]], "consistency": [[2, 0.125]]},
        {"ball": [[2, 0.5], [4, 0.75]], "cube": [[4, 0.25]]},
    ]
    assert (left.get_xlabel(), left.get_ylabel()) == ("step", "weighted loss term")
    assert (right.get_xlabel(), right.get_ylabel()) == ("step", "validation Dice")
    assert (left.get_ylim()[0], right.get_ylim()) == (0, (0, 1))
    assert {line.get_marker() for line in right.lines} == {"."}  # one validation is seen too
    assert np.asarray(Image.open(tmp_path / "progress.png")).shape[:2] == (340, 900)


@pytest.mark.parametrize(("classes", "named"), [(0, False), (1, True), (12, True), (13, False)])
def test_up_to_twelve_curves_are_named(drawn, classes, named):
    dice = {f"structure {k}": 0.5 for k in range(classes)}
    _, right = drawn([{"step": 1, "kind": "validation", "dice": dice}])
    assert (right.get_legend() is not None) == named
