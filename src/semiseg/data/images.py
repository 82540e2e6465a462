"""Scan files (NIfTI, PNG, JPEG, HDF5, NumPy) to arrays with their geometry, and back without losing the header.

A file without a geometry of its own is taken to lie as these files are usually shown:

- a picture is one slice, (width, height, 1), of 1 mm, seen as radiologists look at it: columns run towards the
  patient's left, rows from anterior to posterior;
- HDF5 holds coronal slices (slices, height, width) of 1 mm: slices run from posterior to anterior, rows from superior
  to inferior, columns towards the patient's left;
- a NumPy file holds axial slices (slices, height, width) of 1 mm, each as a picture, from inferior to superior.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from PIL import Image

from semiseg.colours import Colour, value_colours
from semiseg.errors import InputError, MissingExtra
from semiseg.files import is_there, replacing
from semiseg.types import Geometry

_FORMATS = {
    **dict.fromkeys((".nii.gz", ".nii"), "NIfTI"),
    **dict.fromkeys((".jpg", ".jpeg"), "JPEG"),
    ".png": "PNG",
    **dict.fromkeys((".h5", ".hdf5"), "HDF5"),
    ".npy": "NumPy",
}
ENDINGS = tuple(_FORMATS)
"""File endings that can be read."""

PICTURE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Of a picture, and of NumPy's slices: axis 0 (columns) towards the patient's left, axis 1 (rows) posterior, 1 mm."""
HDF5_AFFINE = np.array([[0, 0, -1.0, 0], [1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1.0]])
"""Of coronal slices x height x width: towards anterior, inferior, the patient's left, 1 mm."""
_DATASETS = {"image": "data", "label": "label"}
"""Names within an HDF5 file, those of QuickNAT."""
_DEFLATE = 1100
"""How many times smaller compression can make a file: no more than this is there to be read."""
MOST_VOXELS = 2**30
"""Of one channel of a scan, in its file and for the network: 4 GB in 32-bit."""
TRAILER = 2**20
"""Bytes that may follow the last voxel of a compressed file."""
FLATTEST = 0.1
"""Volume of the box that the axes of a voxel span, each taken as long as 1. A gantry tilt of 30 degrees leaves 0.87."""

_Array = np.ndarray[Any, np.dtype[Any]]
_Role = Literal["image", "label"]
_UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    OSError,
    OverflowError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    SyntaxError,  # Pillow's word for a damaged PNG
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class BadFile(InputError):
    """A file that cannot be used; its parts are kept apart so that a list of findings can be made of them."""

    def __init__(self, file: Path, found: str, expected: str, action: str) -> None:
        super().__init__(f"{file}: got {found}, expected {expected}; {action}")
        self.file, self.found, self.expected, self.action = file, found, expected, action


@dataclass(frozen=True, eq=False)
class Scan:
    """A three-dimensional array in file order, where it lies in space, and the header it came with.

    The header of a file that is not NIfTI is a new one.
    """

    array: _Array
    geometry: Geometry
    header: nib.Nifti1Header


def scan_ending(path: Path) -> str:
    """Which of ENDINGS a name has, whatever its case; empty for another."""
    name = Path(path).name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), "")


def case_name(path: Path) -> str:
    """File name without the ending of a scan file."""
    name = Path(path).name
    return name[: len(name) - len(scan_ending(path))]


def is_picture(path: Path) -> bool:
    """Whether a file is a PNG or JPEG, which says nothing about where it lies."""
    return _FORMATS.get(scan_ending(path)) in ("PNG", "JPEG")


def read_image(path: Path) -> Scan:
    """Intensities as float32; of NIfTI with slope and intercept applied and trailing axes of size 1 dropped.

    A picture in colours becomes grey (luma; transparency is passed over). Of HDF5, the dataset `data`. NaN and
    infinity are passed on. Raises BadFile (an InputError) if the file is missing, damaged or not 3-D, MissingExtra
    for HDF5 without h5py.
    """
    return _read(path, "image")


def read_label(path: Path) -> Scan:
    """Label values as int32; floating-point files are accepted if every value is integral.

    Of a PNG, the palette indices or grey values as stored; of HDF5, the dataset `label`. Raises BadFile (an
    InputError) as `read_image` does, for values that are not whole numbers, for colours and for JPEG.
    """
    scan = _read(path, "label")
    return Scan(_integers(path, scan.array), scan.geometry, scan.header)


