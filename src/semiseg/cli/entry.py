"""The entry point of `semiseg`."""

from __future__ import annotations

import sys
from typing import NoReturn

from semiseg.cli.app import app
from semiseg.errors import OutOfMemory, UserError

LONGEST = 8000
"""Characters of a message: a damaged file must not fill the terminal."""
_MEMORY = ("out of memory", "can't allocate memory", "storage size calculation overflowed")
"""How torch says so, in lower case, on a GPU and on a processor."""


def main() -> None:
    """Entry point: one clear message for a user's mistake, and the exit code that its kind has."""
    try:
        app()  # exits with 2 for a mistake in the flags, with 130 when interrupted
    except UserError as error:
        _stop(str(error).removeprefix("error: "), error.exit_code)  # the findings of a check say it themselves
    except RecursionError:
        _stop("got a file that is nested too deeply, expected settings or results as semiseg writes them", 3)
    except UnicodeEncodeError as error:
        text = ascii(error.object)
        _stop(f"got the name {text}, which is not UTF-8, expected one that is; rename the file (see `convmv`)", 3)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno is None:  # files of the user are looked for before
            raise
        where = error.filename or "output"
        _stop(f"{where}: got {error.strerror!r}, expected a place to write to; choose another --out or make room", 2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in _MEMORY):
            raise
        reason = str(error).partition("\n")[0] or "too little"
        _stop(f"out of memory ({reason}); lower --memory-gb, plan.batch or --workers", OutOfMemory.exit_code)


def _stop(message: str, code: int) -> NoReturn:
    # a name that is not UTF-8 must be told of too
    shown = message.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(shown) > LONGEST:
        shown = f"{shown[:LONGEST]} ... ({len(shown)} characters in all)"
    print(f"error: {shown}", file=sys.stderr)
    sys.exit(code)
