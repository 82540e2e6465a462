"""What the documentation says is true: its commands run, its tables list every setting, its links lead somewhere."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from support.bench_grid import InProcess
from support.scans import ball, write_nifti

from semiseg import METHODS, ConsistencyConfig, MethodConfig, RunSettings, errors
from semiseg.cli import app, main
from semiseg.experiments.run_settings import StudentConfig
from semiseg.methods.method import UnlabelledConfig
from semiseg.methods.strong import StrongConfig
from semiseg.settings import Settings
from semiseg.training.session import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands
TINY_PLAN = {
    "patch": [8, 8], "batch": 2, "unlabelled_batch": 2, "network": {"widths": [4, 8], "strides": [[2, 2]]},
}  # fmt: skip
TINY = {
    "dims": "2",
    "plan": TINY_PLAN,
    "training": {"steps": 2, "precision": "32", "tensorboard": False, "validate_every": 2},
}
PLANNED = ["--dims", "2", *(part for k, v in TINY_PLAN.items() for part in ("--set", f"plan.{k}={json.dumps(v)}"))]
TRAINED = ["--steps", "2", "--precision", "32", "--set", "training.tensorboard=false"]
COMPARED = ["--set", "training.precision=32", "--runs", "1", "--upper-runs", "0"]
SHORTER = {
    "plan": PLANNED,
    "prepare": PLANNED,
    "train": PLANNED + TRAINED,
    "bench": PLANNED + [word for word in TRAINED if word not in ("--precision", "32")] + COMPARED,
    "simulate": ["--subjects", "1"],
}
"""What is appended to the documented commands, so that they take a moment."""


def blocks(page, *languages):
    pattern = rf"^```({'|'.join(languages)})\n(.*?)^```$"
    return [(kind, body) for kind, body in re.findall(pattern, page.read_text(encoding="utf-8"), re.M | re.S)]


def steps_of(page):
    """The page's commands and Python, in order: (kind, words or source)."""
    for kind, body in blocks(page, "console", "bash", "python"):
        if kind == "python":
            yield "python", body
            continue
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            starts = [k for k, word in enumerate(words) if word in ("semiseg", "semiseg.cli")]
            if starts and words[0] != "pip":
                yield ("run" if starts[0] == 0 else "parse"), words[starts[0] + 1 :]


def parses(words):
    """Raises if a flag does not exist or a value has the wrong type."""
    COMMANDS[words[0]].make_context(words[0], list(words[1:]))


@pytest.fixture
def my_folder(tmp_path, monkeypatch):
    """A folder with what the pages speak of, and the configuration files that they show."""
    for index in range(16):
        image, label = ball((12, 14, 10), index)
        place = tmp_path / ("my_scans/images" if index < 12 else "more_scans" if index < 14 else "new_scans")
        write_nifti(place / f"new{index - 13}.nii.gz" if index > 13 else place / f"scan{index:02d}.nii.gz", image)
        if index < 10:
            write_nifti(tmp_path / "my_scans" / "labels" / f"scan{index:02d}.nii.gz", label)
    document = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "ball": 1}}
    (tmp_path / "my_scans" / "dataset.json").write_text(json.dumps(document))
    for page in PAGES:
        for _, body in blocks(page, "yaml"):
            name = body.splitlines()[0].removeprefix("# ")
            (tmp_path / name).write_text(body)
    shutil.copy(ROOT / "examples" / "my_method.py", tmp_path)
    monkeypatch.setattr("semiseg.jobs.launchers.launcher_named", lambda *_, **__: InProcess())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMISEG_WORKERS", "1")
    monkeypatch.setenv("SEMISEG_DEVICE", "cpu")
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if any(steps_of(page))], ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_one_after_the_other(page, my_folder, monkeypatch, capsys):
    whole = RunSettings.parse
    for kind, step in steps_of(page):
        if kind == "python":
            (my_folder / "block.py").write_text(step)
            with monkeypatch.context() as patched:
                patched.setattr(RunSettings, "parse", lambda values, where: whole({**values, **TINY}, where=where))
                runpy.run_path("block.py", run_name="__main__")
        elif kind == "parse" or step[0] == "demo":  # the demonstration has tests of its own
            parses(step)
        else:
            fewer = ["--methods", "roam"] if step[0] == "bench" and ".py:" not in " ".join(step) else []
            with monkeypatch.context() as patched:
                patched.setattr(sys, "argv", ["semiseg", *step, *SHORTER.get(step[0], []), *fewer])
                with pytest.raises(SystemExit) as stop:
                    main()
            assert not stop.value.code, f"semiseg {' '.join(step)}\n{capsys.readouterr().err}"


