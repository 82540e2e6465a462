"""Scans in other formats: PNG, JPEG, HDF5, and those that are none of ours; alone, and in a folder."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
from PIL import Image

from campaign.case import Case
from campaign.scans import ball, gz, nifti
from campaign.world import words


def grey(kind: Any = np.uint8) -> np.ndarray[Any, Any]:
    return (np.indices((16, 18)).sum(0) * 7 % 256).astype(kind)


def picture(array: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=kind)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def claims(width: int, height: int) -> bytes:
    """A PNG whose header says how large it is, and that has nearly no content."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def with_bomb() -> bytes:
    """A text of 64 MB, compressed, behind the header."""
    png = picture(grey())
    return png[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26))) + png[33:]


def npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def edited(at: int, value: bytes) -> bytes:
    content = bytearray(nifti(ball()))
    content[at : at + len(value)] = value
    return bytes(content)


FILES: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "grey.png": (lambda: picture(grey()), (0,)),
    "grey-16.png": (lambda: picture(grey(np.uint16)), (0,)),
    "rgb.png": (lambda: picture(np.stack([grey()] * 3, -1)), (0,)),
    "rgba.png": (lambda: picture(np.stack([grey()] * 4, -1)), (0,)),
    "one-bit.png": (lambda: picture(grey() > 99), (0,)),
    "one-pixel.png": (lambda: picture(grey()[:1, :1]), (0,)),
    "one-row.png": (lambda: picture(grey()[:1]), (0,)),
    "empty.png": (lambda: b"", (4,)),
    "cut.png": (lambda: picture(grey())[:-60], (4,)),
    "cut-in-the-header.png": (lambda: picture(grey())[:20], (4,)),
    "wrong-checksum.png": (lambda: picture(grey()).replace(b"IDAT", b"IDAU", 1), (4,)),
    "no-pixels.png": (lambda: claims(0, 0), (4,)),
    "claims-60000-squared.png": (lambda: claims(60000, 60000), (4,)),
    "claims-2-to-the-31.png": (lambda: claims(2**31 - 1, 2**31 - 1), (4,)),
    "bomb.png": (with_bomb, (0, 4)),
    "gif.png": (lambda: picture(grey(), "GIF"), (4,)),
    "bmp.png": (lambda: picture(grey(), "BMP"), (4,)),
    "tiff.png": (lambda: picture(grey(), "TIFF"), (4,)),
    "nifti.png": (lambda: nifti(ball()), (4,)),
    "jpeg.jpg": (lambda: picture(grey(), "JPEG"), (0,)),
    "cut.jpeg": (lambda: picture(grey(), "JPEG")[:-300], (4,)),
    "png.jpg": (lambda: picture(grey()), (0, 4)),
    "empty.JPG": (lambda: b"", (4,)),
    "tiff.tif": (lambda: picture(grey(), "TIFF"), (3,)),
    "volume.npy": (lambda: npy(ball()), (0,)),
    "slice.npy": (lambda: npy(grey()), (0, 4)),
    "cut.npy": (lambda: npy(ball())[:-9], (4,)),
    "header-alone.npy": (lambda: npy(ball())[:99], (4,)),
    "archive.npy": (lambda: b"PK\x03\x04" + bytes(200), (4,)),
    "texts.npy": (lambda: npy(np.full((4, 4, 4), "x")), (4,)),
    "complex.npy": (lambda: npy(ball(np.complex64)), (4,)),
    "nan.npy": (lambda: npy(np.full((4, 4, 4), np.nan)), (4,)),
    "huge.npy": (lambda: npy(ball()).replace(b"(12, 14, 10)", b"(99999,9999,9)"), (4,)),
    "pickle.npy": (lambda: npy(np.array([{}], object)), (4,)),
    "freesurfer.mgz": (lambda: gz(nib.MGHImage(ball(), np.eye(4)).to_bytes()), (3,)),
    "analyze.hdr": (lambda: bytes(nib.AnalyzeHeader().binaryblock), (3,)),
    "plain.nii": (lambda: nifti(ball()), (0,)),
    "cut.nii": (lambda: nifti(ball())[:-1], (4,)),
    "compressed.nii": (lambda: gz(nifti(ball())), (4,)),
    "offset-inf.nii": (lambda: edited(108, struct.pack("<f", np.inf)), (4,)),
    "offset-minus-1e9.nii": (lambda: edited(108, struct.pack("<f", -1e9)), (4,)),
    "magic-of-a-pair.nii": (lambda: edited(344, b"ni1\0"), (0, 4)),
    "empty.h5": (lambda: b"", (4,)),
    "text.h5": (lambda: b"not one", (4,)),
}
"""Name to content, and how `predict` ends."""


