"""A SLURM of one node, started from Debian's packages in a folder of its own, with a partition that preempts."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=bf_interval=2
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL PriorityTier=9 PreemptMode=OFF
"""
# cred_expire: a requeued job waits that long


def missing() -> str:
    """Why there can be no cluster here; empty where there can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if absent:
        return f"no SLURM: {', '.join(absent)} not found (apt-get install slurmctld slurmd slurm-client munge)"
    return "" if os.geteuid() == 0 else "SLURM's daemons need root"


@contextmanager
def cluster(root: Path) -> Iterator[dict[str, str]]:
    """Yields the environment that its commands need."""
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(root / "slurm.conf")}
    for name in ("state", "spool"):
        (root / name).mkdir(parents=True)
    root.chmod(0o755)  # munged wants nobody else to write here
    (root / "munge.key").write_bytes(os.urandom(128))
    (root / "munge.key").chmod(0o400)
    config = CONFIG.format(root=root, host=socket.gethostname().split(".")[0], ports=_free_ports(2))
    (root / "slurm.conf").write_text(config)
    munge = [f"--{what}-file={root}/munge.{what}" for what in ("key", "pid", "log", "seed")]
    daemons = [
        ["munged", "--foreground", "--force", f"--socket={root}/munge.socket", *munge],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    ]
    with ExitStack() as stack:
        for words in daemons:
            with (root / f"{words[0]}.out").open("wb") as out:
                process = subprocess.Popen(words, env=environment, stdout=out, stderr=out)
            stack.callback(_stop, process)
        _until_idle(environment)
        stack.callback(_end_jobs, environment)
        yield environment


def _until_idle(environment: dict[str, str], seconds: float = 60) -> None:
    deadline, said = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        words = ["sinfo", "--noheader", "--format=%T"]
        said = subprocess.run(words, env=environment, capture_output=True, text=True, check=False).stdout
        if "idle" in said:
            return
        time.sleep(0.5)
    raise AssertionError(f"the node is {said or 'nowhere'}")


def _end_jobs(environment: dict[str, str], seconds: float = 30) -> None:
    """Before the daemons: a step without them waits for their answer and stays behind."""
    subprocess.run(["scancel", "--user=root"], env=environment, check=False)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not _is_still(environment):
        time.sleep(0.5)


def _is_still(environment: dict[str, str]) -> bool:
    said = subprocess.run(["squeue", "--noheader"], env=environment, capture_output=True, text=True, check=False)
    steps = subprocess.run(["pgrep", "-x", "slurmstepd"], capture_output=True, check=False)
    return not said.stdout.strip() and steps.returncode != 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
