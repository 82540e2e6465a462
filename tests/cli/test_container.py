"""The Dockerfile: a linter has nothing to say, and what it copies is not ignored. Nothing is built here."""

import re
import subprocess
import sysconfig
from pathlib import Path

from semiseg.experiments.recipes import recipe_names

ROOT = Path(__file__).resolve().parents[2]


def test_the_linter_finds_nothing():
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_everything_that_is_copied_is_sent_to_the_build():
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    sources = {source for line in copied for source in line.split()}
    assert sources == {"constraints.txt", "pyproject.toml", "README.md", "LICENSE", "src"}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert sources == {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_runs_the_command_as_nobody_special():
    text = (ROOT / "Dockerfile").read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    assert 'ENTRYPOINT ["semiseg"]' in last_stage
    assert re.search(r"^USER (\d+)$", last_stage, re.M)[1] != "0"
    assert 'VOLUME ["/data", "/runs", "/cache"]' in last_stage


def test_the_cache_is_private():
    text = (ROOT / "Dockerfile").read_text()
    assert "mkdir --mode=0700 /cache" in text
    assert "chmod" not in text


def test_the_versions_are_those_that_were_tested():
    text = (ROOT / "Dockerfile").read_text()
    installs = re.findall(r"^RUN pip install (.*)$", text, re.M)
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in words for words in installs)


def test_there_is_a_line_for_every_recipe():
    page = (ROOT / "docs" / "container.md").read_text()
    for name in recipe_names():
        assert f"--recipe {name} " in page, name