def test_the_pages_have_commands_of_every_kind():
    """Otherwise the test above would pass by finding none."""
    kinds = {(kind, step[0]) for page in PAGES for kind, step in steps_of(page) if kind != "python"}
    assert {("run", name) for name in COMMANDS} | {("parse", "train")} <= kinds
    with pytest.raises(Exception, match="No such option"):
        parses(["train", "my_scans", "--out", "run", "--labeled", "4"])


# tables


def table_after(page, heading):
    """Cells of the first table after a line that contains `heading`."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert heading in text, heading
    rows = text[text.index(heading) :].partition("\n|")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|"))] for row in rows]


def shown(value):
    """A default as the tables write it; None where they use words."""
    if isinstance(value, Settings):
        return None
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


ABOVE = {
    name: next(
        above for above in (ConsistencyConfig, StrongConfig, UnlabelledConfig) if issubclass(method.Config, above)
    )
    for name, method in METHODS.items()
    if name != "supervised"
}
"""The settings that a method's own table need not repeat."""


@pytest.mark.parametrize(
    ("page", "heading", "config", "inherited"),
    [
        ("training.md", "`training`:", TrainingConfig, None),
        ("training.md", "`student`:", StudentConfig, None),
        ("methods.md", "Settings of every method:", MethodConfig, None),
        ("methods.md", "learns from unlabelled scans", UnlabelledConfig, MethodConfig),
        ("methods.md", "with a strong view", ConsistencyConfig, UnlabelledConfig),
        *(("methods.md", f"## {name}", METHODS[name].Config, above) for name, above in ABOVE.items()),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_table_of_settings_has_every_setting_with_its_default(page, heading, config, inherited):
    known = {name: shown(field.default) for name, field in config.model_fields.items()}
    above = {name: shown(field.default) for name, field in inherited.model_fields.items()} if inherited else {}
    written = {row[0].strip("`"): row[1] for row in table_after(page, heading)}
    own = {name for name in known if name not in above or known[name] != above[name]}
    assert own <= written.keys() <= known.keys()
    for name, text in written.items():
        if known[name] is not None:
            same = text == known[name] or (text[0].isdigit() and float(text) == pytest.approx(float(known[name]), 1e-3))
            assert same, f"{name}: {page} says {text}, the default is {known[name]}"


def test_supervised_has_no_settings_of_its_own():
    assert METHODS["supervised"].Config.model_fields.keys() == MethodConfig.model_fields.keys()


def test_every_method_has_a_section_and_is_named_in_the_readme_and_the_help():
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (flag,) = (parameter for parameter in COMMANDS["train"].params if parameter.name == "method")
    for name in METHODS:
        assert name in re.findall(r"\w+", flag.help)
        assert f"\n## {name}\n" in text
        assert f"`{name}`" in readme
        assert f"(src/semiseg/methods/{name}.py)" in readme


def test_the_table_of_train_has_every_flag():
    text = "\n".join(row[0] for row in table_after("commands.md", "## train"))
    flags = {flag for parameter in COMMANDS["train"].params for flag in parameter.opts if flag.startswith("--")}
    assert flags == {*re.findall(r"--[a-z-]+", text), "--out"}


def test_the_table_of_exit_codes_has_every_error():
    codes = {int(row[0]) for row in table_after("commands.md", "## Exit codes")}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.UserError)]
    assert {kind.exit_code for kind in kinds} | {0, 1, 130} == codes


# links and facts


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        measured = any((ROOT / "benchmarks").glob("*.md"))
        if "://" in target or (target.startswith("benchmarks/") and not measured):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in map(slug, headings), target


def test_the_site_has_every_page():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(nav) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    """A link that leads out of docs/ works on the hosting site's own pages, and nowhere else."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    # the theme's authors warn of a version of MkDocs that is not installed
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    for page in (ROOT / "docs").glob("*.md"):
        place = tmp_path / "site" if page.stem == "index" else tmp_path / "site" / page.stem
        assert (place / "index.html").is_file()


def test_versions_agree_and_both_papers_are_cited():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert len(citation["references"]) == 2
    for reference in citation["references"]:
        assert reference["title"] in readme


def test_make_has_the_targets_that_the_readme_and_the_automation_name():
    named = re.findall(r"^make ([\w-]+)$", (ROOT / "README.md").read_text() + (ROOT / ".ci" / "run").read_text(), re.M)
    assert {"demo", "test", "test-slow"} == set(named)
    for target in named:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_the_tests_that_the_table_of_the_originals_names_are_there():
    text = (ROOT / "docs" / "originals.md").read_text(encoding="utf-8")
    named = re.findall(r"(test_\w+\.py)(?:::(\w+)\[([\w-]+)\])?", text)
    assert len(named) > 30
    for file, function, parameter in named:
        (path,) = (ROOT / "tests").rglob(file)
        source = path.read_text(encoding="utf-8")
        assert f"def {function}" in source
        assert f'"{parameter}"' in source or not parameter
