"""CSV tables that programs read and people open in spreadsheets, where a cell that begins like a formula is one."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from semiseg.errors import InputError
from semiseg.files import replacing

T = TypeVar("T")
Row = Mapping[str, Any]
"""Column to value."""

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""What spreadsheets take for a formula, those of East Asia in wide signs too; also behind apostrophes, so that reading
takes off what writing put on."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


@contextmanager
def table_writer(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Row], None]]:
    """A function that writes one row; the table is there once the block has succeeded.

    None becomes an empty cell, columns that the table does not have are left out. Text that a spreadsheet would take
    for a formula gets an apostrophe in front, which `read_table` takes off.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        yield lambda row: writer.writerow({name: _disarmed(value) for name, value in row.items()})


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """All rows at once; see `table_writer`."""
    with table_writer(path, columns) as write:
        for row in rows:
            write(row)


def read_table(
    path: Path, needed: Sequence[str], expected: str, action: str, *, by_hand: bool = False
) -> list[dict[str, str]]:
    """The rows as text, column to cell; see `parse_table`."""
    return parse_table(path, needed, expected, action, dict[str, str], by_hand=by_hand)


def parse_table(
    path: Path,
    needed: Sequence[str],
    expected: str,
    action: str,
    parse: Callable[[dict[str, str]], T],
    *,
    by_hand: bool = False,
) -> list[T]:
    """The rows of a table, as `parse` makes them of their text.

    needed: columns. by_hand: as people and spreadsheets save it, with commas, semicolons or tabs (the commonest in the
    first line), and without the empty cells at the end of a row. Raises InputError for a file that cannot be read, a
    needed column that is missing or comes twice, a row of another number of cells than the first line has, and one
    that `parse` refuses with ValueError.
    """
    where = str(path)
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
        delimiter = max(",;\t", key=text.partition("\n")[0].count) if by_hand else ","
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns, rows = next(lines, []), []
        if missing := [name for name in needed if name not in columns]:
            raise ValueError(f"no column {', '.join(missing)}")
        if twice := [name for name in needed if columns.count(name) > 1]:
            raise ValueError(f"the column {twice[0]} twice")
        for cells in filter(None, lines):
            where = f"{path}, line {lines.line_num}"
            if by_hand:
                cells += [""] * (len(columns) - len(cells))
            if len(cells) != len(columns):
                raise ValueError("another number of cells than the header has")
            rows.append(parse(dict(zip(columns, map(_original, cells), strict=True))))
    except (OSError, ValueError, csv.Error) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{where}: got {found:.300}, expected {expected}; {action}") from None
    return rows


def _disarmed(value: Any) -> Any:
    formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if formula else value


def _original(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
