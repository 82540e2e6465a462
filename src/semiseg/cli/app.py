"""The application that every command registers with."""

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes longer to import than everything else that --help needs
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Segmentation of medical scans from a few labels: check, train, predict, evaluate.",
)
