import errno
import re

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from support.runs import settings_of

from semiseg.errors import InputError, UserError
from semiseg.experiments.experiment import train_run
from semiseg.runs.checkpoint import (
    optimiser_tensors,
    read_checkpoint,
    require_alike,
    restore_optimiser,
    write_checkpoint,
)
from semiseg.runs.folder import RunFolder


def test_round_trip_keeps_values_and_layout_does_not_matter(tmp_path):
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    write_checkpoint(tmp_path / "a.safetensors", {"method.w": weight, "x.y": torch.ones(2)}, {"step": 3, "b": None})
    back = read_checkpoint(tmp_path / "a.safetensors")
    assert back.facts == {"step": 3, "b": None}
    assert torch.equal(back.part("method")["w"], weight)
    assert list(back.part("x")) == ["y"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("make", [torch.optim.AdamW, lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)])
def test_an_optimiser_goes_on_where_it_stopped(make):
    def steps(weights, optimiser, count):
        for _ in range(count):
            optimiser.zero_grad()
            (weights**4).sum().backward()
            optimiser.step()

    straight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimiser = make([straight], lr=0.1)
    steps(straight, optimiser, 2)
    resumed = torch.nn.Parameter(straight.detach().clone())
    other = make([resumed], lr=0.1)
    restore_optimiser(other, {k: v.clone() for k, v in optimiser_tensors(optimiser).items()})
    steps(straight, optimiser, 3)
    steps(resumed, other, 3)
    assert torch.equal(straight, resumed)


def test_moments_are_laid_out_as_the_weights_that_they_belong_to(tmp_path):
    """A fused optimiser pairs values by their place in memory."""

    def weight_of(values):
        return torch.nn.Parameter(values.to(memory_format=torch.channels_last, copy=True))

    straight = weight_of(torch.randn(4, 3, 2, 2))
    optimiser = torch.optim.AdamW([straight], lr=0.1, fused=True)
    slopes = torch.randn(3, 4, 3, 2, 2)
    resumed = None
    for step, slope in enumerate(slopes):
        if step == 2:
            write_checkpoint(tmp_path / "o", optimiser_tensors(optimiser), {})
            resumed = weight_of(straight.detach())
            other = torch.optim.AdamW([resumed], lr=0.1, fused=True)
            restore_optimiser(other, read_checkpoint(tmp_path / "o").tensors)
            (slope * resumed).sum().backward()
            other.step()
        optimiser.zero_grad()
        (slope * straight).sum().backward()
        optimiser.step()
    assert torch.equal(straight, resumed)


def save(run, step):
    run.rotate_checkpoint()
    write_checkpoint(run.last, {"method.w": torch.full((100,), float(step))}, {"progress": {"step": step}})


def test_the_last_two_are_kept_and_a_truncated_one_is_passed_over(tmp_path):
    run = RunFolder(tmp_path)
    assert run.newest_checkpoint() is None
    for step in (1, 2, 3):
        save(run, step)
    assert run.newest_checkpoint().facts["progress"]["step"] == 3
    for cut in (0, 5, 60, run.last.stat().st_size - 1):
        whole = run.last.read_bytes()
        run.last.write_bytes(whole[:cut])
        assert run.newest_checkpoint().facts["progress"]["step"] == 2
        run.last.write_bytes(whole)
    run.last.unlink()  # killed between the two renames
    assert run.newest_checkpoint().facts["progress"]["step"] == 2


def test_nothing_whole_left_is_an_error_not_a_fresh_start(tmp_path):
    run = RunFolder(tmp_path)
    save(run, 1)
    run.last.write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.safetensors.*expected a whole checkpoint.*train again"):
        run.newest_checkpoint()
    with pytest.raises(InputError, match="expected a whole checkpoint"):
        read_checkpoint(tmp_path / "missing.safetensors")


@pytest.fixture
def stopped(plain_cohort, tmp_path, monkeypatch):
    """A run that was stopped after four of six steps, with two whole checkpoints; and how it goes on."""
    settings = settings_of(plain_cohort(labelled=3), "equireg", steps=6)
    append = RunFolder.append

    def cut(self, **values):
        append(self, **values)
        if values["step"] == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "append", cut)
        with pytest.raises(KeyboardInterrupt):
            train_run(settings, tmp_path / "run", device="cpu", workers=1)
    run = RunFolder(tmp_path / "run")
    return run, lambda: train_run(settings, run.path, resume=True, device="cpu", workers=1)


def changed(path, **changes):
    """Write the checkpoint again with tensors or facts exchanged; a None leaves a tensor out."""
    whole = read_checkpoint(path)
    facts = {**whole.facts, **changes.pop("facts", {})}
    tensors = {**whole.tensors, **changes}
    write_checkpoint(path, {name: tensor for name, tensor in tensors.items() if tensor is not None}, facts)


