"""Files of weights: safetensors whose header lies, whose tensors are of other names, types, shapes and values."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from campaign.case import ANY, REFUSED, Case, drawn
from campaign.documents import ODD, changed
from campaign.world import words

FILES = {
    "model/predict": ("RUN/model/model.safetensors", "predict RUN @scan --out out"),
    "last/predict": ("RUN/checkpoints/last.safetensors", "predict RUN @scan --checkpoint last --out out"),
    "best/predict": ("RUN/checkpoints/best.safetensors", "predict RUN @scan --checkpoint best --out out"),
    "last/resume": ("HALF/checkpoints/last.safetensors", "@train --resume --out HALF"),
    "last/rank": ("RUN/checkpoints/last.safetensors", "rank RUN @scan --out out"),
    "last/export": ("RUN/checkpoints/last.safetensors", "export RUN --checkpoint last --out out"),
    "bundle/init": ("BUNDLE/model.safetensors", "train D --init BUNDLE --plan plan.json --steps 1 --out out"),
}
"""Name to a file of weights and the command line that reads it."""

Tensors = dict[str, torch.Tensor]


def _first(tensors: Tensors, kind: str = "") -> str:
    return next(name for name, value in tensors.items() if kind in name and value.ndim)


def _set(make: Callable[[torch.Tensor], torch.Tensor], which: str = "first") -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        names = (
            [name for name in tensors if tensors[name].ndim]
            if which == "all"
            else [_first(tensors, "" if which == "first" else which)]
        )
        return {name: make(value) if name in names else value for name, value in tensors.items()}

    return change


def _with_nan(tensor: torch.Tensor) -> torch.Tensor:
    changed = tensor.clone()
    changed.view(-1)[0] = torch.nan
    return changed


TENSORS: dict[str, tuple[Callable[[Tensors], Tensors], tuple[int, ...]]] = {
    "none": (lambda _: {}, REFUSED),
    "one-gone": (lambda tensors: {name: value for name, value in tensors.items() if name != _first(tensors)}, REFUSED),
    "one-more": (lambda tensors: {**tensors, f"{_first(tensors)}.more": torch.ones(3)}, REFUSED),
    "renamed": (lambda tensors: {f"x{name}": value for name, value in tensors.items()}, REFUSED),
    "odd-name": (lambda tensors: {**tensors, "../../evil\n": torch.ones(3)}, ANY),
    "no-name": (lambda tensors: {**tensors, "": torch.ones(3)}, ANY),
    "long-name": (lambda tensors: {**tensors, "method." + "x" * 10**5: torch.ones(3)}, ANY),
    "one-nan": (_set(_with_nan), REFUSED),
    "all-nan": (_set(lambda value: torch.full_like(value, torch.nan), "all"), REFUSED),
    "inf": (_set(lambda value: torch.full_like(value, torch.inf)), REFUSED),
    "zeros": (_set(torch.zeros_like, "all"), (0, 7)),
    "huge": (_set(lambda value: torch.full_like(value, 1e38), "all"), (0, 3, 4, 7)),
    "int64": (_set(lambda value: value.long(), "all"), REFUSED),
    "bool": (_set(lambda value: value > 0, "all"), REFUSED),
    "complex": (_set(lambda value: value.to(torch.complex64), "all"), REFUSED),
    "uint8": (_set(lambda value: value.to(torch.uint8)), REFUSED),
    "float16": (_set(lambda value: value.half(), "all"), (0, *REFUSED)),
    "bfloat16": (_set(lambda value: value.bfloat16(), "all"), (0, *REFUSED)),
    "float64": (_set(lambda value: value.double(), "all"), (0, *REFUSED)),
    "float8": (_set(lambda value: value.to(torch.float8_e4m3fn), "all"), ANY),
    "flat": (_set(lambda value: value.reshape(-1)), (0, *REFUSED)),
    "transposed": (_set(lambda value: value.transpose(0, -1).contiguous(), "weight"), (0, *REFUSED)),
    "empty": (_set(lambda value: value[:0].clone()), REFUSED),
    "number": (_set(lambda _: torch.tensor(1.0)), REFUSED),
    "wider": (_set(lambda value: torch.cat([value, value])), REFUSED),
}
"""What becomes of the tensors."""
OF_OPTIMISERS: dict[str, Callable[[Tensors], Tensors]] = {
    "gone": lambda tensors: {name: value for name, value in tensors.items() if not name.startswith("optimiser")},
    "half-gone": lambda tensors: {name: value for name, value in tensors.items() if not name.endswith("exp_avg")},
    "one-gone": lambda tensors: {name: value for name, value in tensors.items() if not name.startswith("optimiser.0.")},
    "another-shape": _set(lambda _: torch.ones(3), "exp_avg"),
    "larger": _set(lambda _: torch.ones(4096), "exp_avg"),
    "index-that-is-none": lambda tensors: {**tensors, "optimiser.abc.exp_avg": torch.ones(3)},
    "index-9999": lambda tensors: {**tensors, "optimiser.9999.exp_avg": torch.ones(3)},
    "no-index": lambda tensors: {**tensors, "optimiser.": torch.ones(3)},
    "another-kind": lambda tensors: {**tensors, "optimiser.0.momentum_buffer": torch.ones(3)},
    "nan": _set(_with_nan, "exp_avg"),
    "integers": _set(lambda value: value.long(), "exp_avg"),
}


def _reheaded(content: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(change(header)).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _first_entry(**values: Any) -> Callable[[bytes], bytes]:
    def change(header: dict[str, Any]) -> Any:
        name = next(name for name in header if name != "__metadata__")
        return {**header, name: {**header[name], **values}}

    return lambda content: _reheaded(content, change)


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "one-byte": lambda content: content[:1],
    "length-alone": lambda content: content[:8],
    "half": lambda content: content[: len(content) // 2],
    "one-byte-short": lambda content: content[:-1],
    "longer": lambda content: content + b"more",
    "zeros": lambda content: bytes(len(content)),
    "length-0": lambda content: bytes(8) + content[8:],
    "length-huge": lambda content: b"\xff" * 8 + content[8:],
    "length-100-mb": lambda content: struct.pack("<Q", 10**8) + content[8:],
    "no-json": lambda content: content[:8] + b"\xfe" * 99 + content[107:],
    "nested": lambda _: struct.pack("<Q", 10**5) + b"[" * 10**5,
    "list": lambda content: _reheaded(content, lambda _: []),
    "metadata-list": lambda content: _reheaded(content, lambda header: {**header, "__metadata__": [1]}),
    "metadata-number": lambda content: _reheaded(content, lambda header: {**header, "__metadata__": {"facts": 1}}),
    "no-metadata": lambda content: _reheaded(
        content, lambda header: {k: v for k, v in header.items() if k != "__metadata__"}
    ),
    "unknown-type": _first_entry(dtype="F99"),
    "negative-shape": _first_entry(shape=[-1, 4]),
    "huge-shape": _first_entry(shape=[2**40, 2**40]),
    "offsets-behind-the-end": _first_entry(data_offsets=[2**40, 2**41]),
    "offsets-turned-round": _first_entry(data_offsets=[8, 0]),
    "pickle": lambda _: pickle.dumps({"a": 1}),
    "torch": lambda _: b"PK\x03\x04" + bytes(200),
}


def cases() -> Iterator[Case]:
    for name in FILES:
        # behind a damaged last checkpoint the previous one is used
        spare = name.startswith("last/") and name != "last/resume"
        for label, change in BYTES.items():
            unread = label in ("no-metadata", "metadata-number") and name.startswith(("model", "bundle"))
            exits = (0, *REFUSED) if unread or spare else REFUSED
            yield _case(f"{name}/bytes-{label}", name, partial(_change_bytes, change=change), exits)
        for label, (edit, exits) in TENSORS.items():
            ends = (0, *REFUSED, 7) if name.startswith("last/") else exits
            yield _case(f"{name}/tensors-{label}", name, partial(_change_tensors, change=edit), ends)
    for label, edit in OF_OPTIMISERS.items():
        yield _case(f"optimiser/{label}", "last/resume", partial(_change_tensors, change=edit), REFUSED)
    for name in ("last/resume", "last/predict", "best/predict"):
        changes = st.tuples(st.integers(0, 10**6), st.sampled_from(["value", "gone", "more"]), ODD)
        for index, fact in enumerate(drawn(changes, 25, len(name))):
            yield _case(f"{name}/facts-{index}", name, partial(_change_facts, change=fact), ANY)


def _case(label: str, name: str, edit: Callable[[Path], object], exits: tuple[int, ...]) -> Case:
    file, line = FILES[name]
    part, out = file.partition("/")[0], words(line)[-1]
    names = (part, "training: got")
    return Case(f"weights/{label}", words(line), exits, names, lambda here: edit(here / file), (out,), (part,))


def _change_bytes(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _change_tensors(path: Path, change: Callable[[Tensors], Tensors]) -> None:
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    save_file(change(tensors), path, _metadata(path))


def _metadata(path: Path) -> dict[str, str] | None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    found: dict[str, str] | None = json.loads(content[8 : 8 + length]).get("__metadata__")
    return found


def _change_facts(path: Path, change: tuple[int, str, Any]) -> None:
    facts = json.loads((_metadata(path) or {})["facts"])
    text = json.dumps(changed(facts, change))
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    save_file(tensors, path, {"facts": text})
