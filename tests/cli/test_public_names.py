"""What `semiseg` offers by name: lazily, completely, and without hiding a module."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import semiseg

SOURCE = Path(semiseg.__file__)
NAMES = sorted(semiseg._HOME_OF)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_what_its_module_calls_so(name):
    module = importlib.import_module(f"semiseg.{semiseg._HOME_OF[name]}")
    assert getattr(semiseg, name) is getattr(module, name)
    assert name in dir(semiseg)


@pytest.mark.parametrize("name", NAMES)
def test_no_public_name_hides_a_module(name):
    assert importlib.util.find_spec(f"semiseg.{name}") is None


def test_type_checkers_see_the_same_names_from_the_same_modules():
    (block,) = (node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"semiseg.{home}" for name, home in semiseg._HOME_OF.items()}


def test_an_unknown_name_is_named():
    with pytest.raises(AttributeError, match="module 'semiseg' has no attribute 'segmnet'"):
        _ = semiseg.segmnet


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, semiseg; print(*{'torch', 'numpy', 'pydantic', 'typer', 'semiseg.types'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
