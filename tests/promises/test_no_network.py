"""No network, no telemetry: the whole path from scans to a report asks nobody for anything."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import TINY, semiseg, write_study
from support.watched import heard

NETWORK = (
    *("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.getnameinfo", "socket.send"),
    *("urllib.Request", "http.client", "ftplib", "smtplib", "imaplib", "poplib", "nntplib", "telnetlib"),
)
"""Events of the interpreter: whoever looks for another machine causes one. The name of this one (`gethostname`) is
asked of the kernel alone, and urllib3, which MONAI imports, binds a socket here to see whether there is IPv6."""


def commands(study: Path, out: Path) -> list[tuple[object, ...]]:
    """From scans to a report, a bundle and a review."""
    run, predictions = out / "run", out / "predictions"
    parts = ("--labelled", "2", "--val", "2", "--test", "1")
    with_log = [word for word in TINY if word != "training.tensorboard=false"]
    with_log.pop(with_log.index("--set"))
    return [
        ("check", study),
        ("train", study, "--out", run, "--method", "roam", *parts, *with_log, "--score"),
        ("predict", run, study, "--out", predictions, "--overlay"),
        ("evaluate", predictions, study, "--out", out / "scores"),
        ("rank", run, study, "--out", out / "ranked"),
        ("review", run, study, "--out", out / "review", "--count", "1"),
        ("report", run, "--out", out / "report.html"),
        ("export", run, "--out", out / "bundle"),
    ]


def test_not_one_command_looks_for_another_machine(study, tmp_path, one_core):  # noqa: ARG001
    with heard(*NETWORK, refuse=True) as events:
        for words in commands(study, tmp_path):
            code, _, err = semiseg(*words)
            assert code == 0, (words, err)
    assert events == []
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))  # TensorBoard was among them


def test_a_connection_would_be_heard_and_refused():
    with heard(*NETWORK, refuse=True) as events, pytest.raises(PermissionError):
        socket.create_connection(("localhost", 9))
    assert events


ASKS = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError:
    pass
"""
COUNTED = """
for line in open("/proc/net/snmp"):
    print("COUNTED", line.strip())
"""
"""Of the processes in a network of their own, what the kernel counted of all that they asked for."""


def counted_alone(source: str, **environment: str) -> tuple[int, str]:
    """What a programme tried to send, by whatever library, in a network without anybody; and what it printed."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", source + COUNTED],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("COUNTED")]
    counts = {}
    for names, numbers in zip(lines[::2], lines[1::2], strict=True):
        counts |= {(names[0], name): number for name, number in zip(names, numbers, strict=True)}
    asked = (("Ip:", "OutRequests"), ("Ip:", "OutNoRoutes"), ("Tcp:", "ActiveOpens"), ("Udp:", "OutDatagrams"))
    return sum(int(counts[name]) for name in asked), done.stdout


def can_be_alone() -> bool:
    return bool(shutil.which("unshare")) and not subprocess.run(["unshare", "--net", "true"], check=False).returncode


@pytest.mark.slow
@pytest.mark.skipif(not can_be_alone(), reason="a network of one's own needs Linux and root")
def test_nor_does_any_library_or_worker_process_send_anything(tmp_path):
    assert counted_alone(ASKS)[0] > 0  # the kernel does count
    study = write_study(tmp_path / "study")
    words = [[str(word) for word in command] for command in commands(study, tmp_path)]
    source = f"""
import sys
from semiseg.cli import main
for words in {words!r}:
    sys.argv = ["semiseg", *words]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, words
"""
    sent, said = counted_alone(source, SEMISEG_CACHE=str(tmp_path / "cache"), SEMISEG_WORKERS="2", SEMISEG_DEVICE="cpu")
    assert sent == 0, said
    assert (tmp_path / "report.html").is_file()
