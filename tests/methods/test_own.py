"""Importing a method of one's own: what is entered where, and one message for each mistake."""

import hashlib
import re
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from support.own_method import SOURCE, write_method

from semiseg import METHODS, Method, UserError
from semiseg.methods.own import OWN, MethodFile, file_of, flags_for, method_named, names_a_file, refuse_other_file


def load(text, sha256=None):
    return MethodFile.read(str(text), "--method").load(sha256)


def test_the_class_is_known_under_its_name_with_the_hash_of_its_file(tmp_path):
    path = write_method(tmp_path)
    sha256 = load(f"{path}:Mine")
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    made = METHODS["Mine"]
    assert issubclass(made, Method)
    assert made.Config.parse({"alpha": 2}, where="method").alpha == 2.0  # its annotations are strings
    assert method_named("Mine") is method_named("Mine", sha256) is made
    assert file_of("Mine") == {"file_sha256": sha256}
    assert flags_for("Mine") == ["--method", f"{path}:Mine", "--set", f"method.file_sha256={sha256}"]
    assert file_of("roam") == {}
    assert flags_for("roam") == []


def test_a_relative_path_becomes_absolute(tmp_path, monkeypatch):
    write_method(tmp_path)
    monkeypatch.chdir(tmp_path)
    load("my_method.py:Mine")
    assert flags_for("Mine")[1] == f"{tmp_path}/my_method.py:Mine"


def test_the_last_colon_counts_so_that_a_drive_keeps_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "C:\\code.py").write_text(SOURCE)
    file = MethodFile.read("C:\\code.py:Mine", "--method")
    assert (file.path.name, file.name) == ("C:\\code.py", "Mine")


@pytest.mark.parametrize("text", ["my.py", "my.py:Mine", "a/my:Mine", "C:\\my.py:Mine", "a\\my.py"])
def test_what_names_a_file(text):
    assert names_a_file(text)
    assert not any(map(names_a_file, METHODS))


def test_the_file_is_run_once_and_leaves_nothing_beside_it(tmp_path):
    marker = tmp_path / "runs.txt"
    path = write_method(
        tmp_path / "code", f"{SOURCE}\nwith open({str(marker)!r}, 'a') as file:\n    file.write('once ')\n"
    )
    load(f"{path}:Mine")
    load(f"{path}:Mine")
    assert marker.read_text() == "once "
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_an_edited_file_replaces_its_class_and_another_file_does_not(tmp_path):
    path = write_method(tmp_path)
    before = load(f"{path}:Mine")
    path.write_text(SOURCE.replace("1.0", "3.0"))
    after = load(f"{path}:Mine")
    assert after != before
    assert METHODS["Mine"].Config().alpha == 3.0
    other = write_method(tmp_path / "other")
    with pytest.raises(UserError, match=rf"got a second class Mine beside that of {path}, .*; rename one"):
        load(f"{other}:Mine")


def test_the_hash_is_checked_before_anything_is_run(tmp_path):
    path = write_method(tmp_path, "raise RuntimeError('it was run')")
    with pytest.raises(UserError, match=r"got a file with SHA-256 \w{64}, expected 00ff, .*; give the file as it was"):
        load(f"{path}:Mine", "00ff")


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        (":Mine2", SOURCE, "got no class 'Mine2' in the file, expected a method; did you mean 'Mine'?"),
        (":Mine", "x = 1\n", "got no class 'Mine' in the file, expected a method; its methods: none"),
        (":MineConfig", SOURCE, "got MineConfig, expected a subclass of semiseg.Method; "),
        (":cross_entropy", SOURCE, "got cross_entropy, expected a subclass of semiseg.Method; "),
        (":Mine", SOURCE.replace("def objective", "def objectiv"), "got Mine without an objective, expected a method"),
        (":Mine", SOURCE.replace("Config = MineConfig", "Config = dict"), "got Config = <class 'dict'>, expected a"),
        (":roam", SOURCE, "got the name of a built-in method, expected another; rename the class"),
        ("", SOURCE, "got no class, expected FILE:CLASS; add the class, such as my_method.py:Mine"),
        (":", SOURCE, "got no class, expected FILE:CLASS"),
        (":Mine", "\n\nx = 1 / 0\n", ", line 3: got ZeroDivisionError: division by zero, expected a file that Python"),
        (":Mine", "import semiseg\n\ndef f(:\n", ", line 3: got SyntaxError: invalid syntax, expected a file that"),
        (":Mine", "import not_there\n", ", line 1: got ModuleNotFoundError: No module named 'not_there', expected"),
        (":Mine", "import json\n\njson.loads('')\n", ", line 3: got JSONDecodeError: "),
        (":Mine", "import sys\nsys.exit(3)\n", ", line 2: got SystemExit: 3, expected a file that Python can import"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_entered(tmp_path, name, source, said):
    path = write_method(tmp_path, source)
    methods, modules = dict(METHODS), set(sys.modules)
    with pytest.raises(UserError, match=re.escape(said)) as stop:
        load(f"{path}{name}")
    assert str(stop.value).startswith((f"--method {path}{name}: ", f"{path}, line "))
    assert "\n" not in str(stop.value)
    assert stop.value.exit_code == 2
    assert methods == METHODS
    assert not OWN
    assert not any(module.startswith("semiseg_own") for module in set(sys.modules) - modules)


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "nowhere.py", tmp_path):
        with pytest.raises(
            UserError, match=rf"--method {path}:Mine: got '.*director.*', expected a Python file; check"
        ):
            load(f"{path}:Mine")


