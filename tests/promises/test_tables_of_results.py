"""Every table of results names the command that made it, and that command can still be given."""

import argparse
import contextlib
import io
import re
import runpy
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import MagicMock, patch

import pytest
import typer
from support.command_line import semiseg

from semiseg.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands

NUMBER = re.compile(r"\**[+-]?(\d+\.?\d*|\.\d+)( %| ±.*| \(.*\)| to .*|(, [+-]?(\d+\.?\d*|\.\d+))*)\**")
"""A cell of results: a number, perhaps with a spread, an interval or more numbers behind it."""
RESULTS = 0.75
"""From this share of numbers among its cells a table is one of results. Tables of settings have defaults, far fewer."""


@dataclass(frozen=True)
class Table:
    page: Path
    line: int
    rows: tuple[tuple[str, ...], ...]
    section: str
    """All of the one that it stands in."""
    above: str
    """Of the page, before its first section."""

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def of_results(self) -> bool:
        cells = [cell for row in self.rows for cell in row[1:] if cell]
        return sum(bool(NUMBER.fullmatch(cell)) for cell in cells) >= RESULTS * max(1, len(cells))

    def commands(self) -> list[str]:
        """Beside it: in its section, else above all sections, else on the pages of results that it is linked with."""
        here = lines_of_commands(self.section) or lines_of_commands(self.above)
        linked = [self.page.parent / link for link in re.findall(r"\]\((benchmarks/\w+\.md)\)", self.section)]
        return here or [line for page in linked for line in lines_of_commands(page.read_text(encoding="utf-8"))]


