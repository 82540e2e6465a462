"""Scan files (.nii, .nii.gz) to arrays with their geometry, and back without losing the header."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from semiseg.errors import InputError
from semiseg.files import replacing
from semiseg.types import Geometry

ENDINGS = (".nii.gz", ".nii")
"""File endings that can be read."""

_Array = np.ndarray[Any, np.dtype[Any]]
_UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    zlib.error,
)


class BadFile(InputError):
    """A file that cannot be used; its parts are kept apart so that a list of findings can be made of them."""

    def __init__(self, file: Path, found: str, expected: str, action: str) -> None:
        super().__init__(f"{file}: got {found}, expected {expected}; {action}")
        self.file, self.found, self.expected, self.action = file, found, expected, action


@dataclass(frozen=True, eq=False)
class Scan:
    """A three-dimensional array in file order, where it lies in space, and the header it came with."""

    array: _Array
    geometry: Geometry
    header: nib.Nifti1Header


def case_name(path: Path) -> str:
    """File name without .nii or .nii.gz."""
    name = Path(path).name
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def read_image(path: Path) -> Scan:
    """Intensities as float32 with slope and intercept applied; trailing axes of size 1 are dropped.

    NaN and infinity are passed on. Raises BadFile (an InputError) if the file is missing, damaged or not 3-D.
    """
    return _read(path, lambda image: image.get_fdata(dtype=np.float32, caching="unchanged"))


def read_label(path: Path) -> Scan:
    """Label values as int32; floating-point files are accepted if every value is integral.

    Raises BadFile (an InputError) as `read_image` does, and for values that are not whole numbers.
    """
    scan = _read(path, lambda image: np.asanyarray(image.dataobj))
    return Scan(_integers(path, scan.array), scan.geometry, scan.header)


def _read(path: Path, voxels: Callable[[Any], _Array]) -> Scan:
    path = Path(path)
    if not path.is_file():
        raise BadFile(path, "no such file", "a NIfTI file", "restore it or leave the case out")
    if not path.name.endswith(ENDINGS):
        raise BadFile(path, f"ending {path.suffix!r}", "a .nii or .nii.gz file", "convert it to NIfTI")
    with _reading(path):
        image: Any = nib.load(path)
        shape = tuple(map(int, image.shape))
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or 0 in shape:  # from the header: a film of a hundred volumes is not read to be refused
        raise BadFile(path, f"{len(shape)}-D ({'x'.join(map(str, shape))})", "3-D", "store one volume a file")
    with _reading(path), np.errstate(over="ignore"):  # beyond float32 it becomes infinite, which `check` reports
        if path.name.endswith(".gz"):  # to its end, where the checksum is: nibabel stops after the last voxel
            with gzip.open(path) as stream:
                image = type(image).from_bytes(stream.read())
        array = voxels(image).reshape(shape, order="F")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise BadFile(path, "an affine without volume", "an invertible affine", "repair the header")
    return Scan(array, Geometry(shape, affine), image.header)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        found = f"an unreadable file ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        raise BadFile(path, found, "a whole NIfTI file", "copy or export it again") from None


def _integers(path: Path, array: _Array) -> _Array:
    if array.dtype.kind not in "uif":
        raise BadFile(path, f"voxels of type {array.dtype}", "one whole number a voxel", "export the label map again")
    if array.dtype.kind == "f":
        wrong = array[array != np.rint(array)]  # NaN differs from itself
        if wrong.size:
            found = f"values that are not whole numbers, such as {float(wrong[0]):g} ({wrong.size} voxels)"
            raise BadFile(path, found, "one whole number a voxel", "export the label map without interpolation")
    limits = np.iinfo(np.int32)
    if array.max() > limits.max or array.min() < limits.min:
        found = f"values from {array.min()} to {array.max()}"
        raise BadFile(path, found, "values that fit 32 bits", "renumber the labels")
    return array.astype(np.int32)


def write_like(path: Path, array: _Array, header_of: Scan, *, scale: float | None = None) -> None:
    """Write `array` (file order, optionally a fourth axis) with the header of another scan, atomically.

    Affine, qform and sform with their codes, units and description are kept; intensity scaling, display range
    and intent are reset, for they describe the other scan's values. Integers and booleans get the smallest
    type that holds them, unsigned if none is negative; floating-point arrays keep their type. With `scale`
    the array is stored as given and readers multiply it by `scale` (1/255 for probabilities in 8 bits).
    """
    if array.shape[:3] != header_of.geometry.shape:
        raise ValueError(f"array of shape {array.shape} on a grid of shape {header_of.geometry.shape}")
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


def _smallest_type(array: _Array) -> np.dtype[Any]:
    low, high = int(array.min()), int(array.max())
    types = (np.int16, np.int32) if low < 0 else (np.uint8, np.uint16, np.uint32)
    for kind in types:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    raise ValueError(f"label values {low} to {high} do not fit 32 bits")


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
