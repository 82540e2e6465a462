"""Where jobs run. The same jobs, which are small shell commands here, through every launcher."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from semiseg.cli.values import assigned
from semiseg.errors import MissingExtra, UserError
from semiseg.jobs import slurm
from semiseg.jobs.job import Job, last_line, run_job
from semiseg.jobs.launchers import Local, launcher_named
from semiseg.jobs.slurm import SlurmSettings, seconds

FAKE_SLURM = {
    # runs the tasks one after the other; %K of squeue is answered from a file
    "sbatch": """#!/bin/sh
echo "$@" >> "$FAKE/asked"
for word in "$@"; do case "$word" in
  --array=*) last=${word#--array=0-}; last=${last%%%*};;
  --wrap=*) wrap=${word#--wrap=};;
esac; done
for task in $(seq 0 "$last"); do
  [ "$task" = "$LOSE" ] || SLURM_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task sh -c "$wrap" >> "$FAKE/out" 2>&1
done
echo "7;cluster"
""",
    "squeue": """#!/bin/sh
cat "$FAKE/queue"
""",
    "scancel": """#!/bin/sh
echo "$@" >> "$FAKE/cancelled"
: > "$FAKE/queue"
""",
}


def shell(folder: Path, number: int, text: str) -> Job:
    return Job(("sh", "-c", text), folder / "logs" / f"{number}.log", folder)


def statuses(launcher, jobs):
    found = {job.log.stem: status for job, status in launcher.run(jobs)}
    assert len(found) == len(jobs)
    return found


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    for name, text in FAKE_SLURM.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("LOSE", "none")
    monkeypatch.setattr(slurm, "POLL_S", 0.01)
    monkeypatch.setattr(slurm, "ASK_EVERY", 1)


# one job


def test_a_job_runs_in_its_folder_and_adds_to_its_log(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    job = shell(tmp_path, 1, "pwd; echo $OMP_NUM_THREADS $EXTRA >&2; exit 3")
    assert run_job(job, {"EXTRA": "more"}) == 3
    assert run_job(job) == 3
    assert job.log.read_text().split() == [str(tmp_path), "1", "more", str(tmp_path), "1"]
    assert last_line(job.log) == "1"
    assert last_line(tmp_path / "none.log") == "no message"
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    run_job(job)
    assert last_line(job.log) == "4"


def test_a_job_that_still_runs_is_waited_for(tmp_path):
    """Its launcher was killed, it was not: the second start must not come before it has ended."""
    code = (
        "from pathlib import Path; from semiseg.jobs.launchers import Job, run_job\n"
        f"run_job(Job(('sh', '-c', 'echo begun; sleep 1; echo ended'), Path('1.log'), Path({str(tmp_path)!r})))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    log = tmp_path / "1.log"
    while not (log.exists() and log.read_text()):
        time.sleep(0.02)
    launcher.kill()
    launcher.wait()
    assert run_job(Job(("echo", "again"), log, tmp_path)) == 0
    assert log.read_text().split() == ["begun", "ended", "again"]


# this machine


def test_local_jobs_run_at_the_same_time_but_no_more_than_told(tmp_path):
    text = "touch on.$$; ls on.* | wc -l; sleep 0.4; rm on.$$"
    jobs = [shell(tmp_path, number, text) for number in range(4)]
    assert set(statuses(Local(2, "cpu"), jobs).values()) == {0}
    counts = [int(job.log.read_text()) for job in jobs]
    assert max(counts) == 2


def test_every_local_job_has_its_own_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    launcher = Local()
    assert launcher.at_once == 2
    jobs = [shell(tmp_path, number, "echo $CUDA_VISIBLE_DEVICES; sleep 0.3") for number in range(2)]
    statuses(launcher, jobs)
    assert sorted(job.log.read_text().strip() for job in jobs) == ["4", "7"]
    assert Local(3).at_once == 3
    monkeypatch.setenv("SEMISEG_WORKERS", "5")
    assert Local(device="cpu").at_once == 5
    assert Local(device="cuda:1").at_once == 1


def test_closing_stops_what_runs_and_starts_nothing_more(tmp_path):
    text = "trap 'echo saved; exit 75' TERM; echo begun; while true; do sleep 0.05; done"
    jobs = [shell(tmp_path, 0, "true"), *(shell(tmp_path, number, text) for number in (1, 2))]
    ended = Local(1, "cpu").run(jobs)
    assert next(ended) == (jobs[0], 0)
    while not jobs[1].log.exists() or not jobs[1].log.read_text():
        time.sleep(0.02)
    ended.close()
    assert jobs[1].log.read_text().split() == ["begun", "saved"]
    assert not jobs[2].log.exists()


# dask


def test_dask_runs_the_same_jobs(tmp_path):
    pytest.importorskip("distributed")
    jobs = [shell(tmp_path, number, f"echo {number}; exit {number}") for number in range(3)]
    assert statuses(launcher_named("dask", 2, tmp_path), jobs) == {"0": 0, "1": 1, "2": 2}
    assert [job.log.read_text() for job in jobs] == ["0\n", "1\n", "2\n"]


def test_dask_takes_the_address_of_a_scheduler(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        launcher = launcher_named("dask", None, tmp_path, scheduler=cluster.scheduler_address)
        assert launcher.at_once is None
        assert statuses(launcher, [shell(tmp_path, 0, "exit 5")]) == {"0": 5}
    with pytest.raises(UserError, match=r"--jobs: got 3 with --scheduler"):
        launcher_named("dask", 3, tmp_path, scheduler="tcp://here:1")
    monkeypatch.setattr("semiseg.jobs.dask.WAIT_S", 0.2)
    with pytest.raises(UserError, match=r"--scheduler: got tcp://127\.0\.0\.1:9 .*expected a running dask scheduler"):
        list(launcher_named("dask", None, tmp_path, scheduler="tcp://127.0.0.1:9").run([]))


@pytest.mark.parametrize(
    "address", ["foo://x", "ucx://x:1", "tls://127.0.0.1:9", "tcp://127.0.0.1:99999", "tcp://", "//"]
)
def test_addresses_that_no_scheduler_has(tmp_path, monkeypatch, address):
    pytest.importorskip("distributed")
    monkeypatch.setattr("semiseg.jobs.dask.WAIT_S", 0.5)
    with pytest.raises(
        UserError, match=r"--scheduler: got .* expected a running dask scheduler, such as tcp://HOST:8786"
    ):
        list(launcher_named("dask", None, tmp_path, scheduler=address).run([]))


def test_a_client_that_found_no_scheduler_is_closed_before_the_message(tmp_path, monkeypatch):
    """Left to the garbage collector it is closed at any time, such as while the next one holds the lock for that."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("semiseg.jobs.dask.WAIT_S", 0.2)
    closed = []
    close = distributed.Client.close
    monkeypatch.setattr(distributed.Client, "close", lambda client: (close(client), closed.append(client.status)))
    with pytest.raises(UserError) as caught:  # which keeps the client alive by its traceback
        list(launcher_named("dask", None, tmp_path, scheduler="tcp://127.0.0.1:9").run([]))
    assert caught.value.__context__ is not None
    assert set(closed) == {"closed"}


def test_without_distributed_the_message_has_the_pip_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"pip install 'semiseg\[dask\]'"):
        launcher_named("dask", None, tmp_path)