def _read(path: Path, role: _Role) -> Scan:
    path = Path(path)
    kind = _FORMATS.get(scan_ending(path))
    if not is_there(path) or not path.is_file():
        raise BadFile(path, "no such file", f"a {kind or 'scan'} file", "restore it or leave the case out")
    if kind is None:
        raise BadFile(path, f"ending {path.suffix!r}", f"one of {', '.join(ENDINGS)}", "convert it to NIfTI")
    if kind == "NIfTI":
        return _read_nifti(path, role)
    if kind == "HDF5":
        return new_scan(_read_hdf5(path, role), HDF5_AFFINE)
    if kind == "NumPy":
        return new_scan(_read_numpy(path, role), PICTURE_AFFINE)
    return new_scan(_read_picture(path, role), PICTURE_AFFINE)


def _read_nifti(path: Path, role: _Role) -> Scan:
    with _reading(path):
        image: Any = nib.load(path)
        shape = tuple(map(int, image.shape))
        kind, offset = image.get_data_dtype(), int(image.dataobj.offset)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or 0 in shape:  # from the header: a film of a hundred volumes is not read to be refused
        raise _not_a_volume(path, shape)
    if kind.kind not in "iuf":
        found = "complex numbers" if kind.kind == "c" else f"voxels of type {kind}"
        raise BadFile(path, found, "one real number a voxel", "export the magnitude, or a grey image")
    content = _checked_size(path, shape, kind.itemsize, offset)
    with _reading(path), np.errstate(over="ignore"):  # beyond float32 it becomes infinite, which `check` reports
        if path.name.lower().endswith(".gz"):  # to its end, where the checksum is: nibabel stops after the last voxel
            with gzip.open(path) as stream:
                image = type(image).from_bytes(stream.read(content + TRAILER))
                if stream.read(1):
                    raise ValueError(f"more than {TRAILER} bytes behind the last voxel")
        is_image = role == "image"
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged") if is_image else np.asanyarray(image.dataobj)
        array = voxels.reshape(shape, order="F")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or not np.linalg.norm(affine[:3, :3], axis=0).all():
        raise BadFile(path, "an affine without volume", "an invertible affine", "repair the header")
    if abs(np.linalg.det(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))) < FLATTEST:
        raise BadFile(path, "axes that lie nearly in one plane", "an affine of a scan", "repair the header")
    return Scan(array, Geometry(shape, affine), image.header)


def _checked_size(path: Path, shape: tuple[int, ...], itemsize: int, offset: int) -> int:
    """The bytes of header and voxels. Raises BadFile, before any is set aside, for more than the file can hold."""
    voxels, size = math.prod(shape), path.stat().st_size
    content = offset + itemsize * voxels
    room = size * _DEFLATE + TRAILER if path.name.lower().endswith(".gz") else size
    described = f"{'x'.join(map(str, shape))} voxels of {itemsize} bytes"
    if content > room:
        raise BadFile(path, f"{size} bytes", f"a whole NIfTI file of {described}", "copy or export it again")
    if voxels > MOST_VOXELS:
        raise BadFile(path, described, f"at most {MOST_VOXELS} voxels", "cut the scan, or make it coarser")
    return content


def _read_picture(path: Path, role: _Role) -> _Array:
    if role == "label" and _FORMATS[scan_ending(path)] == "JPEG":
        raise BadFile(path, "a JPEG, whose compression changes values", "a PNG", "export the label map again")
    with _reading(path), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        content = path.read_bytes()
        Image.open(io.BytesIO(content), formats=("PNG", "JPEG")).verify()  # checksums; it leaves a spent object
        picture = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        picture.load()
    if picture.mode.startswith("I") or picture.mode in ("1", "L"):  # grey, 16 bits as they are
        pixels = np.asarray(picture)
    elif role == "image":
        pixels = np.asarray(picture.convert("RGB").convert("L"))
    elif picture.mode == "P":
        pixels = np.asarray(picture)
    else:
        found = f"a picture in colours ({picture.mode})"
        raise BadFile(path, found, "label values as grey values or palette indices", "export the label map again")
    return np.asarray(pixels.T[..., None], np.float32 if role == "image" else np.int32)


