"""The entry point of `semiseg`."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

from semiseg.cli.app import app
from semiseg.errors import OutOfMemory, UserError

LONGEST = 8000
"""Characters of a message: a damaged file must not fill the terminal."""
MAY_BE_EMPTY = ("--licence", "--description")
_MEMORY = ("out of memory", "can't allocate memory", "storage size calculation overflowed")
"""How torch says so, in lower case, on a GPU and on a processor."""


def main() -> None:
    """Entry point: one clear message for a user's mistake, and the exit code that its kind has."""
    try:
        _refuse_what_is_no_text()
        _refuse_empty_words()
        app()  # exits with 2 for a mistake in the flags, with 130 when interrupted
    except UserError as error:
        _stop(str(error).removeprefix("error: "), error.exit_code)  # the findings of a check say it themselves
    except RecursionError:
        _stop("got a file that is nested too deeply, expected settings or results as semiseg writes them", 3)
    except UnicodeEncodeError as error:
        text = ascii(error.object[max(0, error.start - 100) : error.end + 100])
        _stop(f"got {text}, which is not UTF-8, expected text that is; correct it, or rename the file (`convmv`)", 3)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno is None:  # files of the user are looked for before
            raise
        name = max((str(name) for name in (error.filename, error.filename2) if name), key=len, default="")
        if error.errno == errno.ENAMETOOLONG:
            size = len(os.fsencode(name))
            _stop(f"{name[:200]}...: got a path of {size} bytes, expected one that the disk takes; shorten it", 2)
        where = error.filename or "output"
        _stop(f"{where}: got {error.strerror!r}, expected a place to write to; choose another --out or make room", 2)
    except (MemoryError, RuntimeError) as error:
        if str(error).startswith("Symlink loop"):
            _stop(f"got a {error}, expected a file or folder; choose another --out, or mend the link", 2)
        if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in _MEMORY):
            raise
        reason = str(error).partition("\n")[0] or "too little"
        _stop(f"out of memory ({reason}); lower --memory-gb, plan.batch or --workers", OutOfMemory.exit_code)


def _refuse_what_is_no_text() -> None:
    """Names and words that no file of results can hold: UnicodeEncodeError now, not when work has been done."""
    try:
        here = os.getcwd()  # noqa: PTH109  (Path.cwd is the same, and what is not UTF-8 is found in it as well)
    except OSError:
        here = ""
    for text in (*sys.argv[1:], here):
        text.encode("utf-8")


def _refuse_empty_words() -> None:
    """Of a variable that is not set a shell makes one: `--out ""` would be the current folder, `--layout ""` none."""
    before = "the command"
    for word in sys.argv[1:]:
        flag, equals, value = word.partition("=")
        if not word or (flag.startswith("--") and equals and not value):
            flag = flag or before
            if flag not in MAY_BE_EMPTY:
                raise UserError(f"{flag}: got an empty word, expected a value; set the variable, or leave it out")
        before = word


def _stop(message: str, code: int) -> NoReturn:
    # a name that is not UTF-8 must be told of too
    shown = message.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(shown) > LONGEST:
        shown = f"{shown[:LONGEST]} ... ({len(shown)} characters in all)"
    print(f"error: {shown}", file=sys.stderr)
    sys.exit(code)
