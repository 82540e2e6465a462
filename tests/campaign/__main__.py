"""`python -m campaign` (in `tests/`): tries every input, or those whose names begin as the words say."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "SEMISEG_WORKERS": "1", "SEMISEG_DEVICE": "cpu", "COLUMNS": "200"}
os.environ.pop("nnUNet_raw", None)

from campaign.case import Case
from campaign.child import forked
from campaign.inputs import every_case, sample
from campaign.judge import try_case
from campaign.kills import disturb_everything
from campaign.world import World, import_everything

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where thousands of small files are written: a disk would take longer than the commands."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m campaign", description=__doc__)
    parser.add_argument("names", nargs="*", help="Beginnings of names of inputs; of --kills, names of commands.")
    parser.add_argument("--list", action="store_true", help="Print the names of the inputs, and stop.")
    parser.add_argument("--sample", type=int, help="Only so many, spread over kinds and commands.")
    parser.add_argument("--kills", action="store_true", help="Kill commands and fill their disk instead.")
    parser.add_argument("--keep", type=Path, help="Leave every input here, and print command line and messages.")
    parser.add_argument("--results", type=Path, help="A file for a line of JSON on each input.")
    given = parser.parse_args()
    cases = [case for case in every_case() if not given.names or case.name.startswith(tuple(given.names))]
    if given.list:
        print("\n".join(case.name for case in cases))
        return 0
    started = time.monotonic()
    import_everything()
    with tempfile.TemporaryDirectory(prefix="campaign-", dir=MEMORY) as folder:
        world = World(given.keep.absolute() if given.keep else Path(folder))
        gc.freeze()  # forked processes share what is here
        if given.kills:
            what, (tried, badly) = "kills", disturb_everything(world, given.names, cores())
        else:
            what, cases = "campaign", sample(cases, given.sample) if given.sample else cases
            tried, badly = len(cases), try_all(cases, world, bool(given.keep), given.results)
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")
    print(f"{what}: {tried} tried, {tried - badly} well, {badly} badly")
    return 1 if badly or not tried else 0


def try_all(cases: Sequence[Case], world: World, keep: bool, results: Path | None) -> int:
    """How many went badly; each is printed."""
    codes: Counter[Any] = Counter()
    badly = 0
    for case, verdict in forked(lambda case: try_case(case, world, keep=keep), cases, cores()):
        codes[verdict.get("code")] += 1
        if results:
            with results.open("a") as file:
                file.write(json.dumps(verdict) + "\n")
        if keep:
            print(f"{case.name}: semiseg {' '.join(map(ascii, case.words))}\nexit {verdict.get('code')}")
            print(verdict.get("err"))
        if verdict["complaints"]:
            badly += 1
            print(f"BADLY {case.name}: {'; '.join(verdict['complaints'])}", flush=True)
    print("exit codes:", ", ".join(f"{code} {count} times" for code, count in codes.most_common()))
    return badly


def cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    sys.exit(main())
