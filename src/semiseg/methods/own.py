"""A method of one's own: a class in a Python file, known in this process under the class's name.

A file is imported only because FILE:CLASS was typed on this command line. What is read (settings, a run folder, a
model) holds the name of the class and the SHA-256 of its file, never a path, and imports nothing.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from semiseg.errors import UserError
from semiseg.methods import METHODS
from semiseg.methods.method import Method, MethodConfig

BUILT_IN = frozenset(METHODS)
OWN: dict[str, MethodFile] = {}
"""What this process has imported, by the name of the class."""


def names_a_file(text: str) -> bool:
    """Whether `text` is meant as FILE:CLASS; names of methods have no such characters."""
    return text.endswith(".py") or any(mark in text for mark in ":/\\")


@dataclass(frozen=True)
class MethodFile:
    """A class in a file that was read, and is imported when it is loaded."""

    given: str
    """As it was typed, for messages."""
    path: Path
    """Absolute: jobs may start in another folder."""
    name: str
    """Of the class."""
    source: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source).hexdigest()

    @classmethod
    def read(cls, text: str, flag: str) -> MethodFile:
        """From FILE:CLASS, typed behind `flag`. Raises UserError for anything else, and where there is no file."""
        file, _, name = text.rpartition(":")  # the last colon: the first may be that of a Windows drive
        given = f"{flag}{text}" if flag.endswith("=") else f"{flag} {text}"
        if not file or not name.isidentifier():
            raise UserError(f"{given}: got no class, expected FILE:CLASS; add the class, such as my_method.py:Mine")
        path = Path(file).expanduser().absolute()
        try:
            return cls(given, path, name, path.read_bytes())
        except OSError as error:
            raise UserError(f"{given}: got {error.strerror!r}, expected a Python file; check the path") from None

    def load(self, sha256: str | None = None) -> str:
        """Import the class and enter it in METHODS; returns the file's hash.

        sha256: what the file must have, checked before anything of it runs. Raises UserError for another hash, a file
        that fails, a class that is not there or is no method, and for a name that is taken.
        """
        if sha256 is not None and sha256 != self.sha256:
            raise UserError(
                f"{self.given}: got a file with SHA-256 {self.sha256}, expected {sha256}, as method.file_sha256 says; "
                "give the file as it was, or leave method.file_sha256 out"
            )
        if self.name in BUILT_IN:
            raise UserError(f"{self.given}: got the name of a built-in method, expected another; rename the class")
        known = OWN.get(self.name)
        if known and known.sha256 == self.sha256:
            return self.sha256
        if known and known.path != self.path:
            raise UserError(
                f"{self.given}: got a second class {self.name} beside that of {known.path}, expected another name; "
                "rename one of them"
            )
        module = ModuleType(f"semiseg_own_{self.sha256[:16]}")
        module.__file__ = str(self.path)
        sys.modules[module.__name__] = module  # where pydantic looks names in annotations up
        try:
            self._run_in(module)
            METHODS[self.name] = self._checked(module)
        except UserError:
            del sys.modules[module.__name__]
            raise
        OWN[self.name] = self
        return self.sha256

    def _run_in(self, module: ModuleType) -> None:
        try:
            # the very bytes that were hashed, and without this module's __future__
            exec(compile(self.source, str(self.path), "exec", dont_inherit=True), vars(module))
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{self.path}{_line(error, self.path)}: got {type(error).__name__}: {_said(error)}, "
                "expected a file that Python can import; correct it"
            ) from None

    def _checked(self, module: ModuleType) -> type[Method]:
        chosen = getattr(module, self.name, None)
        own = [
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
        ]
        close = difflib.get_close_matches(self.name, own, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"its methods: {', '.join(own) or 'none'}"
        if chosen is None:
            raise UserError(f"{self.given}: got no class {self.name!r} in the file, expected a method; {hint}")
        if not (isinstance(chosen, type) and issubclass(chosen, Method)):
            raise UserError(f"{self.given}: got {self.name}, expected a subclass of semiseg.Method; {hint}")
        if inspect.isabstract(chosen):
            raise UserError(f"{self.given}: got {self.name} without an objective, expected a method; write one")
        if not (isinstance(chosen.Config, type) and issubclass(chosen.Config, MethodConfig)):
            raise UserError(
                f"{self.given}: got Config = {chosen.Config!r}, expected a subclass of semiseg.MethodConfig; "
                "derive it from that"
            )
        return chosen


def _line(error: BaseException, path: Path) -> str:
    """Where in the file it went wrong."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _said(error: BaseException) -> str:
    return " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())


def method_named(name: str, sha256: str | None = None) -> type[Method]:
    """A built-in method, or one that this process has imported. sha256: of the file that settings speak of.

    Raises UserError, saying what to give, for any other; it imports nothing.
    """
    if names_a_file(name):
        raise UserError(
            f"method.name: got {name!r}, expected a name: a file is imported only where it is typed; "
            f"say --method {name} (in a bench --methods NAME={name})"
        )
    if sha256 is not None and name in BUILT_IN:
        raise UserError(f"method.file_sha256: got {sha256} with method {name}, which is no file; leave it out")
    known = OWN.get(name)
    if sha256 is not None and (known is None or known.sha256 != sha256):
        got = described({"name": name, **file_of(name)}) if known else f"{name} without its file"
        raise UserError(
            f"method: got {got}, expected the file with SHA-256 {sha256}; "
            f"say --method FILE:{name} (in a bench --methods NAME=FILE:{name}) with that file"
        )
    if name not in METHODS:
        raise UserError(
            f"--method: got {name!r}, expected one of: {', '.join(METHODS)}; "
            "say --method FILE:CLASS for one of your own"
        )
    return METHODS[name]


def file_of(name: str) -> dict[str, str]:
    """What settings keep of a method's file; nothing of a built-in method."""
    return {"file_sha256": OWN[name].sha256} if name in OWN else {}


def flags_for(name: str) -> list[str]:
    """What a job's command line must say of a method beside its settings, so that it imports the same file or none."""
    if name not in OWN:
        return []
    file = OWN[name]
    return ["--method", f"{file.path}:{name}", "--set", f"method.file_sha256={file.sha256}"]


def refuse_other_file(begun: Mapping[str, Any], now: Mapping[str, Any], where: str, flag: str) -> None:
    """Raises UserError if something was begun with a method of one's own, and now another or another file is given.

    begun, now: `name` and `file_sha256`. flag: what comes before FILE:CLASS.
    """
    wanted = begun.get("file_sha256"), begun.get("name")
    if wanted[0] is not None and wanted != (now.get("file_sha256"), now.get("name")):
        raise UserError(
            f"{where}: got {described(now)}, expected {described(begun)}, which it was begun with; "
            f"say {flag}FILE:{wanted[1]} with that file, or choose another --out"
        )


def described(method: Mapping[str, Any]) -> str:
    """In a message."""
    if "name" not in method:
        return "none"
    sha256 = method.get("file_sha256")
    return f"{method['name']} of a file with SHA-256 {sha256}" if sha256 else str(method["name"])