def test_settings_alone_lead_to_no_import_and_say_what_to_give(tmp_path):
    path = write_method(tmp_path, "raise RuntimeError('it was run')")
    with pytest.raises(UserError, match=rf"method.name: got '{path}:Mine', .*; say --method {path}:Mine"):
        method_named(f"{path}:Mine")
    with pytest.raises(
        UserError, match=r"got Mine without its file, expected the file with SHA-256 12ab; say --method"
    ):
        method_named("Mine", "12ab")
    with pytest.raises(
        UserError, match=r"--method: got 'Mine', expected one of: supervised, .*; say --method FILE:CLASS"
    ):
        method_named("Mine")
    with pytest.raises(
        UserError, match=r"method.file_sha256: got 12ab with method roam, which is no file; leave it out"
    ):
        method_named("roam", "12ab")


def test_another_hash_than_that_of_the_settings_is_refused(tmp_path):
    sha256 = load(f"{write_method(tmp_path)}:Mine")
    with pytest.raises(
        UserError, match=rf"got Mine of a file with SHA-256 {sha256}, expected the file with SHA-256 12ab"
    ):
        method_named("Mine", "12ab")


def test_what_is_hashed_is_what_is_run(tmp_path):
    """An edit between reading and importing changes nothing."""
    path = write_method(tmp_path)
    file = MethodFile.read(f"{path}:Mine", "--method")
    path.write_text("raise RuntimeError('it was run')")
    assert file.load() == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert replace(file, path=Path("elsewhere")).sha256 == file.sha256


def test_the_file_has_its_own_future(tmp_path):
    """Annotations are values where the file does not ask for strings, whatever the module that imports it does."""
    path = write_method(tmp_path, SOURCE.replace("from __future__ import annotations\n", ""))
    load(f"{path}:Mine")
    assert METHODS["Mine"].__annotations__["config"] is METHODS["Mine"].Config


def test_a_file_that_fails_deep_inside_names_the_line_where_it_did(tmp_path):
    source = "def deep():\n    raise KeyError('x')\n\n\ndef middle():\n    deep()\n\n\nmiddle()\n"
    with pytest.raises(UserError, match=r"my_method\.py, line 2: got KeyError"):
        load(f"{write_method(tmp_path, source)}:Mine")


def test_the_file_knows_its_own_path_and_is_kept_as_it_was_read(tmp_path):
    path = write_method(tmp_path, f"{SOURCE}\nMine.path = __file__\n")
    load(f"{path}:Mine")
    assert METHODS["Mine"].path == str(path)
    file = OWN["Mine"]
    assert "class Mine" not in repr(file)  # a message does not print a whole file
    with pytest.raises(FrozenInstanceError):
        file.source = b""


@pytest.mark.parametrize(
    ("begun", "now", "refused"),
    [
        ({"name": "roam"}, {"name": "equireg"}, False),  # built-in methods are compared with all other settings
        ({"name": "Mine", "file_sha256": "5"}, {"name": "Mine", "file_sha256": "5"}, False),
        ({"name": "Mine", "file_sha256": "5"}, {"name": "Mine", "file_sha256": "4"}, True),
        ({"name": "Mine", "file_sha256": "5"}, {"name": "Mine", "file_sha256": "6"}, True),
        ({"name": "Mine", "file_sha256": "5"}, {"name": "Other", "file_sha256": "5"}, True),
        ({"name": "Mine", "file_sha256": "5"}, {"name": "Mine"}, True),
        ({"name": "Mine", "file_sha256": "5"}, {}, True),
    ],
)
def test_what_was_begun_with_a_file_goes_on_with_that_file_alone(begun, now, refused):
    if not refused:
        refuse_other_file(begun, now, "run", "--method ")
        return
    with pytest.raises(
        UserError, match=r"run: got .*, expected Mine of a file with SHA-256 5, which it was begun with"
    ):
        refuse_other_file(begun, now, "run", "--method ")
