"""Scores that the shards of one evaluation leave for the command that puts them together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from semiseg.errors import InputError
from semiseg.evaluation.summary import ScoredCase
from semiseg.files import read_json, write_json
from semiseg.jobs.shards import Shard, shards_folder
from semiseg.manifest import file_hashes, sealed, unsealed


def write_part(
    out: Path, shard: Shard, settings: Mapping[str, Any], scored: Sequence[ScoredCase], inputs: Mapping[str, list[Path]]
) -> None:
    """Scored cases for `read_parts`. inputs: case to the files that its scores were made from."""
    cases = [
        {
            **asdict(case),
            "unknown_truth": sorted(case.unknown_truth),
            "unknown_prediction": sorted(case.unknown_prediction),
            "inputs": file_hashes(inputs[case.case]),
        }
        for case in scored
    ]
    values = {"version": version("semiseg"), "settings": dict(settings), "cases": cases}
    write_json(shard.folder(out) / "scores.json", sealed(values))


def read_parts(out: Path, settings: Mapping[str, Any], inputs: Mapping[str, list[Path]]) -> dict[str, ScoredCase]:
    """Cases that shards scored with these settings, from files that are still the same."""
    return {case.case: case for case in _parts(out, settings, inputs)}


def _parts(out: Path, settings: Mapping[str, Any], inputs: Mapping[str, list[Path]]) -> Iterator[ScoredCase]:
    expected, action = "scores of a shard", "remove it; they are made anew"
    for path in sorted(shards_folder(out).glob("*/scores.json")):
        try:
            part = unsealed(read_json(path, expected, action))
            if part["version"] != version("semiseg") or part["settings"] != json.loads(json.dumps(settings)):
                continue
            for values in part["cases"]:
                if values.pop("inputs") == file_hashes(inputs.get(values["case"], [])):
                    for name in ("unknown_truth", "unknown_prediction"):
                        values[name] = frozenset(values[name])
                    yield ScoredCase(**values)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{path}: got {error!s:.200}, expected {expected}; {action}") from None