def tables_of(page, text):
    lines = text.splitlines()
    above = text.partition("\n## ")[0]
    section: list[str] = []
    for number, line in enumerate(lines):
        section = [line] if line.startswith("## ") else [*section, line]
        if re.fullmatch(r"\|[-:| ]+\|", line) and not lines[number - 2].startswith("|"):
            rows = []
            for row in lines[number + 1 :]:
                if not row.startswith("|"):
                    break
                rows.append(tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|"))))
            whole = "\n".join([*section, *until_the_next(lines[number + 1 :])])
            yield Table(page, number, tuple(rows), whole if section[0].startswith("## ") else above, above)


def until_the_next(lines):
    for line in lines:
        if line.startswith("## "):
            return
        yield line


def lines_of_commands(text):
    """Of fenced blocks, with shell variables filled in, and of `code` in the text."""
    found = []
    for block in re.findall(r"^```(?:bash|console)\n(.*?)^```$", text, re.M | re.S):
        variables = {}
        for line in block.splitlines():
            variables |= {name: values.split()[0] for name, values in re.findall(r"for (\w+) in ([^;]*);", line)}
            filled = line
            for name, value in variables.items():
                filled = re.sub(rf"\${name}\b", value.replace("\\", ""), filled)
            if re.match(r'\s*\w+="', filled):
                variables |= dict(re.findall(r'(\w+)="([^"]*)"', filled))
            elif re.fullmatch(r"\s*(\w+=\S+\s*)+", filled):
                variables |= dict(part.split("=", 1) for part in filled.split())
            else:
                found += of_line(filled)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    for code in re.findall(r"`((?:semiseg|python) [^`]*)`", prose):
        if re.search(r"^semiseg [a-z]+ [^-].* --|\.py", code):  # a whole command; others are only spoken of
            found += of_line(" ".join(code.split()))
    return found


def of_line(line):
    """`semiseg ...` or `python benchmarks/...`, without what stands before it."""
    match = re.search(r"(?<![\w/.-])(semiseg [a-z]+ .*|python benchmarks/\w+\.py.*)", line)
    return [match[1]] if match else []


TABLES = [table for page in PAGES for table in tables_of(page, page.read_text(encoding="utf-8"))]
RESULT_TABLES = [table for table in TABLES if table.of_results]


def test_tables_of_results_are_told_from_others():
    """On the pages that measure, nearly all are; on those that explain, none."""
    names = [table.page.name for table in RESULT_TABLES]
    assert len(RESULT_TABLES) > 25
    assert {*names} >= {
        "README.md",
        "log.md",
        "testing.md",
        "promises.md",
        *(p.name for p in (ROOT / "benchmarks").glob("*.md")),
    }
    assert not {*names} & {"methods.md", "plan.md", "training.md", "commands.md", "metrics.md", "data.md"}
    assert len(TABLES) > 2 * len(RESULT_TABLES)


@pytest.mark.parametrize("table", RESULT_TABLES, ids=lambda table: table.name)
def test_every_table_of_results_names_its_command(table):
    assert table.commands(), f"{table.name}: no command in its section, nor above all sections"


def test_a_table_without_a_command_would_be_found():
    (table,) = tables_of(ROOT / "docs" / "x.md", "# a\n\nWords.\n\n## b\n\n| | Dice |\n|---|---|\n| a | 0.8 |\n")
    assert table.of_results
    assert table.commands() == []


def resolve(line):
    """Raises for a command line with a flag, a setting, a recipe or a grid that is not there any more; runs nothing."""
    line = line.replace("...", "").replace(" DATA", " scans").replace("METHOD", "roam")
    line = re.sub(r"(--draw|--seed) [A-Z]\b", r"\1 0", line)
    words = shlex.split(line, comments=True)
    if words[0] == "python":
        return script(words[1:])
    command, *flags = words[1:]
    if "--out" not in flags and command != "check":
        flags += ["--out", "nowhere"]
    if command in ("train", "bench"):
        code, _, err = semiseg(command, *flags, "--dry-run")
        assert code == 0, f"{line}\n{err}"
    else:
        COMMANDS[command].make_context(command, flags)
    return None


class Understood(Exception):
    """The script has read its arguments, and would begin."""


OWN_PACKAGES = ["cosmic_ray", *(f"cosmic_ray.{name}" for name in ("ast", "mutating", "operators.operator", "plugins"))]
"""What scripts tell to install for themselves alone."""


def script(words):
    """`compare.py` prints what it would run, and that is resolved; others only read their arguments."""
    path, *arguments = words
    if path.endswith("compare.py"):
        said = io.StringIO()
        with patch.object(sys, "argv", [path, *arguments, "--dry-run"]), contextlib.redirect_stdout(said):
            runpy.run_path(path, run_name="__main__")
        lines = said.getvalue().splitlines()
        assert len(lines) > 3
        for line in lines:
            resolve(line)
        return
    parse = argparse.ArgumentParser.parse_args

    def understood(parser, *given):
        parse(parser, *given)
        raise Understood

    with (
        patch.dict(sys.modules, {name: MagicMock() for name in OWN_PACKAGES}),
        patch.object(sys, "argv", [path, *arguments]),
        patch.object(argparse.ArgumentParser, "parse_args", understood),
        pytest.raises(Understood),
    ):
        runpy.run_path(path, run_name="__main__")


COMMAND_LINES = sorted({line for table in RESULT_TABLES for line in table.commands()})


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that has what the commands read: the grids, and the settings that pages show."""
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    for page in PAGES:
        for name, settings in re.findall(r"^```yaml\n# (\w+\.yaml)\n(.*?)^```$", page.read_text(), re.M | re.S):
            (tmp_path / name).write_text(settings)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMISEG_DEVICE", "cpu")
    return tmp_path


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_beside_a_table_can_be_given(line, checkout):
    before = {*checkout.iterdir()}
    resolve(line)
    assert {*checkout.iterdir()} == before


@pytest.mark.parametrize(
    "line",
    [
        "semiseg train DATA --dims 2 --set plan.augmentation.warp.probabilty=.3",
        "semiseg train DATA --recipe malc-roam",
        "semiseg bench scans --config benchmarks/bench-atrium.yaml --out runs",
        "semiseg bench scans --labelled 2 --test 2 --set training.stepps=3 --out runs",
        "semiseg bench scans --labelled 2 --test 2 --set plan.bacth=3 --out runs",
        "semiseg evaluate predictions labels --out scores --tolerance_mm 1",
        "python benchmarks/compare.py benchmarks/atria.yaml --out runs",
        "python benchmarks/rank.py runs --picure a.png",
        "python benchmarks/ranks.py runs",
    ],
)
def test_a_command_that_cannot_be_given_would_be_found(line, checkout):  # noqa: ARG001
    with pytest.raises((AssertionError, SystemExit, FileNotFoundError, typer.BadParameter.__base__)):
        resolve(line)
