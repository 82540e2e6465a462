"""The application that every command registers with."""

from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes longer to import than everything else that --help needs
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Segmentation of medical scans from a few labels: check, train, predict, evaluate.",
)


def _print_version(asked: bool) -> None:
    from importlib.metadata import version

    if asked:
        print(f"semiseg {version('semiseg')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...
