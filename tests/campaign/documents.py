"""Files of text that are read back (JSON, YAML, CSV, lines): damaged as a whole, and with one value that is odd."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from campaign.case import ANY, REFUSED, Case, drawn
from campaign.world import bench_in_process, words

HARD: dict[str, bytes] = {
    "nested": b"[" * 100000,
    "latin-1": "caf\xe9: 1".encode("latin-1"),
    "binary": bytes(range(256)) * 4,
    "nul": bytes(30000),
}
"""Never a document."""
SOFT: dict[str, bytes] = {
    "empty": b"",
    "null": b"null\n",
    "list": b"[]\n",
    "object": b"{}\n",
    "other-keys": b'{"cases": 5, "plan": [1], "format": 1, "labels": 5, "methods": {"x": [1]}, "run": 1}\n',
    "a-tag": b"seed: !!python/object/apply:os.system ['touch evil']\n",
    "aliases": b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\nseed: [*d, *d]\n",
    "digits": b'{"format": ' + b"9" * 6000 + b"}\n",
}
"""Documents of another kind, which somebody may take for one that says nothing."""
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**70), 1e308, -0.5, float("nan"), float("inf"), float("-inf")]),
    st.sampled_from(
        ["", "x", "0", "nan", "../../above.txt", "/etc/passwd", "a\0b", "\ud800", "a\nb", "\x1b[31m", "x" * 3000, "🧠"]
    ),
    st.sampled_from([[], {}, [[]], [None], [1, "x"], {"": None}, {"a": {"b": {"c": 1}}}, [0] * 5, {"x": [1]}]),
)


@dataclass(frozen=True)
class Document:
    """A file that a command reads."""

    name: str
    file: str
    words: tuple[str, ...]
    may_pass: bool
    """A file that is no document at all is taken: made anew, or passed over."""
    count: int
    """Odd values that are tried."""

    @property
    def writes(self) -> tuple[str, ...]:
        flags = [word for before, word in pairwise(self.words) if before == "--out"]
        return tuple(flags)


READ = """
dataset/check           | D/dataset.json                 | check D
dataset/train           | D/dataset.json                 | @train --out out
dataset/evaluate        | D/dataset.json                 | evaluate PRED D --out out
dataset/review          | D/dataset.json                 | review RUN D --count 1 --out out
plan/train              | plan.json                      | train D --plan plan.json --steps 1 --out out  | x40
plan/prepare            | plan.json                      | prepare D --plan plan.json
plan/plan               | plan.json                      | @plan plan.json
plan/resume             | HALF/plan.json                 | @train --resume --out HALF                    | x15
plan/export             | RUN/plan.json                  | export RUN --out out
plan/predict            | RUN/plan.json                  | predict RUN @scan --checkpoint last --out out | x15
plan/report             | RUN/plan.json                  | report RUN --out out.html                     | may
plan/bench              | BENCH/plan.json                | @bench --out BENCH                            | may
plan/layers             | RUN/plan.json                  | layers RUN                                    | may
splits/predict          | RUN/splits.json                | predict RUN D --cases RUN/splits.json --out out
splits/resume           | HALF/splits.json               | @train --resume --out HALF                    | x15
splits/review           | RUN/splits.json                | review RUN D --count 1 --out out
splits/rank             | RUN/splits.json                | rank RUN @scan --out out                      | may x4
splits/export           | RUN/splits.json                | export RUN --out out
splits/report           | RUN/splits.json                | report RUN --out out.html
model/predict           | RUN/model/model.json           | predict RUN @scan --out out                   | x40
model/rank              | RUN/model/model.json           | rank RUN @scan --out out
model/init              | BUNDLE/model.json              | @train --init BUNDLE --out out
model/export            | RUN/model/model.json           | export RUN --out out                          | may
manifest/evaluate       | PRED/manifest.json             | evaluate PRED D --out out                     | x20
manifest/predict        | PRED/manifest.json             | predict RUN D/images --out PRED
manifest/evaluate-again | SCORES/manifest.json           | evaluate PRED D --out SCORES
manifest/report         | SCORES/manifest.json           | report RUN SCORES --out out.html
manifest/report-ranking | RANK/manifest.json             | report RUN RANK SCORES --out out.html
manifest/rank           | RANK/manifest.json             | rank RUN D/images --out RANK
labels/evaluate         | PRED/labels.json               | evaluate PRED D --out out
labels/train            | REVIEW/labels.json             | @corrected                                    | may
summary/evaluate-again  | SCORES/summary.json            | evaluate PRED D --out SCORES
summary/report          | RANK/summary.json              | report RUN RANK SCORES --out out.html         | may
transforms/rank         | RANK/transforms.json           | @ranked --out out                            | x15
transforms/rank-again   | RANK/transforms.json           | rank RUN D/images --out RANK                  | may
transforms/review       | RANK/transforms.json           | review RUN D --ranking RANK --out out         | may
case/rank-again         | RANK/cases/case5.json          | rank RUN D/images --out RANK                  | may x15
review/review           | REVIEW/review.json             | @reviewed --count 2                           | x20
review/overwrite        | REVIEW/review.json             | @reviewed --overwrite                         | x20
review/train            | REVIEW/review.json             | @corrected                                    | x20
result/report           | RUN/result.json                | report RUN --out out.html                     | x15
result/export           | RUN/result.json                | export RUN --out out
result/bench            | BENCH/runs/equireg-2-0/result.json | @bench --out BENCH
environment/report      | RUN/env.json                   | report RUN --out out.html
config/report           | RUN/config.yaml                | report RUN --out out.html                     | x15
config/resume           | HALF/config.yaml               | @train --resume --out HALF                    | x15
config/rank             | RUN/config.yaml                | rank RUN @scan --out out                      | may
config/export           | RUN/config.yaml                | export RUN --out out
config/train            | config.yaml                    | @train --config config.yaml --out out
config/bench            | config.yaml                    | @bench --config config.yaml --out BENCH
bench/bench             | BENCH/bench.yaml               | @bench --out BENCH                            | x20
bench/report            | BENCH/bench.yaml               | report BENCH --out out.html                   | x15
log/resume              | HALF/metrics.jsonl             | @train --resume --out HALF                    | may x15
log/report              | RUN/metrics.jsonl              | report RUN --out out.html                     | may x15
log/export              | RUN/metrics.jsonl              | export RUN --out out                          | may
provenance/resume       | HALF/provenance.json           | @train --resume --out HALF
part/evaluate           | SCORED-PART/shards/1of2/scores.json | evaluate PRED D --out SCORED-PART             | may x15
part/predict            | PART/shards/1of2/manifest.json | predict RUN D/images --out PART
begun/predict           | PART/begun.json                | predict RUN D/images --out PART
cohort/simulate         | COHORT/simulated.json          | simulate brats --subjects 1 --spacing-mm 6 --out COHORT
scores/report           | SCORES/metrics.csv             | report RUN SCORES --out out.html              | x15
scores/bench            | BENCH/runs/equireg-2-0/scores/metrics.csv | @bench --out BENCH
ranking/report          | RANK/ranking.csv               | report RUN RANK SCORES --out out.html
ranking/review          | RANK/ranking.csv               | review RUN D --ranking RANK --out out
sheet/review            | REVIEW/review.csv              | @reviewed --count 2
sheet/train             | REVIEW/review.csv              | @corrected
classes/check           | classes.yaml                   | check D --classes classes.yaml
classes/train           | classes.yaml                   | @train --classes classes.yaml --out out
classes/evaluate        | classes.yaml                   | evaluate PRED D --classes classes.yaml --out out
names/predict           | names.txt                      | predict RUN D --cases names.txt --out out     | x0
names/train             | names.txt                      | train D --labelled names.txt --out out @tiny  | x0
"""
"""Name, file, the command line that reads it; whether a file that is no document may pass; how many odd values."""


def documents() -> Iterator[Document]:
    for line in READ.strip().splitlines():
        name, file, command, *more = (part.strip() for part in line.split("|"))
        options = " ".join(more).split()
        counts = [int(option[1:]) for option in options if option[0] == "x"]
        yield Document(name, file, words(command), "may" in options, counts[0] if counts else 7)


def cases() -> Iterator[Case]:
    for number, document in enumerate(documents()):
        hard = (0, *REFUSED) if document.may_pass else REFUSED
        for label, text in (HARD | SOFT).items():
            ends = hard if label in HARD else ANY
            yield _case(document, label, partial(_write, text=text), ends)
        yield _case(document, "a-folder", _folder, ANY)
        yield _case(document, "not-to-be-read", lambda path: path.chmod(0), hard)
        how = st.sampled_from(["value", "value", "value", "gone", "more", "twice"])
        changes = drawn(st.tuples(st.integers(0, 10**6), how, ODD), document.count, number) if document.count else []
        for index, change in enumerate(changes):
            yield _case(document, f"odd-{index}", partial(_change, change=change), ANY)
    yield from _caches()


def _case(document: Document, label: str, edit: Callable[[Path], object], exits: tuple[int, ...]) -> Case:
    path = Path(document.file)
    # a setting that is refused is named by its key
    names = (path.name, path.parts[0], "--", *(["setting", "got"] if document.file == "config.yaml" else []))
    needs = (path.parts[0], *["PRED"] * ("SCORES" in document.words))  # of which they are the scores
    before = bench_in_process if document.words[0] == "bench" else None
    return Case(
        f"document/{document.name}/{label}", document.words, exits, names, lambda here: edit(here / document.file),
        document.writes, needs, before=before,
    )  # fmt: skip


def _write(path: Path, text: bytes) -> None:
    path.write_bytes(text)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _change(path: Path, change: tuple[int, str, Any]) -> None:
    """One node of the document is odd, gone, has an odd neighbour, or comes twice."""
    read, write = _KINDS[path.suffix]
    document = changed(read(path.read_text(encoding="utf-8")), change)
    path.write_text(write(document), encoding="utf-8", errors="surrogatepass")


def changed(document: Any, change: tuple[int, str, Any]) -> Any:
    """change: which node, what becomes of it, and an odd value."""
    where, how, odd = change
    nodes = list(_nodes(document))
    parent, key = nodes[where % len(nodes)]
    if parent is None:
        return odd
    if how == "value":
        parent[key] = odd
    elif how == "gone":
        del parent[key]
    elif how == "more" and isinstance(parent, dict):
        parent[str(odd)] = odd
    elif how == "more":
        parent.append(odd)
    elif isinstance(parent, list):
        parent.append(parent[key])
    else:
        parent[f"{key} "] = parent[key]
    return document


def _nodes(value: Any, parent: Any = None, key: Any = None) -> Iterator[tuple[Any, Any]]:
    yield parent, key
    for inner in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from _nodes(value[inner], value, inner)


def _lines(text: str) -> Any:
    return [json.loads(line) for line in text.splitlines()]


def _as_lines(values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in (values if isinstance(values, list) else [values]))


def _rows(text: str) -> Any:
    return list(csv.reader(io.StringIO(text, newline="")))


def _as_rows(values: Any) -> str:
    if not isinstance(values, list):
        return str(values)
    written = io.StringIO(newline="")
    for row in values:
        csv.writer(written).writerow(row if isinstance(row, list) else [row])
    return written.getvalue()


_KINDS: dict[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    ".json": (json.loads, json.dumps),
    ".yaml": (yaml.safe_load, yaml.safe_dump),
    ".jsonl": (_lines, _as_lines),
    ".csv": (_rows, _as_rows),
}


# the cache: whatever is wrong with it, it is made anew

CACHED = {
    "facts": "facts/*",
    "descriptions": "prepared/*/*/meta.json",
    "images": "prepared/images/*/image.npy",
    "labels": "prepared/labels/*/label.npy",
    "foreground": "prepared/labels/*/foreground.npy",
}


def _caches() -> Iterator[Case]:
    damage = {**HARD, **SOFT, "half": None, "another-array": b"", "pickle": b"\x80\x04N."}
    for what, pattern in CACHED.items():
        for label, text in damage.items():
            edit = partial(_damage_cache, pattern=pattern, label=label, text=text)
            yield Case(f"cache/{what}/{label}", words("@train --out out"), (0,), ("cache",), edit)


def _damage_cache(here: Path, pattern: str, label: str, text: bytes | None) -> None:
    import numpy as np

    for path in sorted((here.parent / "cache").glob(pattern)):
        if text is None:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif label == "another-array":
            with path.open("wb") as file:
                np.save(file, np.ones((3, 3)))
        else:
            path.write_bytes(text)
