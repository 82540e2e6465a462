"""Every test that docs/promises.md names is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def test_there_are_ten_promises_and_each_names_its_tests():
    sections = PAGE.split("\n## ")[1:]
    assert [section.partition(".")[0] for section in sections] == [str(k) for k in range(1, 11)]
    assert all("tests/" in section for section in sections)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_is_there(file, name):
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.M)


@pytest.mark.slow
def test_and_is_collected():
    """A test in a file that pytest does not look into, or under another one's name, would prove nothing."""
    words = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", *("::".join(one) for one in NAMED)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
    assert {tuple(line.partition("[")[0].split("::")) for line in done.stdout.splitlines() if "::" in line} == {*NAMED}
