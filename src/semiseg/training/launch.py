"""Which process this is, among those that torchrun or srun started."""

from __future__ import annotations

import os


def adopt_slurm() -> None:
    """Under `srun` with several tasks, set the variables that torchrun would have set; those already set win.

    SLURM_STEP_NUM_TASKS exists in srun's tasks alone, so a plain command in a batch script stays one process.
    """
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks < 2 or "RANK" in os.environ:
        return
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
    os.environ["WORLD_SIZE"] = str(tasks)
    os.environ.setdefault("MASTER_ADDR", os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
    # the same for all tasks of a job, another for most other jobs on the node
    os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20000))


def is_main_process() -> bool:
    """The first process, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0
