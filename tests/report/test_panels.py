import base64
import gzip
import io

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from support.finished import make_dataset, make_label, make_plan, make_run

from semiseg.colours import class_colours
from semiseg.data.dataset import Case
from semiseg.errors import InputError
from semiseg.prediction.overlays import Truth
from semiseg.report.panels import LONGEST, WRONG, Views, outlined, panels, read_views, telling_slice, volumes

COLOURS = np.array([*class_colours(["background", "a", "b", "c"]).values()], np.uint8)
BLACK = np.zeros((20, 20), np.uint8)


def test_outlines_surround_their_class_in_its_colour():
    label = np.zeros((20, 20), int)
    label[5:15, 5:15] = 1
    pixels = outlined(BLACK, label, (200, 200), COLOURS)
    coloured = np.abs(pixels.astype(int) - COLOURS[1]).sum(-1) < 30
    rows, columns = np.nonzero(coloured)
    assert (rows.min(), rows.max()) == pytest.approx((50, 149), abs=2)
    assert (columns.min(), columns.max()) == pytest.approx((50, 149), abs=2)
    assert not pixels[60:140, 60:140].any()
    assert not pixels[:45].any()


def test_voxels_that_differ_from_the_truth_are_filled_but_not_where_nothing_is_known():
    truth = np.zeros((20, 20), int)
    truth[:10] = 1
    truth[15:] = -100
    pixels = outlined(BLACK, np.full((20, 20), 0), (200, 200), COLOURS, truth=truth)
    assert pixels[50, 100] == pytest.approx(np.array(WRONG) / 2, abs=1)
    assert not pixels[120, 100].any()
    assert not pixels[180, 100].any()


def test_left_is_on_the_right_anterior_and_superior_are_up_and_millimetres_are_square():
    grey = np.zeros((10, 20, 5), np.uint8)
    grey[0, 19, 4] = 255  # left, anterior, superior
    views = Views(grey, {"truth": np.zeros(grey.shape, int)}, (2.0, 1.0, 4.0), COLOURS)
    for axis, number, size in ((2, 4, (100, 100)), (1, 19, (100, 100)), (0, 0, (100, 100))):
        picture = Image.open(io.BytesIO(panels(views, axis, number, 100)["image"]))
        assert picture.size == size
        rows, columns = np.nonzero(np.asarray(picture.convert("L")) > 100)
        assert rows.max() < 30
        assert (columns.min() > 70) if axis else (columns.max() < 30)  # the nose of a sagittal slice is on the left


def test_a_single_slice_has_one_plane_and_a_volume_three():
    def planes(*shape):
        return Views(np.zeros(shape, np.uint8), {}, (1.0, 1.0, 1.0), COLOURS).planes

    assert planes(4, 5, 6) == [2, 1, 0]
    assert planes(4, 5, 1) == [2]
    assert planes(4, 1, 6) == [1]


def test_telling_slice_prefers_the_rare_class():
    assert telling_slice(make_label()) == 3
    assert telling_slice(np.moveaxis(make_label(), 2, 0), 0) == 3
    assert telling_slice(np.zeros((4, 4, 9), int)) == 4


def opened(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_volumes_are_block_means_and_block_centres_on_one_grid():
    side = 2 * LONGEST + 1  # three voxels a block
    grey = np.zeros((side, 4, 3), np.uint8)
    grey[1] = 90
    label = np.zeros(grey.shape, int)
    label[1::3] = 2
    label[0] = -100
    made = volumes(Views(grey, {"truth": label}, (1.0, 2.0, 3.0), COLOURS))
    image, truth = opened(made["image"]), opened(made["labels"]["truth"])
    assert image.shape == truth.shape == (75, 4, 3)
    assert image.header.get_zooms() == truth.header.get_zooms() == (3.0, 2.0, 3.0)
    assert image.get_fdata()[0, 0, 0] == 30  # 0, 90, 0
    assert (truth.get_fdata() == 2).all()
    assert image.get_data_dtype() == np.uint8


def test_views_are_class_indices_in_ras_orientation(tmp_path):
    data = make_dataset(tmp_path / "data")
    run = make_run(tmp_path / "run", data)
    case = Case("a", (data / "images" / "a.nii.gz",), data / "labels" / "a.nii.gz")
    files = {"m": run / "predictions" / "a.nii.gz", "none": tmp_path / "missing.nii.gz"}
    views = read_views(case, Truth(case.label), files, make_plan())
    assert list(views.labels) == ["truth", "m"]
    assert np.array_equal(views.labels["truth"], np.array([0, 1, 0, 0, 2])[make_label()])
    assert np.array_equal(views.labels["m"], np.array([0, 1, 0, 0, 2])[make_label(1)])
    assert views.spacing_mm == (2.0, 3.0, 4.0)
    broken = np.full((20, 16, 6), np.nan, np.float32)
    nib.save(nib.Nifti1Image(broken, np.eye(4)), case.images[0])
    with pytest.raises(InputError, match=r"a\.nii\.gz: got NaN or infinity"):
        read_views(case, Truth(case.label), files, make_plan())
