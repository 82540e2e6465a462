"""The report: what every method scored on held-out scans, how it trained, and what its outlines look like."""

from __future__ import annotations

import base64
import csv
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from nibabel.filebasedimages import ImageFileError

from semiseg.data.dataset import Case
from semiseg.errors import InputError, UserError
from semiseg.files import write_text
from semiseg.report import figures


@dataclass(frozen=True)
class Result:
    """One trained and evaluated method."""

    method: str
    """The name shown; unique in a report."""
    run: Path
    """Holds `metrics.jsonl`, `config.yaml` and `result.json`: the folder that training leaves."""
    evaluation: Path
    """Holds `metrics.csv`."""
    predictions: Path
    """Holds `CASE.nii.gz`."""


@dataclass(frozen=True)
class Score:
    """One row of `metrics.csv`. `dice` is None where nothing could be compared."""

    case: str
    name: str
    value: int
    in_truth: bool
    dice: float | None
    hd95_mm: float | None


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of the numbers that exist; both None where there are too few."""

    mean: float | None
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        known = [value for value in values if value is not None]
        return cls(
            statistics.fmean(known) if known else None,
            statistics.stdev(known) if len(known) > 1 else None,
            len(known),
        )


@dataclass(frozen=True)
class Summary:
    """One line of the report's first table."""

    method: str
    labels: str
    """How many scans had their label: '3', or '3 + 2' with two for validation."""
    unlabelled: int
    """How many scans without label the method used; 0 for one that uses none."""
    duration_s: float
    """Of training."""
    dice: Spread
    """Mean over classes, over scans."""
    difference: Spread
    """From the first method, scan by scan."""
    better: int
    """Scans that score higher than with the first method."""


def write_report(
    results: Sequence[Result],
    cases: Sequence[Case],
    out: Path,
    *,
    title: str,
    remarks: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML file to `out` and return it.

    results: the first one is what the others are compared with. cases: the scans that were scored, with image
    and label file. remarks: what a reader must know before the numbers, such as 'simulated'. commands: lines
    that repeat the results.

    Raises UserError without results or with two of one name, InputError for a missing or damaged file.
    """
    names = [result.method for result in results]
    if not results or len(set(names)) < len(names):
        raise UserError(f"report: got the methods {names}, expected at least one and no name twice; rename one")
    scores = {result.method: read_scores(result.evaluation) for result in results}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["png"] = lambda data: "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    page = environment.get_template("page.html.jinja").render(
        title=title,
        version=version("semiseg"),
        remarks=remarks,
        commands=commands,
        reference=names[0],
        summary=summarise(results),
        classes=_class_table(scores),
        plots=_plots(results),
        overlays=_overlays(results, scores, cases),
        class_colours=_class_colours(scores),
        wrong_colour=figures.WRONG_COLOUR,
        settings=[(result.method, _read(result.run / "config.yaml")) for result in results],
    )
    write_text(out, page)
    return Path(out)


def summarise(results: Sequence[Result]) -> list[Summary]:
    """How the methods compare on the same scans; the first one is what the others are compared with."""
    means = [case_means(read_scores(result.evaluation)) for result in results]
    summaries = []
    for result, own in zip(results, means, strict=True):
        differences = [own[case] - means[0][case] for case in own if case in means[0]]
        facts = _read_json(result.run / "result.json")
        labels, validation = facts["labelled"], facts["validation"]
        summary = Summary(
            method=result.method,
            labels=f"{labels} + {validation}" if validation else str(labels),
            unlabelled=facts["unlabelled"],
            duration_s=facts["duration_s"],
            dice=Spread.of(own.values()),
            difference=Spread.of(differences),
            better=sum(difference > 0 for difference in differences),
        )
        summaries.append(summary)
    return summaries


def read_scores(evaluation: Path) -> list[Score]:
    """The rows of an evaluation folder's `metrics.csv`, without those of regions."""
    path = evaluation / "metrics.csv"
    rows = csv.DictReader(_read(path).splitlines())
    try:
        return [
            Score(
                case=row["case"],
                name=row["class"],
                value=int(row["value"]),
                in_truth=row["in_truth"].lower() in ("true", "1"),
                dice=_number(row["dice"]),
                hd95_mm=_number(row["hd95_mm"]),
            )
            for row in rows
            if row.get("kind") != "region"
        ]
    except (KeyError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}, line {rows.line_num}: got {error!r}, expected the table that `semiseg evaluate` "
            "writes; evaluate again with --overwrite"
        ) from None