# SLURM, as far as it goes without one; test_slurm.py has a real one


@pytest.mark.usefixtures("fake_slurm")
def test_slurm_gets_one_array_of_command_lines(tmp_path):
    options = {"partition": "gpu", "time": "4:00:00", "gpus": 1, "memory": "8G", "cpus": 2, "account": "lab"}
    launcher = launcher_named("slurm", 2, tmp_path / "slurm", slurm=options)
    jobs = [shell(tmp_path, number, f"echo {number}; exit {number}") for number in range(3)]
    assert statuses(launcher, jobs) == {"0": 0, "1": 1, "2": 2}
    assert [job.log.read_text() for job in jobs] == ["0\n", "1\n", "2\n"]
    (asked,) = (tmp_path / "asked").read_text().splitlines()
    for flag in ("--requeue", "--array=0-2%2", "--partition=gpu", "--time=4:00:00", "--gpus=1", "--mem=8G"):
        assert flag in asked.split()
    assert "--cpus-per-task=2 " in asked
    assert "--account=lab" in asked
    assert (tmp_path / "slurm").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "slurm").iterdir()) == []


@pytest.mark.usefixtures("fake_slurm")
def test_a_job_that_slurm_lost_is_a_failure_and_does_not_hang(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSE", "1")
    jobs = [shell(tmp_path, number, "true") for number in range(3)]
    assert statuses(launcher_named("slurm", None, tmp_path / "slurm"), jobs) == {"0": 0, "1": slurm.LOST, "2": 0}
    assert "--array=0-2 " in (tmp_path / "asked").read_text()


@pytest.mark.usefixtures("fake_slurm")
def test_jobs_of_a_launcher_that_was_killed_are_cancelled(tmp_path):
    (tmp_path / "queue").write_text("0\n1\n")
    (tmp_path / "slurm" / "old").mkdir(parents=True)
    (tmp_path / "slurm" / "old" / "job").write_text("6")
    statuses(launcher_named("slurm", None, tmp_path / "slurm"), [shell(tmp_path, 0, "true")])
    assert (tmp_path / "cancelled").read_text().split() == ["--quiet", "6"]
    assert not (tmp_path / "slurm" / "old").exists()


@pytest.mark.usefixtures("fake_slurm")
def test_a_preempted_task_leaves_no_status_and_a_late_one_is_requeued(tmp_path):
    """SIGTERM reaches the command; SLURM requeues by itself what it took the node from, but not at the time limit."""
    (tmp_path / "bin" / "scontrol").write_text('#!/bin/sh\necho "$@" >> "$FAKE/requeued"\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    batch = tmp_path / "batch"
    (batch / "status").mkdir(parents=True)
    command = ["sh", "-c", "trap 'exit 75' TERM; echo begun; while true; do sleep 0.05; done"]
    log = tmp_path / "0.log"
    slurm.write_json(batch / "jobs.json", [[command, str(log), str(tmp_path)]])
    environment = {**os.environ, "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}
    for state, requeued in (("PREEMPTED", False), ("RUNNING", True)):
        (tmp_path / "queue").write_text(state)
        task = subprocess.Popen([sys.executable, "-m", "semiseg.jobs.slurm", str(batch)], env=environment)
        while not log.exists() or not log.read_text():
            time.sleep(0.02)
        task.send_signal(signal.SIGTERM)
        assert task.wait() == 0
        assert list((batch / "status").iterdir()) == []
        assert (tmp_path / "requeued").exists() == requeued
        log.unlink()
    assert (tmp_path / "requeued").read_text().split() == ["requeue", "7"]


# mistakes


def test_mistakes_in_the_choice_of_a_launcher(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"--launcher: got 'cloud', expected one of: local, slurm, dask"):
        launcher_named("cloud", None, tmp_path)
    with pytest.raises(UserError, match=r"--scheduler: got 'tcp://x' with --launcher local, expected --launcher dask"):
        launcher_named("local", None, tmp_path, scheduler="tcp://x")
    with pytest.raises(UserError, match=r"--slurm: got .* with --launcher dask, expected --launcher slurm"):
        launcher_named("dask", None, tmp_path, slurm={"time": "1"})
    with pytest.raises(UserError, match=r"slurm\.partion: unknown setting; did you mean 'partition'"):
        launcher_named("slurm", None, tmp_path, slurm={"partion": "gpu"})
    with pytest.raises(UserError, match=r"slurm\.time: '5:00': expected at least 10 minutes"):
        launcher_named("slurm", None, tmp_path, slurm={"time": "5:00"})
    with pytest.raises(UserError, match=r"slurm\.time: 14400: expected quotes around it"):  # from a file, unquoted
        launcher_named("slurm", None, tmp_path, slurm=yaml.safe_load("time: 4:00:00"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"got no sbatch command, expected SLURM"):
        launcher_named("slurm", None, tmp_path)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("90", 5400), ("30:15", 1815), ("4:00:00", 14400), ("1-2", 93600), ("1-2:30", 95400), ("1-02:03:04", 93784),
        ("UNLIMITED", 0), ("0", 0),
    ],
)  # fmt: skip
def test_time_limits_as_sbatch_takes_them(limit, expected):
    assert seconds(limit) == expected


def test_the_flag_gives_a_time_limit_as_it_was_typed():
    """YAML would take 4:00:00 for 14400, and sbatch that for ten days."""
    assert SlurmSettings.parse(assigned(["time=4:00:00", "cpus=2"], "--slurm"), where="slurm").flags() == [
        "--time=4:00:00",
        "--cpus-per-task=2",
    ]


def test_a_job_that_is_to_stop_does_not_begin(tmp_path):
    stopping = threading.Event()
    stopping.set()
    job = shell(tmp_path, 0, "echo begun")
    assert run_job(job, stopping=stopping) == 75
    assert job.log.read_text() == ""


@pytest.mark.usefixtures("fake_slurm")
@pytest.mark.parametrize("text", ["--user=root", "7 --user=root", "", "7;scancel", "٣"])
def test_a_job_number_that_is_none_never_reaches_scancel(tmp_path, text):
    """The folder may come from somebody: `--user=root` cancelled every job of the user."""
    left = tmp_path / "out" / "abcd"
    left.mkdir(parents=True)
    (left / "job").write_text(text)
    where = launcher_named("slurm", 1, tmp_path / "out")
    with pytest.raises(UserError, match=r"job: got .*, expected the number of a SLURM job"):
        list(where.run([shell(tmp_path, 0, "true")]))
    assert not (tmp_path / "cancelled").exists()
    assert not (tmp_path / "asked").exists()


@pytest.mark.usefixtures("fake_slurm")
def test_a_refused_batch_leaves_no_folder(tmp_path):
    refusing = tmp_path / "bin" / "sbatch"
    refusing.write_text("#!/bin/sh\necho 'invalid partition' >&2\nexit 1\n")
    where = launcher_named("slurm", 1, tmp_path / "out")
    with pytest.raises(UserError, match="invalid partition"):
        list(where.run([shell(tmp_path, 0, "true")]))
    assert not list((tmp_path / "out").iterdir())