def _read_hdf5(path: Path, role: _Role) -> _Array:
    try:
        import h5py
    except ModuleNotFoundError:
        raise MissingExtra(
            f"{path}: got no h5py, expected it for HDF5 files; run `pip install 'semiseg[hdf5]'`"
        ) from None
    name = _DATASETS[role]
    with _reading(path), h5py.File(path, "r") as file:
        names = [key for key in file if isinstance(file.get(key), h5py.Dataset)]
        if name not in names:
            found = f"the datasets {', '.join(map(repr, names))}" if names else "no dataset"
            raise BadFile(path, found, f"one named {name!r}", "rename it or convert the scan to NIfTI")
        dataset = file[name]
        if dataset.ndim != 3 or 0 in dataset.shape:
            raise _not_a_volume(path, dataset.shape)
        if dataset.dtype.kind not in "biuf":
            raise BadFile(path, f"{name!r} of type {dataset.dtype}", "numbers", "export it again")
        stored = dataset.id.get_storage_size()
        if dataset.nbytes > _DEFLATE * stored:
            found = f"{name!r} with {stored} bytes for {dataset.size} voxels"
            raise BadFile(path, found, "a dataset that was written to its end", "copy or export it again")
        array: _Array = dataset[()]
    return array.astype(np.float32 if role == "image" else array.dtype if array.dtype.kind != "b" else np.uint8)


def read_array(path: Path) -> _Array:
    """The array of a NumPy file, slices x height x width, in memory no more than is looked at. Raises BadFile."""
    try:
        array: _Array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise TypeError("several arrays in one file")
    except Exception as error:  # a header is a text of Python: what is wrong with it has many names
        found = f"an unreadable file ({next(iter(str(error).splitlines()), type(error).__name__):.200})"
        raise BadFile(path, found, "a NumPy array of numbers", "copy or export it again") from None
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "biuf":
        found = f"{array.dtype} of shape {array.shape}"
        raise BadFile(path, found, "numbers as slices x height x width", "export it again")
    if array.size > MOST_VOXELS:
        found = f"shape {array.shape}"
        raise BadFile(path, found, f"at most {MOST_VOXELS} voxels", "cut the scan, or make it coarser")
    return array


def _read_numpy(path: Path, role: _Role) -> _Array:
    """Columns x rows x slices."""
    array = read_array(path).transpose(2, 1, 0)
    with np.errstate(over="ignore"):  # as of NIfTI
        return array.astype(np.float32 if role == "image" else array.dtype if array.dtype.kind != "b" else np.uint8)


def _not_a_volume(path: Path, shape: tuple[int, ...]) -> BadFile:
    return BadFile(path, f"{len(shape)}-D ({'x'.join(map(str, shape))})", "3-D", "store one volume a file")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except BadFile:
        raise
    except _UNREADABLE as error:
        found = f"an unreadable file ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        whole = f"a whole {_FORMATS[scan_ending(path)]} file"
        raise BadFile(path, found, whole, "copy or export it again") from None


def _integers(path: Path, array: _Array) -> _Array:
    if array.dtype.kind not in "uif":
        raise BadFile(path, f"voxels of type {array.dtype}", "one whole number a voxel", "export the label map again")
    if array.dtype.kind == "f":
        wrong = array[array != np.rint(array)]  # NaN differs from itself
        if wrong.size:
            found = f"values that are not whole numbers, such as {float(wrong[0]):g} ({wrong.size} voxels)"
            raise BadFile(path, found, "one whole number a voxel", "export the label map without interpolation")
    limits = np.iinfo(np.int32)
    if float(array.max()) > limits.max or float(array.min()) < limits.min:  # 16 bits do not hold the limits
        found = f"values from {array.min()} to {array.max()}"
        raise BadFile(path, found, "values that fit 32 bits", "renumber the labels")
    return array.astype(np.int32)


def new_scan(array: _Array, affine: _Array) -> Scan:
    """A scan with a header of its own, in mm."""
    header = nib.Nifti1Header()
    header.set_data_shape(array.shape)
    header.set_xyzt_units("mm")
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    return Scan(array, Geometry(array.shape, affine), header)


