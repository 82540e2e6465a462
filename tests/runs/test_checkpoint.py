import pytest
import torch

from semiseg.errors import InputError, UserError
from semiseg.runs.checkpoint import optimiser_tensors, read_checkpoint, restore_optimiser, write_checkpoint
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
    run.last.write_bytes(b"")
    run.drop_damaged_checkpoint()
    run.rotate_checkpoint()  # and killed before the next one is written
    assert run.newest_checkpoint().facts["progress"]["step"] == 2
    save(run, 3)
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