def read_log(run: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of a run folder's `metrics.jsonl` that are of one kind, 'train' or 'validation'."""
    path = run / "metrics.jsonl"
    lines = []
    for number, text in enumerate(_read(path).splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: {error}, expected one JSON object a line; resume the run to repair it"
            ) from None
        if line.get("kind") == kind:
            lines.append(line)
    return lines


def case_means(scores: Sequence[Score]) -> dict[str, float]:
    """Mean Dice of each scan over the classes that it has in the truth."""
    by_case: dict[str, list[float]] = {}
    for score in scores:
        if score.in_truth and score.dice is not None:
            by_case.setdefault(score.case, []).append(score.dice)
    return {case: statistics.fmean(values) for case, values in by_case.items()}


def _class_table(scores: Mapping[str, Sequence[Score]]) -> list[dict[str, Any]]:
    """Per class the methods' scores over the scans that have the class in the truth."""
    table = []
    for name in _class_values(scores):
        rows = []
        for method, all_scores in scores.items():
            own = [score for score in all_scores if score.name == name and score.in_truth]
            rows.append(
                {
                    "method": method,
                    "dice": Spread.of(score.dice for score in own),
                    "hd95_mm": Spread.of(score.hd95_mm for score in own),
                }
            )
        table.append({"name": name, "rows": rows})
    return table


def _class_values(scores: Mapping[str, Sequence[Score]]) -> dict[str, int]:
    return {score.name: score.value for rows in scores.values() for score in rows}


def _class_colours(scores: Mapping[str, Sequence[Score]]) -> dict[str, str]:
    palette = figures.CLASS_COLOURS
    return {name: palette[place % len(palette)] for place, name in enumerate(_class_values(scores))}


def _plots(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Validation Dice where there was any, then every term of the loss, smoothed."""
    order = [result.method for result in results]
    wanted: dict[str, dict[str, figures.Series]] = {}
    for result in results:
        checks = read_log(result.run, "validation")
        if checks:
            wanted.setdefault("validation Dice", {})[result.method] = (
                [line["step"] for line in checks],
                [line["dice_mean"] for line in checks],
            )
    for result in results:
        lines = read_log(result.run, "train")
        for term in dict.fromkeys(name for line in lines for name in line["terms"]):
            with_term = [line for line in lines if term in line["terms"]]
            wanted.setdefault(f"loss: {term}", {})[result.method] = (
                [line["step"] for line in with_term],
                _smooth([line["terms"][term] for line in with_term]),
            )
    return [
        {
            "label": label,
            "methods": list(series),
            "last": {name: values[-1] for name, (_, values) in series.items()},
            **{theme: figures.curves(series, label, theme=theme, order=order) for theme in ("light", "dark")},
        }
        for label, series in wanted.items()
    ]


def _smooth(values: Sequence[float]) -> list[float]:
    """Mean over the last twentieth of all points, so that one batch does not hide the trend."""
    window = max(1, len(values) // 20)
    return [statistics.fmean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]


def _overlays(
    results: Sequence[Result], scores: Mapping[str, Sequence[Score]], cases: Sequence[Case]
) -> list[dict[str, Any]]:
    """The best, the median and the worst scan by mean Dice over all methods, one slice each."""
    means = {method: case_means(rows) for method, rows in scores.items()}
    shown = {case.name: case for case in cases if all(case.name in own for own in means.values())}
    ranked = sorted(shown, key=lambda name: -statistics.fmean(own[name] for own in means.values()))
    if not ranked:
        return []
    # A scan is shown once: of several ranks in a small cohort, the last one here is its name.
    chosen = {len(ranked) // 2: "Median", len(ranked) - 1: "Worst", 0: "Best"}
    return [
        {"rank": rank, "case": ranked[place], "panels": _panels(results, scores, means, shown[ranked[place]])}
        for place, rank in sorted(chosen.items())
    ]


def _panels(
    results: Sequence[Result],
    scores: Mapping[str, Sequence[Score]],
    means: Mapping[str, Mapping[str, float]],
    case: Case,
) -> list[dict[str, Any]]:
    if case.label is None:
        raise UserError(f"{case.name}: got no label file, expected the scans that were scored; leave it out")
    image, spacing_mm = _volume(case.images[0])
    truth, _ = _volume(case.label)
    index = figures.telling_slice(truth)
    named = _class_colours(scores)
    colours = {value: named[name] for name, value in _class_values(scores).items()}

    def panel(caption: str, label: np.ndarray, compare: bool = False) -> dict[str, Any]:
        picture = figures.overlay(
            image[:, :, index],
            label[:, :, index],
            colours,
            spacing_mm[:2],
            truth=truth[:, :, index] if compare else None,
        )
        return {"caption": caption, "picture": picture, "slice": index}

    panels = [panel("image", np.zeros_like(truth)), panel("truth", truth)]
    for result in results:
        path = result.predictions / f"{case.name}.nii.gz"
        prediction = _volume(path)[0] if path.is_file() else np.zeros_like(truth)
        panels.append(panel(f"{result.method}, Dice {means[result.method][case.name]:.3f}", prediction, compare=True))
    return panels


def _volume(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Voxels with axes towards right, anterior, superior, and the spacing in mm."""
    try:
        scan = nib.as_closest_canonical(nib.load(path))
        return np.asarray(scan.dataobj), tuple(float(size) for size in scan.header.get_zooms()[:3])
    except (OSError, ImageFileError) as error:
        raise InputError(f"{path}: {error}, expected a readable NIfTI file; make it again") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}, expected a finished run and evaluation; run them again") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(_read(path))
    except ValueError as error:
        raise InputError(f"{path}: {error}, expected what training writes at its end; train again") from None
    return values


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