HEAD = "method.network.head.weight"
MOMENT = "optimiser.0.exp_avg"
WRONG = {
    "missing weight": ({HEAD: None}, r"it lacks network\.head\.weight, expected the weights of this network"),
    "another weight": ({"method.network.tail": torch.ones(2)}, r"it has network\.tail"),
    "weight of another shape": ({HEAD: torch.ones(3, 4, 1, 1)}, r"of shape \(3, 4, 1, 1\), expected \(2, 4, 1, 1\)"),
    "whole numbers": ({HEAD: torch.ones(2, 4, 1, 1, dtype=torch.int64)}, "of type int64, expected float32"),
    "truth values": ({HEAD: torch.ones(2, 4, 1, 1, dtype=torch.bool)}, "of type bool, expected float32"),
    "not a number": ({HEAD: torch.full((2, 4, 1, 1), torch.nan)}, "values in .* that are not finite"),
    "moment of another shape": ({MOMENT: torch.ones(100000)}, r"optimiser\.0\.exp_avg of .* shape \(100000,\)"),
    "moment of nothing": ({"optimiser.9999.exp_avg": torch.ones(2)}, r"optimiser\.9999\.exp_avg"),
    "moment without a number": ({"optimiser.abc.exp_avg": torch.ones(2)}, r"optimiser\.abc\.exp_avg"),
    "half a state": ({MOMENT: None}, "expected one kind for all"),
    "step before the first": ({"facts": {"progress": {"step": -5}}}, r"got -5 as progress\.step"),
    "step after the last": ({"facts": {"progress": {"step": 10**9}}}, "got step 1000000000, expected 1 to 6"),
    "unknown progress": ({"facts": {"progress": {"step": 4, "stride": 1}}}, r"as progress\.stride"),
    "text for progress": ({"facts": {"progress": "4"}}, "got '4' as progress"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_checkpoint_that_does_not_fit_is_refused_and_the_one_before_it_used(stopped, capsys, wrong):
    """Moments of another shape must never reach the fused optimiser, which would write beyond them."""
    run, go_on = stopped
    changes, message = WRONG[wrong]
    step = read_checkpoint(run.previous).facts["progress"]["step"]
    changed(run.last, **changes)
    go_on()
    told = capsys.readouterr().err
    assert re.search(rf"warning: {re.escape(str(run.last))}: .*{message}", told)
    assert "went on with previous.safetensors, which is older" in told
    assert [line.step for line in run.train_lines()] == [1, 2, 3, 4, 5, 6]
    assert step == 3


@pytest.mark.parametrize("kept", ["method", "optimiser.0", "nothing"])
def test_tensors_that_are_missing_are_noticed_whoever_reads(tmp_path, kept):
    """An optimiser without its moments would begin anew, and nobody would know."""
    path = tmp_path / "last.safetensors"
    written = {
        "method.weight": torch.ones(2),
        "optimiser.0.exp_avg": torch.ones(2),
        "optimiser.1.exp_avg": torch.ones(2),
    }
    write_checkpoint(path, written, {"step": 1})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({name: tensor for name, tensor in written.items() if name.startswith(kept)}, path, metadata)
    with pytest.raises(InputError, match=r"last\.safetensors: got other tensors than were written"):
        read_checkpoint(path)


def test_where_no_checkpoint_fits_nothing_is_trained(stopped):
    run, go_on = stopped
    for path in (run.last, run.previous):
        changed(path, **{MOMENT: torch.ones(100000)})
    with pytest.raises(UserError, match=r"last\.safetensors.*previous\.safetensors.*train again"):
        go_on()


def test_a_run_of_an_earlier_roam_unet_does_not_go_on(tmp_path):
    weight = torch.zeros(4, 2, 2, 2)
    before, today = ({f"network.decoder.up.{name}.weight": weight} for name in ("0", "0.0"))
    with pytest.raises(InputError, match=r"last: got a U-Net without normalisation after .* roam-unet .*; train it an"):
        require_alike(tmp_path / "last", before, today, "use another checkpoint")
    with pytest.raises(InputError, match=r"last: it lacks network\.head\.bias"):  # of a network that never has any
        require_alike(tmp_path / "last", before, {**before, "network.head.bias": weight}, "use another checkpoint")


def test_a_full_disk_is_told_as_one_and_leaves_the_checkpoint_that_was_there(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    save(run, 1)

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("semiseg.runs.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space left") as told:
        write_checkpoint(run.last, {"method.w": torch.ones(2)}, {})
    assert told.value.errno == errno.ENOSPC
    assert [path.name for path in run.last.parent.iterdir()] == ["last.safetensors"]
    assert run.newest_checkpoint().facts["progress"]["step"] == 1
