"""A class has one colour: in tables, in palettes, over scans, in the report and while it is learned."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support.finished import CLASSES as REPORTED
from support.finished import make_dataset, make_run
from support.plans import make_plan
from torch import nn

from semiseg.colours import LIGHTER, class_colours, value_colours
from semiseg.data.dataset import Case
from semiseg.models.model import LoadedModel
from semiseg.prediction import overlays
from semiseg.prediction.cases import predict_cases
from semiseg.prediction.label_files import write_tables
from semiseg.report import panels
from semiseg.report.gallery import gallery_of
from semiseg.report.sources import open_studies
from semiseg.training.pictures import tile

CLASSES = {"background": 0, "core": 40, "shell": 4, **{f"class {k}": 200 - k for k in range(3, 11)}}
"""More than the palette has; the values are in another order than the classes."""
COLOURS = list(class_colours(list(CLASSES)).values())
FIRST = [(0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)]
"""Okabe and Ito's, after the black of the background."""


def squares(side=12):
    """One square of every class, in a row, on background."""
    label = np.zeros((side * len(CLASSES), side), int)
    for index in range(len(CLASSES)):
        label[side * index + 2 : side * (index + 1) - 2, 2:-2] = index
    return label


class Reading(nn.Module):
    """The class whose index is the grey value."""

    def __init__(self):
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(50.0))

    def forward(self, x):
        return -self.sharpness * torch.stack([(x[:, 0] - index).abs() for index in range(len(CLASSES))], dim=1)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """The folder of a predicted picture, with its overlay."""
    folder = tmp_path_factory.mktemp("picture")
    Image.fromarray(squares().astype(np.uint8).T).save(folder / "scan.png")
    rule = {"scheme": "window", "low": -1000, "high": 1000}
    plan = make_plan(
        dims=2, slice_axis=2, classes=CLASSES, normalisation=[rule], patch=(24, 24), network={"strides": [(2, 2)]}
    )
    case = Case("scan", (folder / "scan.png",))
    predict_cases([LoadedModel(Reading(), plan, "m")], [case], folder / "out", device="cpu")
    overlays.draw_overlays(folder / "out", [case], plan, "m", {})
    return folder / "out"


def test_the_first_colours_are_those_that_colour_blind_people_can_tell_apart():
    assert COLOURS[: len(FIRST)] == FIRST
    assert len(set(COLOURS)) == len(COLOURS)
    assert value_colours({"nothing": 0, "a": 7, "b": 3}) == {0: FIRST[0], 7: FIRST[1], 3: FIRST[2]}


def test_the_right_side_has_the_left_ones_colour_lighter():
    names = ["background", "right lung", "liver", "left lung", "left kidney"]
    found = class_colours(names)
    assert list(found) == names
    assert [found[name] for name in ("liver", "left lung", "left kidney")] == FIRST[1:4]
    assert found["right lung"] == tuple(round(part + LIGHTER * (255 - part)) for part in FIRST[2])


def test_label_tables(tmp_path):
    write_tables(tmp_path, CLASSES)
    expected = list(zip(CLASSES.values(), COLOURS, strict=True))
    snap = [line.split()[:4] for line in (tmp_path / "labels.txt").read_text().splitlines()[1:]]
    assert [(int(value), tuple(map(int, colour))) for value, *colour in snap] == expected
    slicer = [line.split() for line in (tmp_path / "labels.ctbl").read_text().splitlines()[1:]]
    assert [(int(row[0]), tuple(map(int, row[2:5]))) for row in slicer] == expected


def test_palette_of_a_predicted_picture(predicted):
    with Image.open(predicted / "scan.png") as picture:
        values, shown = np.asarray(picture), np.asarray(picture.convert("RGB"))
    assert np.array_equal(values, np.array([*CLASSES.values()])[squares()].T)
    assert np.array_equal(shown, np.array(COLOURS)[squares()].transpose(1, 0, 2))


def test_overlays(predicted):
    label = squares()
    style = overlays.Style(np.array(COLOURS, np.float32), overlays.TINT)
    drawn = overlays.outlined(np.zeros(label.shape, np.uint8), label, label.shape[::-1], style)
    tinted = np.rint(overlays.TINT * np.array(COLOURS, float)).astype(int)
    assert {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()} == {*COLOURS, *map(tuple, tinted.tolist())}
    page = np.asarray(Image.open(predicted / "overlays" / "scan.png")).reshape(-1, 3)
    assert set(COLOURS) <= {tuple(colour) for colour in page.tolist()}


def test_legend_of_overlays(predicted):
    """Below the panels, a swatch a class, in the classes' order."""
    line, (_, height) = 20, overlays.panel_size(squares().shape, (1.0, 1.0))
    below = np.asarray(Image.open(predicted / "overlays" / "scan.png"))[line + height :].reshape(-1, 3)
    coloured = below[np.ptp(below, axis=1) > 0]  # the names are white on black
    assert list(dict.fromkeys(map(tuple, coloured.tolist()))) == COLOURS[1:]


def test_panels_of_the_report():
    label = squares()
    pixels = panels.outlined(
        np.zeros(label.shape, np.uint8), label, (label.shape[1] * 10, label.shape[0] * 10), np.array(COLOURS, np.uint8)
    )
    for index, colour in list(enumerate(COLOURS))[1:]:
        rows = pixels[120 * index : 120 * (index + 1)]
        found = rows[np.ptp(rows.astype(int), axis=-1) > 40]
        brightest = found[found.astype(int).sum(-1).argmax()]
        assert np.abs(brightest.astype(int) - colour).max() <= 1, index


def test_legend_and_viewer_of_the_report(tmp_path):
    run = make_run(tmp_path / "run", make_dataset(tmp_path / "data"))
    (study,) = open_studies([run])
    gallery = gallery_of(study, 10**6, 10**6)
    assert gallery.colours == dict(zip(REPORTED, ("#e69f00", "#56b4e9"), strict=True))
    assert gallery.shown[0].volumes["colours"] == [list(colour) for colour in FIRST[:3]]


def test_pictures_of_training():
    label = squares()
    pixels = tile(np.zeros(label.shape), label, COLOURS)[1:-1, 1:-1]
    assert np.abs(pixels - 0.55 * np.array(COLOURS)[label].transpose(1, 0, 2)[::-1, ::-1]).max() <= 1


def test_label_files_are_written_without_torch(tmp_path):
    """They are written by commands that must start fast."""
    source = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from semiseg.data.images import PICTURE_AFFINE, new_scan, write_like\n"
        "from semiseg.prediction.label_files import write_tables\n"
        "label = np.eye(3, dtype=int)[..., None]\n"
        "write_like(Path('label.png'), label, new_scan(label, PICTURE_AFFINE), colours={1: (1, 2, 3)})\n"
        "write_tables(Path(), {'background': 0, 'a': 1})\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", source], cwd=tmp_path, timeout=120).returncode == 0
    with Image.open(tmp_path / "label.png") as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (1, 2, 3)
