"""The report: what was scored on held-out scans, how sure that is, how it trained, and what it looks like."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from semiseg.data.splits import SplitNames
from semiseg.errors import UserError
from semiseg.files import write_text
from semiseg.report.gallery import Gallery, gallery_of
from semiseg.report.sections import anchor, class_table, dice_boxes, efficiency, estimate_scatters, training
from semiseg.report.study import Study, summarise
from semiseg.runs.folder import RunFolder

GENERATOR = '<meta name="generator" content="semiseg">'
"""In the head of every report: what begins so may be replaced by another."""
LARGEST = 20_000_000
"""Bytes of the whole file."""
PICTURE_BYTES, VOLUME_BYTES = 5_000_000, 8_000_000
"""Of all pictures of every case, and of all volumes; base64 makes them a third larger."""
VENDOR = Path(__file__).parent / "vendor"


def report_folders(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write a report of runs, benches, rankings and evaluations to `out`, default report.html in the first of them.

    Raises UserError for a folder that is none of these, and for an `out` that is no report; InputError for a missing
    or damaged file.
    """
    from semiseg.report.sources import open_studies

    if out is not None:
        _refuse_to_replace(Path(out))
    studies = open_studies([Path(folder) for folder in folders])
    title = studies[0].title if len(studies) == 1 else " and ".join(study.title for study in studies)
    return write_report(studies, Path(out) if out else Path(folders[0]) / "report.html", title=title)


def write_report(studies: Sequence[Study], out: Path, *, title: str, remarks: Sequence[str] = ()) -> Path:
    """Write one self-contained HTML file to `out` and return it.

    remarks: what a reader must know before the numbers, such as 'simulated'.

    Raises UserError for a file of LARGEST bytes or more, InputError for a missing or damaged file.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["jpeg"] = lambda data: "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    environment.globals["anchor"] = anchor
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    numbers = count(1)
    sections = [_section(study, next(numbers), len(studies)) for study in studies]
    viewer = niivue() if any(shown.volumes for section in sections for shown in section["gallery"].shown) else ""
    text = environment.get_template("page.html.jinja").render(
        title=title,
        version=version("semiseg"),
        remarks=remarks,
        sections=sections,
        script=Markup(script),
        niivue=Markup(viewer),
        script_hashes=" ".join(f"'{_csp_hash(each)}'" for each in (script, viewer) if each),
        style=Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
    )
    if len(text.encode("utf-8")) >= LARGEST:
        raise UserError(f"{out}: got {len(text) / 1e6:.0f} MB, expected less than 20; report fewer folders at once")
    write_text(out, text)
    return Path(out)


def _refuse_to_replace(out: Path) -> None:
    """A file that is there is replaced only if it is a report."""
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise UserError(f"--out: got {out}, expected a file that ends in .html; name one")
    if out.exists() and GENERATOR.encode() not in out.read_bytes()[:2000]:
        raise UserError(f"--out: got {out}, which is there and is no report of semiseg; choose another name")


def niivue() -> str:
    """The viewer's source, safe inside a <script> element."""
    source = (VENDOR / "niivue.umd.js").read_text(encoding="utf-8")
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _section(study: Study, number: int, studies: int) -> dict[str, Any]:
    """Everything that the template shows of one study; ids begin with its number."""
    prefix = f"s{number}"
    gallery: Gallery = gallery_of(study, PICTURE_BYTES // studies, VOLUME_BYTES // studies)
    targets = {case: f"{prefix}-{anchor(case)}" for case in gallery.names}
    scored = [arm for arm in study.arms if arm.scored]
    return {
        "prefix": prefix,
        "study": study,
        "seen": list(_seen(study)),
        "summary": [] if study.lines else summarise([arm.results[0] for arm in study.arms]),
        "efficiency": efficiency(study) if study.lines else None,
        "boxes": dice_boxes(study, targets) if scored else [],
        "classes": class_table(study) if scored else [],
        "gallery": gallery,
        "volumes": {shown.case: _json(shown.volumes) for shown in gallery.shown if shown.volumes},
        "scatters": estimate_scatters(study, targets),
        "training": training(study),
        "splits": list(_splits(study)),
        "machines": _machines(study),
    }


def _seen(study: Study) -> Iterator[str]:
    """Runs that were scored on scans that they had the labels of, in words."""
    for arm in study.arms:
        for result in arm.results:
            run = RunFolder(result.run)
            if result.evaluation and run.splits.exists():
                split = run.read_splits()
                known = {*split.train, *split.val}
                scored = {score.case for score in result.scores() if score.dice is not None}
                if both := known & scored:
                    yield f"{arm.name}: {len(both)} of {len(scored)} scans"


def _splits(study: Study) -> Iterator[tuple[str, SplitNames]]:
    """Each different division of the scans once, with the runs that have it."""
    runs: dict[SplitNames, list[str]] = {}
    for arm in study.arms:
        for result in arm.results:
            run = RunFolder(result.run)
            if run.splits.exists():
                runs.setdefault(run.read_splits(), []).append(result.run.name)
    for split, names in runs.items():
        yield ", ".join(names), split


def _machines(study: Study) -> list[dict[str, Any]]:
    """Each different machine and set of versions once."""
    seen: dict[str, dict[str, Any]] = {}
    for arm in study.arms:
        for result in arm.results:
            if facts := RunFolder(result.run).read_environment():
                packages = ", ".join(f"{name} {number}" for name, number in facts.pop("packages", {}).items())
                kept = {key: value for key, value in facts.items() if key not in ("command", "seed")}
                kept = {**kept, "packages": packages}
                seen.setdefault(json.dumps(kept), {"runs": [], **kept})["runs"].append(result.run.name)
    return list(seen.values())


def _json(values: Any) -> Markup:
    """JSON that can neither end a <script> element nor begin a comment."""
    return Markup(json.dumps(values).replace("<", "\\u003c"))


def _csp_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
