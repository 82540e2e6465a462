"""Scans as pictures (PNG, JPEG) and HDF5 files: how they lie, what they hold, and damaged ones."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from semiseg.colours import PALETTE
from semiseg.data.images import (
    ENDINGS,
    PICTURE_AFFINE,
    case_name,
    new_scan,
    on_grid,
    read_image,
    read_label,
    to_ras,
    write_like,
)
from semiseg.errors import InputError, MissingExtra
from semiseg.types import Geometry

VOXELS = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
"""Rows x columns."""


def picture(path: Path, pixels: np.ndarray = PIXELS, mode: str | None = None) -> Path:
    drawn = Image.fromarray(pixels)
    (drawn.convert(mode) if mode else drawn).save(path)
    return path


def hdf5(path: Path, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in datasets.items():
            file.create_dataset(name, data=array, compression="gzip")
    return path


def test_a_picture_lies_as_radiologists_look_at_it(tmp_path: Path) -> None:
    scan = read_image(picture(tmp_path / "a.PNG"))
    assert scan.array.dtype == np.float32
    assert scan.array.shape == scan.geometry.shape == (4, 3, 1)
    assert scan.array[3, 0, 0] == PIXELS[0, 3]
    assert nib.aff2axcodes(scan.geometry.affine) == ("L", "P", "S")
    assert scan.geometry.spacing_mm == (1, 1, 1)
    right_anterior = to_ras(scan.array, scan.geometry.affine)[-1, -1, 0]
    assert right_anterior == PIXELS[0, 0]  # top left


def test_colours_become_luma_and_16_bits_stay(tmp_path: Path) -> None:
    colours = np.zeros((3, 4, 4), np.uint8)
    colours[..., :3] = (10, 100, 200)
    luma = round(0.299 * 10 + 0.587 * 100 + 0.114 * 200)
    for name, pixels in (("opaque.png", colours[..., :3]), ("clear.png", colours)):
        assert (read_image(picture(tmp_path / name, pixels)).array == luma).all()
    np.testing.assert_allclose(read_image(picture(tmp_path / "a.jpg", colours[..., :3])).array, luma, atol=1)
    deep = PIXELS.astype(np.uint16) * 250
    np.testing.assert_array_equal(read_image(picture(tmp_path / "deep.png", deep)).array[..., 0], deep.T)
    black_and_white = picture(tmp_path / "two.png", PIXELS > 60)
    np.testing.assert_array_equal(read_label(black_and_white).array[..., 0], PIXELS.T > 60)


@pytest.mark.parametrize(("most", "mode"), [(7, "P"), (255, "P"), (300, "I;16")])
def test_written_label_pictures_hold_the_values(tmp_path: Path, most: int, mode: str) -> None:
    scan = read_image(picture(tmp_path / "a.png"))
    label = np.zeros((4, 3, 1), int)
    label[3, 0], label[1, 2] = 2, most
    write_like(tmp_path / "out.png", label, scan)
    with Image.open(tmp_path / "out.png") as drawn:
        assert (drawn.size, drawn.mode) == ((4, 3), mode)
        assert drawn.getpixel((1, 2)) == most  # column, row
        if mode == "P":
            assert drawn.convert("RGB").getpixel((3, 0)) == tuple(PALETTE[1])
            assert drawn.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
    np.testing.assert_array_equal(read_label(tmp_path / "out.png").array, label)


def test_values_that_no_picture_holds_are_refused(tmp_path: Path) -> None:
    scan = read_image(picture(tmp_path / "a.png"))
    for value in (-1, 70000):
        with pytest.raises(InputError, match=r"out.png: got label values from .*, expected values from 0 to 65535"):
            write_like(tmp_path / "out.png", np.full((4, 3, 1), value), scan)
    assert not (tmp_path / "out.png").exists()


def test_a_picture_is_written_as_nifti_too(tmp_path: Path) -> None:
    scan = read_image(picture(tmp_path / "a.png"))
    stored = np.random.default_rng(0).integers(0, 256, (4, 3, 1, 2)).astype(np.uint8)
    write_like(tmp_path / "prob.nii.gz", stored, scan, scale=1 / 255)
    image = nib.load(tmp_path / "prob.nii.gz")
    np.testing.assert_allclose(image.get_fdata(), stored / 255, atol=1e-6)
    np.testing.assert_array_equal(image.affine, scan.geometry.affine)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_colours_and_jpeg_are_no_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.png: got a picture in colours \(RGB\), expected label values as grey"):
        read_label(picture(tmp_path / "a.png", mode="RGB"))
    with pytest.raises(InputError, match=r"a.jpg: got a JPEG, whose compression changes values, expected a PNG"):
        read_label(picture(tmp_path / "a.jpg"))


@pytest.mark.parametrize("damage", ["cut", "a byte", "other", "huge"])
def test_damaged_pictures_are_named(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60)).astype(np.uint8)
    path = picture(tmp_path / "bad.png", noise)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "a byte":
        content[len(content) // 2] ^= 1
    elif damage == "other":
        content = bytearray(b"GIF89a" + bytes(content[6:]))
    else:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    path.write_bytes(content)
    for read in (read_image, read_label):
        with pytest.raises(InputError, match=r"bad.png: got an unreadable file .*expected a whole PNG file; copy"):
            read(path)


def test_hdf5_holds_coronal_slices(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", data=VOXELS, label=VOXELS.astype(np.float64), weights=VOXELS)
    scan = read_image(path)
    assert nib.aff2axcodes(scan.geometry.affine) == ("A", "I", "L")
    assert scan.geometry.spacing_mm == (1, 1, 1)
    np.testing.assert_array_equal(scan.array, VOXELS)
    np.testing.assert_array_equal(read_label(path).array, VOXELS)
    # the first row of the last slice, at its left: right, anterior, superior
    assert to_ras(scan.array, scan.geometry.affine)[-1, -1, -1] == VOXELS[-1, 0, 0]
    write_like(tmp_path / "out.nii.gz", VOXELS, scan)
    np.testing.assert_array_equal(read_label(tmp_path / "out.nii.gz").array, VOXELS)
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii.gz").affine, scan.geometry.affine)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"image": VOXELS, "seg": VOXELS}, "got the datasets 'image', 'seg', expected one named 'data'; rename it"),
        ({}, "got no dataset, expected one named 'data'"),
        ({"data": VOXELS[0]}, "got 2-D (6x7), expected 3-D"),
        ({"data": VOXELS.astype("S4")}, "got 'data' of type |S4, expected numbers"),
    ],
)
def test_other_hdf5_files_are_refused(tmp_path: Path, datasets: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"a.h5: {message}")):
        read_image(hdf5(tmp_path / "a.h5", **datasets))


def test_damaged_hdf5_files_are_named(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", data=np.random.default_rng(0).normal(size=(20, 20, 20)))
    content = path.read_bytes()
    for keep in (0, 100, len(content) // 2):
        path.write_bytes(content[:keep])
        with pytest.raises(InputError, match=r"a.h5: got an unreadable file .*expected a whole HDF5 file"):
            read_image(path)
    with h5py.File(path, "w") as file:  # a terabyte that was never written must not be read
        file.create_dataset("data", (10_000, 10_000, 10_000), np.uint8, chunks=(100, 100, 100))
    with pytest.raises(InputError, match=r"a.h5: got 'data' with 0 bytes for 10{12} voxels, expected a dataset that"):
        read_image(path)


def test_hdf5_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hdf5(tmp_path / "a.h5", data=VOXELS)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"a.h5: got no h5py, .*pip install 'semiseg\[hdf5\]'"):
        read_image(path)


@pytest.mark.parametrize("kind", ["i2", "u1", "f8", "f2", "?"])
def test_numpy_holds_axial_slices_that_lie_as_pictures(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "a.npy", VOXELS.astype(kind))
    image, label = read_image(tmp_path / "a.npy"), read_label(tmp_path / "a.npy")
    assert (image.array.dtype, label.array.dtype) == (np.float32, np.int32)
    assert image.array.shape == image.geometry.shape == (7, 6, 5)
    for scan in (image, label):
        np.testing.assert_array_equal(scan.array, VOXELS.astype(kind).transpose(2, 1, 0))
        np.testing.assert_array_equal(scan.geometry.affine, PICTURE_AFFINE)
    assert nib.aff2axcodes(image.geometry.affine) == ("L", "P", "S")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (VOXELS[0], "got int16 of shape (6, 7), expected numbers as slices x height x width"),
        (VOXELS[None], "got int16 of shape (1, 5, 6, 7), expected numbers"),
        (VOXELS[:0], "got int16 of shape (0, 6, 7), expected numbers"),
        (VOXELS.astype(complex), "got complex128 of shape (5, 6, 7), expected numbers"),
        (np.array([{}], object), "got an unreadable file (Array can't be memory-mapped"),
    ],
)
def test_other_numpy_files_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    for read in (read_image, read_label):
        with pytest.raises(InputError, match=re.escape(f"a.npy: {message}")):
            read(tmp_path / "a.npy")


def test_numpy_values_beyond_the_type_or_between_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.full((2, 3, 4), 1e300))
    assert np.isinf(read_image(path).array).all()
    np.save(path, np.full((2, 3, 4), 0.5))
    with pytest.raises(InputError, match=r"a\.npy: got values that are not whole numbers, such as 0\.5 \(24 voxels\)"):
        read_label(path)
    monkeypatch.setattr("semiseg.data.images.MOST_VOXELS", 23)
    with pytest.raises(InputError, match=r"a\.npy: got shape \(2, 3, 4\), expected at most 23 voxels"):
        read_image(path)


def test_a_picture_is_laid_on_the_grid_of_another_file() -> None:
    """Turned by the directions of both; place and spacing are those of the other."""
    picture = new_scan(np.arange(6).reshape(3, 2, 1), PICTURE_AFFINE)
    sagittal_first = np.array([[0, 0.5, 0, 7], [0.5, 0, 0, 8], [0, 0, 3, 9], [0, 0, 0, 1.0]])  # towards A, R, S
    placed = on_grid(picture, Geometry((2, 3, 1), sagittal_first))
    np.testing.assert_array_equal(placed.array, picture.array[::-1, ::-1].transpose(1, 0, 2))
    assert placed.geometry.shape == (2, 3, 1)
    np.testing.assert_array_equal(placed.geometry.affine, sagittal_first)


def test_case_names_of_every_ending() -> None:
    names = [case_name(Path(f"2020.01%0{ending}")) for ending in (*ENDINGS, ".JPG", ".txt")]
    assert names == ["2020.01%0"] * (len(ENDINGS) + 1) + ["2020.01%0.txt"]