def full(**more: Any) -> Callable[[h5py.File], object]:
    return lambda file: file.create_dataset("data", **more)


def link(target: Any) -> Callable[[h5py.File], object]:
    return lambda file: file.__setitem__("data", target)


HDF5: dict[str, tuple[Callable[[h5py.File], object], tuple[int, ...]]] = {
    "volume": (full(data=ball()), (0,)),
    "integers": (full(data=ball(np.int16)), (0,)),
    "booleans": (full(data=ball() > 50), (0,)),
    "no-dataset": (lambda file: file.create_group("data"), (4,)),
    "another-name": (lambda file: file.create_dataset("image", data=ball()), (4,)),
    "two-dimensions": (full(data=ball()[0]), (4,)),
    "a-number": (full(data=3.0), (4,)),
    "a-text": (full(data="text"), (4,)),
    "texts": (full(data=np.full((4, 4, 4), b"x")), (4,)),
    "complex": (full(data=ball(np.complex64)), (4,)),
    "compound": (full(data=np.zeros((4, 4, 4), "f4,i2")), (4,)),
    "ragged": (full(shape=(4, 4, 4), dtype=h5py.vlen_dtype(np.int32)), (4,)),
    "no-voxel": (full(shape=(0, 4, 4), dtype="f4"), (4,)),
    "nan": (full(data=np.full((4, 4, 4), np.nan)), (4,)),
    "never-written": (full(shape=(2000, 2000, 2000), dtype="f4", chunks=True), (4,)),
    "much-in-little": (full(data=np.zeros((2, 512, 512), np.uint8), compression="gzip"), (0,)),
    "link-to-another-file": (link(h5py.ExternalLink("D/secret.h5", "/data")), (4,)),
    "dead-link": (link(h5py.SoftLink("/nowhere")), (4,)),
    "link-to-itself": (link(h5py.SoftLink("/data")), (4,)),
    "storage-in-another-file": (full(shape=(4, 4, 4), dtype="f4", external=[("secret.raw", 0, 256)]), (0, 4)),
}
"""Name to what is written, and how `predict` ends."""


def cases() -> Iterator[Case]:
    for name, (content, exits) in FILES.items():
        edit = partial(_write, name=name, content=content)
        names = (Path(name).stem, "in")
        yield Case(f"picture/{name}/predict", words(f"predict RUN in/{name} --out out"), exits, names, edit)
        # in a folder, what has no ending of a scan is passed over
        yield Case(f"picture/{name}/rank", words("rank RUN in --out out"), exits, names, edit)
    for name, (fill, exits) in HDF5.items():
        line = words("predict RUN in/x.h5 --out out")
        yield Case(f"hdf5/{name}/predict", line, exits, ("x.h5", "x"), partial(_write_hdf5, fill=fill))


def _write(here: Path, name: str, content: Callable[[], bytes]) -> None:
    (here / "in").mkdir()
    (here / "in" / name).write_bytes(content())


def _write_hdf5(here: Path, fill: Callable[[h5py.File], object]) -> None:
    (here / "in").mkdir()
    with h5py.File(here / "in" / "x.h5", "w") as file:
        fill(file)
