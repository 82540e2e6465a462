"""Scans in NIfTI: every field of the header, voxels of every kind, damage of every kind."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from hypothesis import strategies as st

from campaign.case import Case, drawn
from campaign.world import SCAN, words

LABEL = "D/labels/case0.nii.gz"
PREDICTED = "PRED/case0.nii.gz"
COMMANDS = {
    "check": (SCAN, "check D --strict", 3),
    "predict": (SCAN, "predict RUN @scan --out out", 4),
    "prepare": (SCAN, "@prepare --strict", 3),
    "train": (SCAN, "train D --strict --labelled 2 @tiny --out out", 3),
    "rank": (SCAN, "rank RUN @scan --out out", 4),
    "review": (SCAN, "review RUN @scan --out out", 3),
    "check-label": (LABEL, "check D --strict", 3),
    "evaluate-label": (LABEL, "evaluate PRED D --out out", 4),
    "evaluate-prediction": (PREDICTED, "evaluate PRED D --out out", 4),
}
"""Name to the file that is damaged, the command that reads it, and how it refuses the file."""

Header = np.dtype(nib.nifti1.header_dtype)


def cases() -> Iterator[Case]:
    yield from _fields()
    yield from _bytes()
    yield from _files()


# NIfTI headers


def _fields() -> Iterator[Case]:
    """Every number in the header, and every text, takes the values that its type has at its ends."""
    commands = cycle(("predict", "check"))
    for field in Header.names or ():
        kind, shape = Header[field].base, Header[field].shape
        for index in range(int(np.prod(shape, dtype=int))):
            for label, value in _extremes(kind).items():
                edit = partial(_set_field, field=field, index=index, value=value)
                where = f"{field}-{index}" if shape else field
                yield _case(f"header/{where}/{label}", next(commands), edit, (0,))
            next(commands)  # another command for each value of the next number


def _extremes(kind: np.dtype[Any]) -> dict[str, Any]:
    if kind.kind == "S":
        return {"zero": b"", "full": b"\xff" * kind.itemsize}
    if kind.kind == "f":
        return {"0": 0, "-1": -1, "nan": np.nan, "inf": np.inf, "1e30": 1e30, "1e-30": 1e-30}
    limits = np.iinfo(kind)
    return {"0": 0, "-1": limits.max if limits.min == 0 else -1, "max": limits.max, "min": limits.min, "1": 1}


def _set_field(path: Path, field: str, index: int, value: Any) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    header = np.frombuffer(content, Header, count=1)
    header[field].reshape(-1)[index] = value
    path.write_bytes(gzip.compress(bytes(content), mtime=0))


def _bytes() -> Iterator[Case]:
    """Bytes anywhere in the header, and anywhere in the compressed stream."""
    spots = st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), min_size=1, max_size=4)
    for number, changes in enumerate(drawn(spots, 60, 1)):
        command = ("check", "predict", "train")[number % 3]
        yield _case(f"bytes/header-{number}", command, partial(_set_bytes, changes=changes), (0,))
    places = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)
    for number, shares in enumerate(drawn(places, 40, 2)):
        command = list(COMMANDS)[number % len(COMMANDS)]
        yield _case(f"bytes/stream-{number}", command, partial(_set_stream, shares=shares), (0,))


def _set_bytes(path: Path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(gzip.decompress(path.read_bytes()))
    for at, value in changes:
        content[at] = value
    path.write_bytes(gzip.compress(bytes(content), mtime=0))


def _set_stream(path: Path, shares: list[tuple[float, int]]) -> None:
    content = bytearray(path.read_bytes())
    for share, value in shares:
        content[int(share * len(content))] = value
    path.write_bytes(content)


def _case(name: str, command: str, edit: Callable[[Path], object], more: tuple[int, ...] = ()) -> Case:
    """more: exits that are well beside a refusal."""
    target, line, refusal = COMMANDS[command]
    stem = Path(target).name.removesuffix(".nii.gz")
    nonsense = partial(_same_grid, scan=target) if command == "predict" else None
    return Case(
        f"scan/{name}/{command}",
        words(line),
        (*more, refusal),
        (stem,),
        lambda here: edit(here / target),
        then=nonsense,
    )


def _same_grid(here: Path, scan: str) -> str | None:
    """A label map that does not lie where its scan lies is nonsense."""
    given, made = nib.load(here / scan), nib.load(here / "out" / Path(scan).name)
    shape = tuple(given.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if tuple(made.shape) != shape:
        return f"a label map of shape {made.shape} for a scan of shape {given.shape}"
    if not np.allclose(given.affine, made.affine, rtol=1e-4, atol=1e-4):
        return "a label map with another affine than the scan"
    values = set(np.unique(np.asanyarray(made.dataobj)).tolist())
    return f"label values {values}" if values - {0, 17} else None


# whole files


def nifti(array: np.ndarray[Any, Any], affine: Any = None, kind: Any = nib.Nifti1Image) -> bytes:
    """affine: of NIfTI-1 alone; the code of its `sform` and its rows lie at these bytes."""
    content = bytearray(kind(array, np.eye(4), dtype=array.dtype).to_bytes())
    if affine is not None:  # past nibabel, which refuses to write some
        content[254:256], content[280:328] = struct.pack("<h", 1), np.array(affine[:3], "<f4").tobytes()
    return bytes(content)


def gz(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def ball(dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    grid = np.indices((12, 14, 10)).T - np.array([6, 7, 5])
    return (100 * (np.linalg.norm(grid, axis=-1).T < 4) + np.random.default_rng(0).normal(20, 5, (12, 14, 10))).astype(
        dtype
    )


def _with(value: float, share: float = 0.01) -> bytes:
    array = ball()
    array.flat[: max(1, int(share * array.size))] = value
    return gz(nifti(array))


def _sheared(*rows: list[float]) -> bytes:
    return gz(nifti(ball(), [*rows, [0, 0, 0, 1]]))


def _huge(shape: tuple[int, ...], rest: int = 1000) -> bytes:
    """A header that promises more than follows."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header["dim"][: len(shape) + 1] = (len(shape), *shape)
    header["magic"], header["vox_offset"], header["pixdim"][:4] = b"n+1", 352, 1
    return bytes(header.binaryblock) + bytes(4 + rest)


