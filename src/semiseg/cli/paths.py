"""Paths of models and scans in one list."""

from __future__ import annotations

from pathlib import Path

from semiseg.errors import UserError


def models_and_scans(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """From the first scan file on, all are scans; without one, the last path is."""
    from semiseg.data.images import scan_ending

    files = (index for index, path in enumerate(paths) if scan_ending(path))
    first = next(files, len(paths) - 1)
    if first == 0:
        raise UserError(
            f"RUN_OR_MODEL... INPUT...: got only {paths[0]}, expected a run or model, then the scans; name both"
        )
    return paths[:first], paths[first:]
