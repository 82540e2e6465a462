"""Nothing that is loaded runs code: by what our own source calls, and by files that would if they could."""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import os
import pickle
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import yaml
from monai.networks import nets
from support.bench_grid import write_balls
from support.command_line import TINY, semiseg
from support.watched import heard

from semiseg.errors import UserError
from semiseg.networks.monai_network import MonaiNetwork

pytestmark = pytest.mark.usefixtures("one_core")

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    [*(ROOT / "src").rglob("*.py"), *(ROOT / "examples").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
)

MODULES = {
    "pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "dbm", "marshal", "copyreg", "code", "codeop",
    "runpy", "imp", "zipimport", "pkgutil", "pydoc", "ctypes", "cffi", "pty", "numexpr", "fire",
}  # fmt: skip
"""Not even imported: what they read becomes objects, or code."""
NAMES = (
    *("builtins.eval", "builtins.exec", "builtins.compile", "builtins.__import__", "sys.modules"),
    *("os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn", "os.startfile"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
    *("torch.load", "torch.jit", "torch.hub", "torch.package", "torch.serialization", "torch.export", "torch.ops"),
    *("torch.classes", "torch.utils.cpp_extension", "torch.utils.model_zoo", "torch.distributed.rpc"),
    *("numpy.lib", "numpy.f2py", "numpy.ctypeslib", "numpy.DataSource"),
    *("pandas.read_pickle", "pandas.eval", "pandas.read_hdf"),
    *("monai.bundle", "monai.apps", "monai.utils.instantiate", "monai.utils.optional_import", "monai.utils.module"),
    *("multiprocessing.connection", "multiprocessing.managers", "logging.config", "pydantic.ImportString"),
)
"""Not even mentioned, nor what is below, nor what begins so."""
FEW = {"yaml": {"safe_load", "safe_dump", "YAMLError"}, "importlib": {"metadata"}}
"""All that is mentioned of these two."""
TEXTS = {"query", "eval"}
"""Methods of tables that run their argument; `eval()` of a network has none."""

ALLOWED = {
    # FILE:CLASS that was typed on this very command line: the user's own programme (docs/methods.md)
    ("semiseg/methods/own.py", "builtins.exec"),
    ("semiseg/methods/own.py", "builtins.compile"),
    ("semiseg/methods/own.py", "sys.modules"),
    # the public names, imported when they are first used, from a table in the same file
    ("semiseg/__init__.py", "importlib.import_module"),
    # where an installed package lies, for a picture in it; nothing is imported
    ("semiseg/simulate/brain.py", "importlib.util"),
    ("semiseg/simulate/brain.py", "importlib.util.find_spec"),
    # plan.network.name may be monai:CLASS: looked up among the classes of monai.networks.nets alone (docs/networks.md)
    ("semiseg/networks/monai_network.py", "vars of monai.networks.nets"),
}


def findings(source: str) -> set[str]:
    """What a module mentions, by the full names that its imports give, and calls that must say more or less."""
    tree = ast.parse(source)
    known = {name: f"builtins.{name}" for name in vars(builtins)}
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                imported.add(one.name)
                known[one.asname or one.name.partition(".")[0]] = one.name if one.asname else one.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for one in node.names:
                imported.add(f"{node.module}.{one.name}")
                known[one.asname or one.name] = f"{node.module}.{one.name}"
    chains = outermost(tree)
    mentioned = imported | {full_name(node, known) for node in chains}
    found = {name for name in mentioned if is_forbidden(name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found |= set(of_call(node, full_name(node.func, known), known))
        elif isinstance(node, ast.Attribute) and node.attr == "__dict__" and full_name(node.value, known):
            found.add(f"vars of {full_name(node.value, known)}")
    return found


def outermost(tree: ast.AST) -> list[ast.expr]:
    """Names and chains of attributes that are no part of a longer chain."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return [node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner]


def full_name(node: ast.AST, known: dict[str, str]) -> str:
    """`np.load` as `numpy.load`; empty for what begins with no name of an import or of Python itself."""
    if isinstance(node, ast.Name):
        return known.get(node.id, "")
    above = full_name(node.value, known) if isinstance(node, ast.Attribute) else ""
    return f"{above}.{node.attr}" if above else ""


def is_forbidden(name: str) -> bool:
    top, _, rest = name.partition(".")
    if top in FEW:
        return bool(rest) and rest.partition(".")[0] not in FEW[top]
    return top in MODULES or name.startswith(NAMES)


def of_call(node: ast.Call, name: str, known: dict[str, str]) -> Iterator[str]:
    said = {keyword.arg: keyword.value for keyword in node.keywords}

    def denied(key: str) -> bool:
        return isinstance(said.get(key), ast.Constant) and said[key].value is False

    if name == "numpy.load" and not denied("allow_pickle"):
        yield "numpy.load without allow_pickle=False"
    if name.startswith("numpy.save") and "allow_pickle" in said and not denied("allow_pickle"):
        yield f"{name} with pickles"
    if name.startswith("subprocess."):
        if (said.keys() & {"shell", None}) and not denied("shell"):
            yield "subprocess with a shell"
        if node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr | ast.BinOp):
            yield "subprocess with one text for a command line"
    if isinstance(node.func, ast.Attribute) and node.func.attr in TEXTS and (node.args or node.keywords):
        yield f".{node.func.attr}() with an argument"
    if name in ("builtins.getattr", "builtins.vars") and node.args:
        of = full_name(node.args[0], known)
        constant = len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
        if of and not of.startswith("builtins.") and not constant:
            yield f"{name.removeprefix('builtins.')} of {of}"


def test_our_own_source_has_nothing_that_runs_what_it_reads():
    assert len(SOURCES) > 150
    found = {
        (path.relative_to(ROOT).as_posix().removeprefix("src/"), what)
        for path in SOURCES
        for what in findings(path.read_text(encoding="utf-8"))
    }
    assert found - ALLOWED == set()
    assert ALLOWED - found == set()  # what is not needed any more is not allowed any more


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", "pickle"),
        ("import pickle as p\np.loads(b'')", "pickle.loads"),
        ("from joblib import load as l", "joblib.load"),
        ("def f(text):\n    return eval(text)", "builtins.eval"),
        ("run = exec", "builtins.exec"),
        ("import builtins\nbuiltins.compile('1', '', 'eval')", "builtins.compile"),
        ("__import__('os')", "builtins.__import__"),
        ("import importlib\nimportlib.import_module(name)", "importlib.import_module"),
        ("from importlib import import_module as load", "importlib.import_module"),
        ("import importlib.util as u\nu.spec_from_file_location('a', 'b')", "importlib.util.spec_from_file_location"),
        ("import torch\ntorch.load('a.pt', weights_only=True)", "torch.load"),
        ("from torch.jit import load", "torch.jit.load"),
        ("import torch as t\nt.hub.load('a', 'b')", "torch.hub.load"),
        ("import numpy as np\nnp.load('a.npy')", "numpy.load without allow_pickle=False"),
        ("import numpy as np\nnp.load('a.npy', allow_pickle=True)", "numpy.load without allow_pickle=False"),
        ("from numpy import load\nload('a.npy', allow_pickle=yes)", "numpy.load without allow_pickle=False"),
        ("import numpy as np\nnp.savez('a', b=1, allow_pickle=True)", "numpy.savez with pickles"),
        ("import yaml\nyaml.load(text, yaml.Loader)", "yaml.load"),
        ("from yaml import full_load", "yaml.full_load"),
        ("import yaml\nyaml.unsafe_load(text)", "yaml.unsafe_load"),
        ("import subprocess\nsubprocess.run(words, shell=True)", "subprocess with a shell"),
        ("from subprocess import run\nrun(words, shell=wanted)", "subprocess with a shell"),
        ("import subprocess\nsubprocess.run(words, **options)", "subprocess with a shell"),
        ("import subprocess\nsubprocess.run(f'rm {name}')", "subprocess with one text for a command line"),
        ("import os\nos.system('true')", "os.system"),
        ("import os\nos.execvp('a', ['a'])", "os.execvp"),
        ("import pandas as pd\npd.read_pickle('a')", "pandas.read_pickle"),
        ("table.query(text)", ".query() with an argument"),
        ("table.eval('a + b')", ".eval() with an argument"),
        ("from monai.networks import nets\ngetattr(nets, name)", "getattr of monai.networks.nets"),
        ("import torch\nvars(torch)[name]", "vars of torch"),
        ("import torch\ntorch.__dict__[name]", "vars of torch"),
        ("import sys\nsys.modules[name]", "sys.modules"),
        ("from pydantic import ImportString", "pydantic.ImportString"),
        ("if True:\n    def g():\n        import shelve", "shelve"),
    ],
)
def test_the_reader_finds_what_is_planted(source, found):
    assert found in findings(source)


def test_and_nothing_else():
    harmless = """
        import json, re, subprocess, yaml
        import numpy as np
        from importlib.metadata import version
        from torch import nn

        def read(path: str, network: nn.Module, key: str) -> object:
            pattern = re.compile("a+")
            values = yaml.safe_load(open(path))
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            np.save(path, array)
            subprocess.run(["true"], check=True)
            subprocess.run([*values, "true"], shell=False)
            network.eval()
            return getattr(values, key), pattern.match(version("numpy")), json.loads("1")
    """
    assert findings(textwrap.dedent(harmless)) == set()


# files that would run code if they could


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def armed(marker: Path, ending: str) -> bytes:
    """What stands for a file of this ending in its own format, where that could hold a pickle."""
    stream = io.BytesIO()
    if ending in (".npy", ".npz"):
        np.save(stream, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    elif ending == ".safetensors":
        torch.save({"weights": Bomb(marker)}, stream)
    elif ending in (".yaml", ".json", ".jsonl"):
        return f"!!python/object/apply:os.mkdir ['{marker}']\n".encode()
    else:
        pickle.dump(Bomb(marker), stream)
    return stream.getvalue()


@pytest.mark.parametrize("ending", [".npy", ".safetensors", ".yaml", ".pkl"])
def test_the_bombs_go_off(tmp_path, ending):
    """In the hands of those who would let them: else the tests below would pass with duds."""
    content = armed(tmp_path / "marker", ending)
    if ending == ".npy":
        np.load(io.BytesIO(content), allow_pickle=True)
    elif ending == ".safetensors":
        torch.load(io.BytesIO(content), weights_only=False)
    elif ending == ".yaml":
        yaml.unsafe_load(content)
    else:
        pickle.loads(content)
    assert (tmp_path / "marker").is_dir()


def read_all(study: Path, run: Path, out: Path) -> list[int]:
    """The commands that read a run, and what they make of it."""
    words = ("train", study, "--method", "equireg", "--labelled", "2", "--val", "1", "--test", "1", *TINY)
    return [
        semiseg(*words, "--out", run, "--resume", "--quiet")[0],
        semiseg("predict", run, study / "images", "--out", run / "predictions", "--quiet")[0],
        semiseg("evaluate", run / "predictions", study, "--out", run / "scores", "--overwrite", "--quiet")[0],
        semiseg("report", run, "--out", out / "report.html", "--quiet")[0],
    ]


@pytest.fixture
def finished(study, run_folder, tmp_path, monkeypatch):
    """A run with predictions and scores whose last steps are missing, and a cache of its own."""
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    assert read_all(study, tmp_path / "run", tmp_path) == [0, 0, 0, 0]
    (tmp_path / "run" / "result.json").unlink()
    return tmp_path


def outcome_of(study: Path, finished: Path, files: list[Path]) -> list[int]:
    """Of the commands on a copy in which these files are armed."""
    marker, copy = finished / "marker", finished / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("run", "cache"):
        shutil.copytree(finished / name, copy / name)
    for path in files:
        (copy / path.relative_to(finished)).write_bytes(armed(marker, path.suffix))
    with patch.dict(os.environ, SEMISEG_CACHE=str(copy / "cache")), heard("pickle.find_class") as unpickled:
        codes = read_all(study, copy / "run", copy)
    assert not marker.exists(), files
    assert unpickled == [], files
    assert set(codes) <= {0, 2, 3, 4}, files
    return codes


def test_a_pickle_in_the_place_of_arrays_or_weights_is_never_opened_as_one(study, finished):
    arrays = sorted((finished / "cache").rglob("*.npy"))
    assert len(arrays) > 8
    assert outcome_of(study, finished, arrays) == [0, 0, 0, 0]  # made anew
    weights = sorted((finished / "run").rglob("*.safetensors"))
    assert len(weights) > 2
    assert outcome_of(study, finished, weights)[:2] == [2, 3]  # no checkpoint to go on with, no model


@pytest.mark.slow
def test_nor_in_the_place_of_any_other_file_of_a_run_or_its_cache(study, finished):
    files = [path for path in sorted((finished / "run").rglob("*")) if path.is_file()]
    kinds = {path.parent.parent.name or path.parent.name: path for path in (finished / "cache").rglob("*.json")}
    assert len(files) > 25
    refused = {path.name for path in [*files, *kinds.values()] if outcome_of(study, finished, [path])[0] != 0}
    assert {"config.yaml", "splits.json", "plan.json", "provenance.json"} <= refused


def test_nor_as_a_stack_of_slices_or_a_label_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMISEG_CACHE", str(tmp_path / "cache"))
    marker = tmp_path / "marker"
    (tmp_path / "covid").mkdir()
    for name in ("COVID.npy", "COVID_Seg.npy"):
        (tmp_path / "covid" / name).write_bytes(armed(marker, ".npy"))
    root = write_balls(tmp_path / "balls")
    for path in (root / "labels").iterdir():
        path.write_bytes(armed(marker, ".pkl"))
    with heard("pickle.find_class") as unpickled:
        assert semiseg("check", tmp_path / "covid")[0] == 3
        assert semiseg("check", root)[0] == 3
    assert unpickled == []
    assert not marker.exists()


@pytest.mark.slow
def test_building_any_network_of_monai_reads_nothing_and_asks_nobody():
    """plan.network.name may name any of them, also in a model that somebody gave away."""
    names = sorted({kind.__name__ for kind in vars(nets).values() if isinstance(kind, type)})
    assert len(names) > 60
    built = []
    with heard("socket.", "urllib", "pickle.find_class", "subprocess", "os.system", "shutil", "os.mkdir") as events:
        for name in names:
            with contextlib.suppress(UserError):  # most want options, or are no networks for segmentation
                MonaiNetwork(name, {}, 1, 3, (32, 32))
                built.append(name)
    assert len(built) > 5
    assert events == []


@pytest.mark.parametrize("name", ["Transchex", "CellSamWrapper"])
def test_networks_of_monai_that_fetch_their_weights_are_refused(name):
    with pytest.raises(UserError, match=f"network.name: got 'monai:{name}', which reads weights from elsewhere"):
        MonaiNetwork(name, {}, 1, 3, (32, 32))
