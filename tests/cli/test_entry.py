"""What the command line makes of mistakes that no reader caught: one line on standard error, and an exit code."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from support.command_line import semiseg

from semiseg.cli.entry import LONGEST
from semiseg.errors import InputError


def raised(monkeypatch, error):
    """The exit code and standard error of a command in which this is raised."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("semiseg.models.layers.list_layers", fail)
    code, out, err = semiseg("layers", "unet")
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    return code, err


MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("Storage size calculation overflowed with sizes=[2, 1073741824]"),
]


@pytest.mark.parametrize("error", MEMORY)
def test_memory_that_ran_out_says_what_to_lower(monkeypatch, error):
    code, err = raised(monkeypatch, error)
    assert code == 6
    assert "out of memory" in err
    assert "lower --memory-gb, plan.batch or --workers" in err


def test_a_full_disk_names_the_file(monkeypatch):
    code, err = raised(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "run/last.safetensors"))
    assert code == 2
    assert "run/last.safetensors: got 'No space left on device'" in err


def test_nested_too_deeply(monkeypatch):
    assert raised(monkeypatch, RecursionError())[0] == 3


def test_names_that_are_not_utf8(monkeypatch):
    code, err = raised(monkeypatch, UnicodeEncodeError("utf-8", "caf\udce9.nii.gz", 3, 4, "surrogates not allowed"))
    assert code == 3
    assert "got 'caf\\udce9.nii.gz', which is not UTF-8" in err
    long = "x" * 9000 + "\ud800" + "y" * 9000
    code, err = raised(monkeypatch, UnicodeEncodeError("utf-8", long, 9000, 9001, "surrogates not allowed"))
    assert len(err) < 400
    assert "x\\ud800y" in err
    code, err = raised(monkeypatch, InputError("caf\udce9.nii.gz: got no volume"))
    assert code == 3
    assert "caf\\udce9.nii.gz: got no volume" in err


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("layers", ""), "layers"),
        (("layers", "unet", "--dims", ""), "--dims"),
        (("layers", "unet", "--dims="), "--dims"),
        (("", "unet"), "the command"),
    ],
)
def test_an_empty_word_is_a_variable_that_is_not_set(words, flag):
    """`--out ""` would be the current folder."""
    code, out, err = semiseg(*words)
    assert (code, out) == (2, "")
    assert err == f"error: {flag}: got an empty word, expected a value; set the variable, or leave it out\n"


def test_words_that_may_be_empty(monkeypatch):
    monkeypatch.setattr("semiseg.models.layers.list_layers", lambda *_: [])
    for words in (("--set", "network.options="), ("--set=network.options=",)):
        assert semiseg("layers", "unet", *words)[0] == 0
    _, _, err = semiseg("export", "nowhere", "--out", "out", "--licence", "", "--description=")
    assert "nowhere: got no result.json" in err


def test_a_message_has_an_end(monkeypatch):
    _, err = raised(monkeypatch, InputError("x" * 10**6))
    assert len(err) < LONGEST + 100
    assert "(1000000 characters in all)" in err


def test_a_defect_of_ours_is_not_hidden(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("something else")

    monkeypatch.setattr("semiseg.models.layers.list_layers", fail)
    monkeypatch.setattr(sys, "argv", ["semiseg", "layers", "unet"])
    from semiseg.cli import main

    with pytest.raises(RuntimeError, match="something else"):
        main()


def test_a_network_far_too_wide_is_told_as_memory():
    words = [sys.executable, "-m", "semiseg.cli", "layers", "unet", "--set", "network.widths=[1000000000000,2]"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert done.stderr.startswith("error: out of memory")


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "semiseg", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("semiseg ")


def test_ctrl_c_while_importing_is_no_traceback(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    words = [sys.executable, "-m", "semiseg", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_sigterm_before_the_first_step_says_that_it_can_be_started_again(plain_cohort, tmp_path, monkeypatch):
    """A scheduler that requeues on 75 would not on 143."""
    data = plain_cohort()

    def told(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr("semiseg.experiments.experiment.checked_splits", told)
    before = signal.getsignal(signal.SIGTERM)
    code, _, err = semiseg("train", data, "--labelled", "2", "--out", tmp_path / "run")
    assert code == 75
    assert "stopped before the first step" in err
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "run").exists()
