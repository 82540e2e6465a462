"""`python -m semiseg`, and what the command `semiseg` starts."""

import sys


def main() -> None:
    """The command line; Ctrl-C while it is still being imported ends it like any other time."""
    try:
        from semiseg.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