REFUSED: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one-byte": lambda: b"\x1f",
    "no-gzip": lambda: nifti(ball()),
    "text": lambda: b"these are not the voxels you are looking for\n" * 99,
    "pickle": lambda: (
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94."
    ),
    "zip": lambda: b"PK\x03\x04" + bytes(500),
    "mgz": lambda: bytes(gz(nib.MGHImage(ball(), np.eye(4)).to_bytes())),
    "analyze-header": lambda: gz(bytes(nib.AnalyzeHeader().binaryblock)),
    "dicom": lambda: bytes(128) + b"DICM" + bytes(500),
    "header-alone": lambda: gz(nifti(ball())[:348]),
    "header-cut": lambda: gz(nifti(ball())[:200]),
    "voxels-cut": lambda: gz(nifti(ball())[:-1]),
    "stream-cut": lambda: gz(nifti(ball()))[:-200],
    "checksum-cut": lambda: gz(nifti(ball()))[:-8],
    "checksum-wrong": lambda: gz(nifti(ball()))[:-8] + bytes(8),
    "two-megabytes-behind": lambda: gz(nifti(ball()) + bytes(2**21)),
    "garbage-behind-the-stream": lambda: gz(nifti(ball())) + b"garbage",
    "bomb": lambda: gz(nifti(ball()) + bytes(2**27)),
    "bomb-in-a-header": lambda: gz(_huge((32767, 32767, 32767))),
    "promises-2-gb": lambda: gz(_huge((1024, 1024, 512))),
    "promises-2-gb-and-keeps-it-in-zeros": lambda: gz(_huge((1024, 1024, 64), 2**28)[: 2**28]),
    "film": lambda: gz(nifti(np.zeros((4, 4, 4, 9), np.float32))),
    "two-dimensions": lambda: gz(nifti(np.ones((12, 14), np.float32))),
    "seven-dimensions": lambda: gz(nifti(np.ones((2, 2, 2, 2, 2, 2, 2), np.float32))),
    "vectors": lambda: gz(nifti(np.ones((8, 8, 8, 1, 3), np.float32))),
    "no-voxel": lambda: gz(nifti(np.zeros((0, 4, 4), np.float32))),
    "complex": lambda: gz(nifti(ball(np.complex64))),
    "complex-128": lambda: gz(nifti(ball(np.complex128))),
    "rgb": lambda: gz(nifti(np.zeros((8, 8, 8), [(c, np.uint8) for c in "RGB"]))),
    "nan": lambda: _with(np.nan),
    "all-nan": lambda: _with(np.nan, 1),
    "inf": lambda: _with(np.inf),
    "minus-inf": lambda: _with(-np.inf),
    "beyond-float32": lambda: gz(nifti(np.full((8, 8, 8), 1e300))),
    "affine-nan": lambda: _sheared([1, 0, 0, np.nan], [0, 1, 0, 0], [0, 0, 1, 0]),
    "affine-inf": lambda: _sheared([np.inf, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]),
    "affine-zero": lambda: _sheared([0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
    "affine-singular": lambda: _sheared([1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]),
    "affine-nearly-singular": lambda: _sheared([1, 1, 0, 0], [0, 1e-7, 0, 0], [0, 0, 1, 0]),
    "affine-sheared-by-500": lambda: _sheared([1, 500, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]),
}
"""Files that no command may take for an image."""
TAKEN: dict[str, Callable[[], bytes]] = {
    "slice": lambda: gz(nifti(ball()[..., :1])),
    "one-voxel": lambda: gz(nifti(np.ones((1, 1, 1), np.float32))),
    "row": lambda: gz(nifti(np.ones((1, 500, 1), np.float32))),
    "thin": lambda: gz(nifti(ball()[:1])),
    "constant": lambda: gz(nifti(np.full((8, 8, 8), 7, np.float32))),
    "zeros": lambda: gz(nifti(np.zeros((8, 8, 8), np.float32))),
    "negative": lambda: gz(nifti(-ball())),
    "float32-at-its-end": lambda: _with(3e38),
    "denormal": lambda: _with(1e-42, 1),
    "trailing-axes": lambda: gz(nifti(ball()[..., None, None])),
    "nifti-2": lambda: gz(nifti(ball(), kind=nib.Nifti2Image)),
    "big-endian": lambda: gz(bytes(nib.Nifti1Image(ball(), np.eye(4), nib.Nifti1Header(endianness=">")).to_bytes())),
    "two-streams": lambda: gz(nifti(ball())[:2000]) + gz(nifti(ball())[2000:]),
    "a-little-behind": lambda: gz(nifti(ball()) + bytes(999)),
    "spacing-1e-6": lambda: gz(nifti(ball(), np.diag([1e-6, 1e-6, 1e-6, 1]))),
    "spacing-1e6": lambda: gz(nifti(ball(), np.diag([1e6, 1e6, 1e6, 1]))),
    "spacing-1e6-in-one-axis": lambda: gz(nifti(ball(), np.diag([1e6, 1, 1, 1]))),
    "spacing-1e-6-in-one-axis": lambda: gz(nifti(ball(), np.diag([1e-6, 1, 1, 1]))),
    "spacing-1e30": lambda: gz(nifti(ball(), np.diag([1e30, 1e30, 1e30, 1]))),
    "far-away": lambda: _sheared([1, 0, 0, 1e30], [0, 1, 0, -1e30], [0, 0, 1, 0]),
    "sheared-by-30-degrees": lambda: _sheared([1, 0.5, 0, 0], [0, 0.87, 0, 0], [0, 0, 1, 0]),
    "another-shape": lambda: gz(nifti(ball()[:9])),
    **{
        f"type-{np.dtype(kind).name}": partial(lambda kind: gz(nifti(ball(kind))), kind)
        for kind in (
            np.uint8,
            np.int8,
            np.int16,
            np.uint16,
            np.int32,
            np.uint32,
            np.int64,
            np.uint64,
            np.float64,
        )
    },
}
"""Unusual files that a command may take, or refuse in its own way."""


def _files() -> Iterator[Case]:
    for command in COMMANDS:
        for name, content in REFUSED.items():
            yield _case(f"file/{name}", command, partial(_write, content=content))
        for name, content in TAKEN.items():
            yield _case(f"file/{name}", command, partial(_write, content=content), (0,))
        for name, make in PLACES.items():
            # a path that is no file cannot be given to commands; one among others is a scan that fails
            yield _case(f"file/{name}", command, make, (2, 3))


def _write(path: Path, content: Callable[[], bytes]) -> None:
    path.write_bytes(content())


def _instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


PLACES: dict[str, Callable[[Path], object]] = {
    "folder": partial(_instead, make=Path.mkdir),
    "pipe": partial(_instead, make=os.mkfifo),
    "dead-link": partial(_instead, make=lambda path: path.symlink_to("nowhere.nii.gz")),
    "link-to-itself": partial(_instead, make=lambda path: path.symlink_to(path.name)),
    "link-to-zeros": partial(_instead, make=lambda path: path.symlink_to("/dev/zero")),
    "not-to-be-read": lambda path: path.chmod(0),
}
"""Something else in the place of a file."""
