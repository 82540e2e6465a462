"""`--shard` and `--launcher` of the commands that can share scans out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from semiseg.cli.values import assigned
from semiseg.errors import UserError

if TYPE_CHECKING:
    from semiseg.jobs.shards import Shard


@dataclass(frozen=True, kw_only=True)
class SharingFlags:
    """How the scans of a command are shared out; each field is a flag."""

    shard: str | None
    launcher: str | None
    jobs: int | None
    scheduler: str | None
    slurm: list[str] | None


def shared_out(
    sharing: SharingFlags,
    context: typer.Context,
    out: Path,
    *,
    overwrite: bool,
    device: str = "cpu",
    at_the_end: Collection[str] = (),
) -> tuple[Shard | None, bool]:
    """Run the shards of a command, if it has a launcher; what it is still to do: its shard, and whether to overwrite.

    context: of the command, whose flags its shards get too. at_the_end: those that are not for shards.
    """
    name, jobs = sharing.launcher, sharing.jobs
    if sharing.shard is not None:
        from semiseg.jobs.shards import Shard

        if name or jobs:
            raise UserError("--shard: got it with --launcher or --jobs, which make shards; leave one out")
        return Shard.parse(sharing.shard), overwrite
    if not (name or jobs):
        for flag, given in (("--scheduler", sharing.scheduler), ("--slurm", sharing.slurm)):
            if given:
                raise UserError(f"{flag}: got {given!r} without --launcher, expected one; name it")
        return None, overwrite
    from semiseg.jobs.launchers import launcher_named
    from semiseg.jobs.shards import run_shards, shards_folder

    where = launcher_named(
        name or "local", None if sharing.scheduler else jobs, shards_folder(out) / "slurm",
        device=device, scheduler=sharing.scheduler, slurm=assigned(sharing.slurm, "--slurm"),
    )  # fmt: skip
    count = jobs or where.at_once
    if count is None:
        raise UserError(f"--jobs: got none with --launcher {name}, expected how many share the scans; say --jobs 8")
    left_out = {*vars(sharing), "quiet", "as_json", *at_the_end}
    run_shards(_words(context, left_out), out, where, count, overwrite=overwrite)
    return None, False


def _words(context: typer.Context, left_out: Collection[str]) -> list[str]:
    """The command line that is being carried out, without some of its flags."""
    words = [str(context.info_name)]
    parameters = {str(parameter.name): parameter for parameter in context.command.params}
    for name in left_out:
        del parameters[name]  # a KeyError for a flag that the command does not have
    for name, parameter in parameters.items():
        value = context.params[name]
        if value is None or value is False:
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            flag = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
            words += flag if one is True else [*flag, str(one)]
    return words
