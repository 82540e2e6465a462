"""`--shard` and `--launcher` of the commands that can share scans out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from semiseg.cli.values import assigned
from semiseg.errors import UserError

if TYPE_CHECKING:
    from semiseg.jobs.shards import Shard


def shared_out(given: dict[str, Any], *left_out: str) -> tuple[Shard | None, bool]:
    """Run the shards of a command, if it has a launcher; what it is still to do: its shard, and whether to overwrite.

    given: the command's own variables. left_out: flags that are not for shards.
    """
    name, jobs, out, overwrite = given["launcher"], given["jobs"], given["out"], given["overwrite"]
    if given["shard"] is not None:
        from semiseg.jobs.shards import Shard

        if name or jobs:
            raise UserError("--shard: got it with --launcher or --jobs, which make shards; leave one out")
        return Shard.parse(given["shard"]), overwrite
    if not (name or jobs):
        for flag in ("scheduler", "slurm"):
            if given[flag]:
                raise UserError(f"--{flag}: got {given[flag]!r} without --launcher, expected one; name it")
        return None, overwrite
    from semiseg.jobs.launchers import launcher_named
    from semiseg.jobs.shards import run_shards, shards_folder

    where = launcher_named(
        name or "local", None if given["scheduler"] else jobs, shards_folder(out) / "slurm",
        device=given.get("device", "cpu"), scheduler=given["scheduler"], slurm=assigned(given["slurm"], "--slurm"),
    )  # fmt: skip
    count = jobs or where.at_once
    if count is None:
        raise UserError(f"--jobs: got none with --launcher {name}, expected how many share the scans; say --jobs 8")
    ours = ("launcher", "jobs", "scheduler", "slurm", "quiet", "as_json", *left_out)
    run_shards(_words(given["context"], ours), out, where, count, overwrite=overwrite)
    return None, False


def _words(context: typer.Context, left_out: tuple[str, ...]) -> list[str]:
    """The command line that is being carried out, without some of its flags."""
    words = [str(context.info_name)]
    for parameter in context.command.params:
        value = context.params[str(parameter.name)]
        if parameter.name in left_out or value is None or value is False:
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            flag = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
            words += flag if one is True else [*flag, str(one)]
    return words
