"""The entry point of `semiseg`."""

from __future__ import annotations

import sys

from semiseg.cli.app import app
from semiseg.errors import UserError


def main() -> None:
    """Entry point: one clear message for a user's mistake, and the exit code that its kind has."""
    try:
        app()  # exits with 2 for a mistake in the flags, with 130 when interrupted
    except UserError as error:
        # the findings of a check say `error:` themselves
        print(f"error: {str(error).removeprefix('error: ')}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno is None:  # files of the user are looked for before
            raise
        print(
            f"error: {error.filename or 'output'}: got {error.strerror!r}, expected a place to write to; "
            "choose another --out or make room",
            file=sys.stderr,
        )
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
            raise
        print(f"error: out of memory; lower --memory-gb, plan.batch or --workers ({error})", file=sys.stderr)
        sys.exit(6)