def write_like(
    path: Path,
    array: _Array,
    header_of: Scan,
    *,
    scale: float | None = None,
    colours: Mapping[int, Colour] | None = None,
) -> None:
    """Write `array` (file order, optionally a fourth axis) with the header of another scan, atomically.

    Affine, qform and sform with their codes, units and description are kept; intensity scaling, display range
    and intent are reset, for they describe the other scan's values. Integers and booleans get the smallest
    type that holds them, unsigned if none is negative; floating-point arrays keep their type. With `scale`
    the array is stored as given and readers multiply it by `scale` (1/255 for probabilities in 8 bits).

    A path that ends in .png gets label values of one slice as a picture with (width, height) of the array's first
    axes: the palette's index is the value, in 16-bit grey above 255. colours: label value to the colour of its class,
    for this palette; without, the classes count as numbered 0, 1, 2, ... Raises InputError for values that do not fit.
    """
    if array.shape[:3] != header_of.geometry.shape:
        raise ValueError(f"array of shape {array.shape} on a grid of shape {header_of.geometry.shape}")
    if scan_ending(path) == ".png":
        _write_picture(path, array, colours)
        return
    if scale is None and array.dtype.kind in "biu":
        array = array.astype(_smallest_type(array))
    header = header_of.header.copy()
    header.set_data_dtype(array.dtype)
    header["cal_min"] = header["cal_max"] = 0
    header.set_intent("none")
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(array, header_of.geometry.affine, header)
    image.header.set_slope_inter(1.0 if scale is None else scale, 0.0)  # set, so that nibabel does not rescale
    with replacing(path) as temporary:
        nib.save(image, temporary)


def _write_picture(path: Path, array: _Array, colours: Mapping[int, Colour] | None) -> None:
    if array.shape[2:] != (1,):
        raise ValueError(f"array of shape {array.shape} in a picture")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= 2**16:
        found, expected = f"label values from {low} to {high}", "values from 0 to 65535 for a PNG"
        raise BadFile(path, found, expected, "segment NIfTI files with this model")
    picture = Image.fromarray(np.ascontiguousarray(array[..., 0].T, np.uint8 if high < 256 else np.uint16))
    if high < 256:
        shown = value_colours({str(value): value for value in range(256)}) if colours is None else colours
        palette = np.array([shown.get(value, (0, 0, 0)) for value in range(256)], np.uint8)
        picture.putpalette(palette.tobytes())  # of mode L, it makes one of mode P with the same values
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def _smallest_type(array: _Array) -> np.dtype[Any]:
    low, high = int(array.min()), int(array.max())
    types = (np.int16, np.int32) if low < 0 else (np.uint8, np.uint16, np.uint32)
    for kind in types:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    raise ValueError(f"label values {low} to {high} do not fit 32 bits")


def on_grid(picture: Scan, geometry: Geometry) -> Scan:
    """A picture, turned to the axes of another file of the same slice, and lying where that one does.

    For comparing the two: of its own geometry, only the directions of a picture's axes mean anything.
    """
    array = from_ras(to_ras(picture.array, picture.geometry.affine), geometry.affine)
    return Scan(array, Geometry(array.shape, geometry.affine), picture.header)


def to_ras(array: _Array, affine: _Array) -> _Array:
    """A view with the last three axes running to the right, anterior and superior, as closely as they can.

    Leading axes (channels, classes) stay. Nothing is interpolated. Contiguity is lost.
    """
    order, flipped = _orientation(affine)
    lead = array.ndim - 3
    turned = array.transpose(*range(lead), *(lead + axis for axis in order))
    return np.asarray(turned[_flips(flipped)])


def from_ras(array: _Array, affine: _Array) -> _Array:
    """The inverse of `to_ras`: a view in file order. `affine` is the file's."""
    order, flipped = _orientation(affine)
    lead = array.ndim - 3
    back = np.argsort(order)
    unflipped = np.asarray(array[_flips(flipped)])
    return unflipped.transpose(*range(lead), *(lead + int(axis) for axis in back))


def ras_spacing(geometry: Geometry) -> tuple[float, float, float]:
    """Voxel size in mm along the axes of the array that `to_ras` returns."""
    order, _ = _orientation(geometry.affine)
    spacing = geometry.spacing_mm
    return (spacing[order[0]], spacing[order[1]], spacing[order[2]])


def _orientation(affine: _Array) -> tuple[list[int], list[bool]]:
    """For each RAS axis: which file axis lies closest, and whether it runs the other way."""
    orientation = nib.orientations.io_orientation(affine)
    order = [int(axis) for axis in np.argsort(orientation[:, 0])]
    return order, [bool(orientation[axis, 1] < 0) for axis in order]


def _flips(flipped: list[bool]) -> tuple[Any, ...]:
    return (..., *(slice(None, None, -1 if flip else 1) for flip in flipped))
