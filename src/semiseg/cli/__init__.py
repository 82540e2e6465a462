"""The command line: flags are parsed here, the work is one call into the library. Imports inside the commands keep
`--help` fast."""

from semiseg.cli import data, models, bench, quality, tools  # noqa: F401  # isort: skip  # in the order of --help
from semiseg.cli.app import app
from semiseg.cli.entry import main

__all__ = ["app", "main"]
