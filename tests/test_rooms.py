"""The layout of the code: every import runs down the wings of docs/architecture.md, none in a circle."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "semiseg"


def wings_of_the_page() -> tuple[list[str], list[str]]:
    """The wings from top to bottom, and the modules of the ground floor."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## The wings")[2].partition("\n## ")[0]
    wings = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    (ground,) = re.findall(r"^\| ground floor \| (.*) \|$", table, re.MULTILINE)
    return wings, re.findall(r"`(\w+)`", ground)


WINGS, GROUND = wings_of_the_page()


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in SOURCE.rglob("*.py")}
for outermost in ("__init__", "__main__"):  # the public names, which come from everywhere; the command
    MODULES.pop(outermost)


def imports_of(path: Path) -> set[str]:
    """The modules of ours that a module imports anywhere, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "semiseg":
            base = (node.module or "").removeprefix("semiseg").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if inner in MODULES else base)
    return found


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def floor_of(module: str) -> int:
    wing = module.partition(".")[0]
    return len(WINGS) if wing in GROUND else WINGS.index(wing)


def test_the_page_names_every_wing_and_every_module_of_the_ground_floor():
    assert sorted({name.partition(".")[0] for name in MODULES}) == sorted({*WINGS, *GROUND})
    assert len(WINGS) > 10
    assert sum(len(imports) for imports in IMPORTS.values()) > 300


def test_every_import_runs_down():
    up = [f"{a} -> {b}" for a, targets in IMPORTS.items() for b in targets if floor_of(b) < floor_of(a)]
    assert not up


def circles(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import themselves by way of others."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [*imports[start]]
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += imports.get(module, ())
        return seen

    return [module for module in imports if module in reached(module)]


def test_no_imports_in_a_circle():
    assert not circles(IMPORTS)
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]


def test_no_two_files_have_one_name():
    count = Counter(path.name for path in MODULES.values() if not path.name.startswith("__"))
    assert not [name for name, times in count.items() if times > 1]


@pytest.mark.parametrize("wing", ["methods", "networks", "transforms", "data"])
def test_what_computes_knows_no_command_line_and_no_plotting(wing):
    for name, path in MODULES.items():
        if name.partition(".")[0] == wing:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"^\s*(from|import) (typer|rich|matplotlib|jinja2)\b", text, re.MULTILINE), name


def test_tests_mirror_the_wings():
    """Each wing has a folder of tests; nothing but tests, support and oracles lies there; no test imports another."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name[0] not in "_."}
    assert folders - {"support", "reference", "campaign", "promises"} <= {*WINGS}
    assert {*WINGS} - {"demo"} <= folders
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(from|import) (test_\w+|conftest)\b", text, re.MULTILINE), path
