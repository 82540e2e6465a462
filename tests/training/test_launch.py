"""Which process this is, from what srun and torchrun leave in the environment."""

import os

import pytest

from semiseg.training.launch import adopt_slurm, is_main_process

OURS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TASK = {
    "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0",
    "SLURM_JOB_ID": "45678", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
}  # fmt: skip
"""The second of two tasks, the first of its node."""


@pytest.fixture
def adopted(monkeypatch):
    """The variables of torchrun after those given were found."""

    def run(**found):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") and name not in OURS}
        monkeypatch.setattr(os, "environ", {**kept, **found})
        adopt_slurm()
        return {name: os.environ[name] for name in OURS if name in os.environ}

    return run


def test_a_task_of_srun_gets_the_variables_of_torchrun(adopted):
    assert adopted(**TASK) == {
        "RANK": "1",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "10.0.0.7",
        "MASTER_PORT": "25678",  # 20000 + 45678 modulo 20000
    }


def test_what_srun_does_not_say_has_a_default(adopted):
    only = {name: TASK[name] for name in ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID")}
    found = adopted(**only)
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("127.0.0.1", "20000")


def test_variables_that_are_set_win(adopted):
    found = adopted(**TASK, MASTER_ADDR="node3", MASTER_PORT="29500")
    assert (found["RANK"], found["MASTER_ADDR"], found["MASTER_PORT"]) == ("1", "node3", "29500")
    assert adopted(**TASK, RANK="0") == {"RANK": "0"}  # torchrun under srun: all of its own


def test_one_task_and_a_plain_command_stay_alone(adopted):
    assert adopted() == {}
    assert adopted(**{**TASK, "SLURM_STEP_NUM_TASKS": "1"}) == {}
    batch = {name: value for name, value in TASK.items() if name != "SLURM_STEP_NUM_TASKS"}
    assert adopted(**batch) == {}  # a script of sbatch that does not call srun


@pytest.mark.parametrize(("rank", "main"), [(None, True), ("0", True), ("1", False)])
def test_the_first_or_only_process_is_the_main_one(monkeypatch, rank, main):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_main_process() is main
