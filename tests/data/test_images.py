"""Reading and writing scans: values, geometry, headers, orientation, and damaged files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.scans import write_nifti

from semiseg.data.images import case_name, from_ras, ras_spacing, read_image, read_label, to_ras, write_like
from semiseg.errors import InputError
from semiseg.types import Geometry

SHAPE = (5, 6, 7)
VOXELS = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def rotation(axis: int, deg: float) -> np.ndarray:
    matrix = np.eye(3)
    first, second = [other for other in range(3) if other != axis]
    cos, sin = np.cos(np.deg2rad(deg)), np.sin(np.deg2rad(deg))
    matrix[[first, first, second, second], [first, second, first, second]] = cos, -sin, sin, cos
    return matrix


AFFINES = {
    "ras": np.diag([1.0, 2.0, 3.0, 1.0]),
    "lps": np.diag([-1.0, -2.0, 3.0, 1.0]),
    "permuted": np.array([[0, 0, 3.0, 5], [1.0, 0, 0, 6], [0, -2.0, 0, 7], [0, 0, 0, 1]]),
    "oblique": nib.affines.from_matvec(rotation(0, 20) @ rotation(2, -15) @ np.diag([1, -2, 3.0]), [4, 5, 6]),
}


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii.gz")
    scan = read_image(tmp_path / "a.nii.gz")
    assert scan.array.dtype == np.float32
    np.testing.assert_array_equal(scan.array, VOXELS * 0.5 + 10)


def test_trailing_singleton_axes_are_dropped(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", VOXELS[..., None, None])
    assert read_image(path).array.shape == read_label(path).array.shape == SHAPE


@pytest.mark.parametrize("array", [np.zeros((4, 5), np.int16), np.zeros((4, 5, 6, 2), np.int16)])
def test_other_dimensions_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", array)
    with pytest.raises(InputError, match=rf"a\.nii\.gz: got {array.ndim}-D \(.*expected 3-D; "):
        read_image(path)


def test_integral_float_labels_are_accepted_and_others_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", VOXELS.astype(np.float32))
    label = read_label(path).array
    assert label.dtype == np.int32
    np.testing.assert_array_equal(label, VOXELS)
    for bad in (0.5, np.nan, np.inf):
        values = VOXELS.astype(np.float32)
        values[1, 2, 3] = bad
        with pytest.raises(InputError, match=r"b\.nii\.gz: got values (that are not whole numbers|from 0.0 to inf)"):
            read_label(write_nifti(tmp_path / "b.nii.gz", values))


def test_non_finite_intensities_are_passed_on(tmp_path: Path) -> None:
    values = VOXELS.astype(np.float64)
    values[0, 0, :3] = np.nan, np.inf, 1e300
    array = read_image(write_nifti(tmp_path / "a.nii.gz", values)).array
    assert np.isnan(array[0, 0, 0])
    assert np.isinf(array[0, 0, 1:3]).all()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("keep", [0, 10, 300, 380])
def test_truncated_files_are_named(tmp_path: Path, ending: str, keep: int) -> None:
    rng = np.random.default_rng(0)
    path = write_nifti(tmp_path / f"cut{ending}", rng.integers(0, 30000, SHAPE).astype(np.int16))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"cut{ending}: got .*expected a whole NIfTI file"):
        read_image(path)


@pytest.mark.parametrize("damage", ["a byte in the middle", "the checksum at the end"])
def test_damage_within_a_compressed_file_is_seen(tmp_path: Path, damage: str) -> None:
    # not compressible, so that a changed byte changes voxels and nothing else that would be noticed
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 40)).astype(np.uint8)
    path = write_nifti(tmp_path / "damaged.nii.gz", noise)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if damage == "a byte in the middle" else -5] ^= 1
    path.write_bytes(content)
    for read in (read_image, read_label):
        with pytest.raises(InputError, match=r"damaged.nii.gz: got an unreadable file .*expected a whole NIfTI file"):
            read(path)


def test_the_header_says_that_a_film_is_no_volume(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "film.nii.gz", np.zeros((*SHAPE, 3), np.int16))
    cut = tmp_path / "cut.nii"
    cut.write_bytes(gzip.decompress(path.read_bytes())[:400])  # so no voxel can have been read
    with pytest.raises(InputError, match=r"cut.nii: got 4-D \(5x6x7x3\), expected 3-D; store one volume a file"):
        read_image(cut)


def test_other_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.nii.gz: got no such file"):
        read_image(tmp_path / "none.nii.gz")
    (tmp_path / "text.nii.gz").write_text("hello")
    with pytest.raises(InputError, match=r"text.nii.gz: got an unreadable file"):
        read_label(tmp_path / "text.nii.gz")
    (tmp_path / "zip.nii.gz").write_bytes(gzip.compress(b"hello" * 100))
    with pytest.raises(InputError, match=r"zip.nii.gz: got an unreadable file"):
        read_image(tmp_path / "zip.nii.gz")
    (tmp_path / "a.mha").write_bytes(b"")
    with pytest.raises(InputError, match=r"a.mha: got ending '.mha', expected one of .nii.gz, .nii, .*; convert"):
        read_image(tmp_path / "a.mha")
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match=r"rgb.nii.gz: got voxels of type .*expected one real number a voxel"):
        read_image(write_nifti(tmp_path / "rgb.nii.gz", colour))


def test_an_affine_without_volume_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, np.eye(4))
    image.header["srow_z"] = 0
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    nib.save(nib.Nifti1Image(VOXELS, None, image.header), tmp_path / "flat.nii.gz")
    with pytest.raises(InputError, match=r"flat.nii.gz: got an affine without volume"):
        read_image(tmp_path / "flat.nii.gz")


def scan_with_header(path: Path, codes: tuple[int, int] = (1, 2)) -> nib.Nifti1Header:
    image = nib.Nifti1Image(VOXELS, AFFINES["oblique"])
    image.set_qform(AFFINES["oblique"], code=codes[0])
    shifted = AFFINES["oblique"].copy()
    shifted[0, 3] += 5  # qform and sform that disagree must both survive
    image.set_sform(shifted, code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"scanner 3"
    image.header["cal_max"] = 1000
    image.header.set_slope_inter(2, 3)
    nib.save(image, path)
    return nib.load(path).header


@pytest.mark.parametrize("codes", [(1, 2), (1, 0), (0, 4), (0, 0)])
def test_written_label_keeps_the_header(tmp_path: Path, codes: tuple[int, int]) -> None:
    before = scan_with_header(tmp_path / "in.nii.gz", codes)
    scan = read_image(tmp_path / "in.nii.gz")
    write_like(tmp_path / "out.nii.gz", np.where(VOXELS > 3, 200, 0), scan)
    after = nib.load(tmp_path / "out.nii.gz").header
    qform = ["qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"]
    for key in [*qform, "sform_code", "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units", "descrip"]:
        np.testing.assert_array_equal(after[key], before[key], err_msg=key)
    assert after["cal_max"] == 0
    back = read_label(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(back.geometry.affine, scan.geometry.affine)
    np.testing.assert_array_equal(back.array, np.where(VOXELS > 3, 200, 0))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in.nii.gz", "out.nii.gz"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0, 255), "uint8"),
        ((0, 256), "uint16"),
        ((0, 70000), "uint32"),
        ((-1, 5), "int16"),
        ((-1, 40000), "int32"),
    ],
)
def test_smallest_type(tmp_path: Path, values: tuple[int, int], expected: str) -> None:
    scan = read_image(write_nifti(tmp_path / "in.nii", VOXELS))
    array = np.full(SHAPE, values[0], np.int64)
    array[0, 0, 0] = values[1]
    write_like(tmp_path / "out.nii.gz", array, scan)
    image = nib.load(tmp_path / "out.nii.gz")
    assert image.get_data_dtype() == np.dtype(expected)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), array)


def test_float_probabilities_and_nifti2(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(VOXELS, AFFINES["lps"]), tmp_path / "in.nii.gz")
    scan = read_image(tmp_path / "in.nii.gz")
    write_like(tmp_path / "float.nii.gz", scan.array / 7, scan)
    np.testing.assert_array_equal(read_image(tmp_path / "float.nii.gz").array, scan.array / 7)
    stored = np.random.default_rng(0).integers(0, 256, (*SHAPE, 2)).astype(np.uint8)
    write_like(tmp_path / "prob.nii.gz", stored, scan, scale=1 / 255)
    image = nib.load(tmp_path / "prob.nii.gz")
    assert isinstance(image, nib.Nifti2Image)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.get_fdata(), stored / 255, atol=1e-6)
    np.testing.assert_array_equal(image.affine, AFFINES["lps"])


@pytest.mark.parametrize("kind", AFFINES)
@pytest.mark.parametrize("lead", [(), (2,)])
def test_ras_and_back(kind: str, lead: tuple[int, ...]) -> None:
    affine = AFFINES[kind]
    array = np.random.default_rng(1).normal(size=(*lead, *SHAPE))
    ras = to_ras(array, affine)
    np.testing.assert_array_equal(from_ras(ras, affine), array)
    expected = nib.as_closest_canonical(nib.Nifti1Image(np.moveaxis(array, 0, -1) if lead else array, affine))
    moved = np.moveaxis(ras, 0, -1) if lead else ras
    np.testing.assert_array_equal(moved, expected.get_fdata())
    geometry = Geometry(SHAPE, affine)
    np.testing.assert_allclose(ras_spacing(geometry), np.linalg.norm(expected.affine[:3, :3], axis=0))


def test_colours_are_no_labels(tmp_path: Path) -> None:
    colours = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    path = write_nifti(tmp_path / "rgb.nii.gz", colours)
    for read in (read_image, read_label):
        with pytest.raises(InputError, match=r"rgb\.nii\.gz: got "):
            read(path)


def test_case_name() -> None:
    assert case_name(Path("x/a.b.nii.gz")) == "a.b"
    assert case_name(Path("a.nii")) == "a"


@pytest.mark.realdata
def test_real_scan_round_trip(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "hippocampus" / "Dataset004_Hippocampus"
    label = next(iter(sorted((folder / "labelsTr").glob("*.nii.gz"))))
    scan = read_label(label)
    write_like(tmp_path / "out.nii.gz", scan.array, scan)
    back = read_label(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(back.array, scan.array)
    np.testing.assert_array_equal(back.geometry.affine, scan.geometry.affine)


def test_complex_images_are_refused_not_halved(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "kspace.nii.gz", (VOXELS + 1j).astype(np.complex64))
    for read in (read_image, read_label):
        with pytest.raises(InputError, match=r"kspace\.nii\.gz: got complex numbers, expected one real number a voxel"):
            read(path)


@pytest.mark.parametrize("shear", [500.0, 1e7])
def test_axes_in_one_plane_are_no_scan(tmp_path: Path, shear: float) -> None:
    """A spacing of 500 mm would ask for an enormous grid."""
    affine = np.eye(4)
    affine[0, 1] = shear
    with pytest.raises(InputError, match=r"got axes that lie nearly in one plane, expected an affine of a scan"):
        read_image(write_nifti(tmp_path / "sheared.nii.gz", VOXELS, affine))
    affine[0, 1] = np.tan(np.deg2rad(30))  # a tilted gantry
    assert read_image(write_nifti(tmp_path / "tilted.nii.gz", VOXELS, affine)).array.shape == VOXELS.shape


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_header_that_promises_more_than_the_file_holds_sets_no_memory_aside(tmp_path: Path, ending: str) -> None:
    path = write_nifti(tmp_path / f"bomb{ending}", VOXELS.astype(np.int16))
    content = bytearray(gzip.decompress(path.read_bytes()) if ending == ".nii.gz" else path.read_bytes())
    struct.pack_into("<8h", content, 40, 3, 32767, 32767, 32767, 1, 1, 1, 1)
    path.write_bytes(gzip.compress(bytes(content)) if ending == ".nii.gz" else bytes(content))
    message = rf"bomb{ending}: got \d+ bytes, expected a whole NIfTI file of 32767x32767x32767 voxels"
    with pytest.raises(InputError, match=message):
        read_image(path)


def test_more_voxels_than_a_scan_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semiseg.data.images.MOST_VOXELS", VOXELS.size - 1)
    with pytest.raises(InputError, match=rf"got .* voxels of \d bytes, expected at most {VOXELS.size - 1} voxels; cut"):
        read_image(write_nifti(tmp_path / "large.nii.gz", VOXELS))
    monkeypatch.setattr("semiseg.data.images.MOST_VOXELS", VOXELS.size)
    read_image(tmp_path / "large.nii.gz")


def test_a_compressed_file_with_much_behind_its_voxels_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "long.nii.gz", VOXELS)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(2**20)))
    read_image(path)
    path.write_bytes(gzip.compress(content + bytes(2**21)))
    with pytest.raises(InputError, match=r"more than 1048576 bytes behind the last voxel"):
        read_image(path)


def test_a_voxel_offset_that_is_no_number_is_that_files_fault(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "far.nii", VOXELS)
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 108, float("inf"))
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"far\.nii: got an unreadable file"):
        read_image(path)
