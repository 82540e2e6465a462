"""The simulated worlds by name, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from semiseg.errors import UserError

RESOLUTION = {"wholebrain": "spacing_mm", "covid": "size", "brats": "spacing_mm"}
"""Name of a world to the setting for its resolution."""


def simulate_world(
    world: str,
    out: Path,
    *,
    subjects: int | None = None,
    seed: int = 0,
    spacing_mm: float | None = None,
    size: int | None = None,
    workers: int | None = None,
) -> Path:
    """Write the cohort of a world and return its folder; what is None is the world's own default.

    Raises UserError for an unknown world, impossible numbers or a resolution that the world does not have;
    InputError if `out` holds something else; MissingExtra if a package that the world needs is not installed.
    """
    from semiseg.simulate.chest import simulate_covid
    from semiseg.simulate.tumour import simulate_brats
    from semiseg.simulate.wholebrain import simulate_wholebrain

    functions: dict[str, Callable[..., Path]] = {
        "wholebrain": simulate_wholebrain,
        "covid": simulate_covid,
        "brats": simulate_brats,
    }
    if world not in RESOLUTION:
        raise UserError(f"simulate: got {world!r}, expected one of: {', '.join(RESOLUTION)}")
    settings = {"subjects": subjects, "spacing_mm": spacing_mm, "size": size}
    given = {name: value for name, value in settings.items() if value is not None}
    for name in given.keys() - {"subjects", RESOLUTION[world]}:
        raise UserError(
            f"--{name.replace('_', '-')}: got {given[name]} for {world}, expected no such setting there; "
            f"set --{RESOLUTION[world].replace('_', '-')}, or leave it out"
        )
    return functions[world](out, seed=seed, workers=workers, **given)
