"""What a user can get wrong, one class per exit code. The command line prints the message alone."""


class UserError(Exception):
    """A mistake that one clear message explains: `<file or argument>: got <value>, expected <what>; <next action>`."""

    exit_code = 2


class InputError(UserError):
    """Bad, inconsistent or leaking input data."""

    exit_code = 3


class SomeCasesFailed(UserError):
    """Some cases failed; everything else was written (see `failed.csv`)."""

    exit_code = 4


class MissingExtra(UserError):
    """An optional package is not installed; the message holds the pip line."""

    exit_code = 5


class OutOfMemory(UserError):
    """Memory ran out; the message says what to lower."""

    exit_code = 6


class Diverged(UserError):
    """The loss became NaN or infinite."""

    exit_code = 7


class Preempted(UserError):
    """Stopped by SIGTERM with a checkpoint saved; run again with `--resume`."""

    exit_code = 75
