"""What is installed: the version that the command tells, and what the wheel holds."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.command_line import semiseg

import semiseg as package

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(package.__file__).parent


def test_the_version_is_told_without_importing_anything_heavy():
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print({'torch', 'numpy', 'pydantic', 'scipy'} & set(sys.modules)))\n"
        "from semiseg.cli import main\n"
        "sys.argv = ['semiseg', '--version']\n"
        "main()\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    version = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == f"semiseg {version.split(chr(34))[1]}\nset()\n"


def test_the_version_comes_before_any_command():
    assert semiseg("--version", "train")[0] == 0
    code, _, err = semiseg("train", "--version")
    assert code == 2
    assert "No such option" in err


def test_type_checkers_are_told_that_the_annotations_are_there():
    assert (SOURCE / "py.typed").is_file()


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(tmp_path):
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(words, check=True, timeout=600)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("semiseg/")}
    files = (path.relative_to(SOURCE.parent) for path in SOURCE.rglob("*") if path.is_file())
    assert held == {path.as_posix() for path in files if "__pycache__" not in path.parts}
    assert "semiseg/py.typed" in held
