"""The contract of a method, run for every entry of METHODS in 2-D and 3-D."""

import dataclasses

import pytest
import torch
from support.toys import OF_ONE_METHOD, VARIANTS, batch_of, method_of, network_of, shapes

from semiseg.draws import Draws
from semiseg.methods import METHODS, build_method
from semiseg.methods.method import ConsistencyConfig
from semiseg.types import IGNORE

VARIANTS |= {variant: settings for variant, (_, settings) in OF_ONE_METHOD.items()}


everywhere = pytest.mark.parametrize("dims", [2, 3])
every_method = pytest.mark.parametrize("name", METHODS)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


@every_method
@everywhere
@every_variant
def test_every_term_is_finite_and_reaches_the_network(name, dims, variant):
    method = method_of(name, dims, variant)
    method.train()
    draws = Draws(seed=0, step=3)
    names = method(batch_of(dims), draws, progress=0.5).terms.keys()
    assert "consistency" in names or not method.wants_unlabelled
    for term in names:
        method.zero_grad()
        value = method(batch_of(dims), draws, progress=0.5).terms[term]
        assert torch.isfinite(value)
        assert value > 0
        value.backward()
        gradients = [p.grad for p in method.network.parameters()]
        assert any(g is not None and g.abs().sum() > 0 for g in gradients), term


@every_method
@everywhere
def test_a_teacher_starts_equal_moves_by_the_decay_and_receives_no_gradient(name, dims):
    method = method_of(name, dims, ema=0.9)
    start = [p.clone() for p in method.network.parameters()]
    assert method.predictor is not method.network
    for mean, value in zip(method.predictor.parameters(), start, strict=True):
        assert torch.equal(mean, value)
    optimiser = torch.optim.SGD((p for p in method.parameters() if p.requires_grad), lr=0.1)
    method.train()
    method(batch_of(dims), Draws(0, 0), 0.5).total.backward()
    optimiser.step()
    method.after_step(0.5)
    moved = 0.0
    for mean, old, value in zip(method.predictor.parameters(), start, method.network.parameters(), strict=True):
        assert mean.grad is None
        assert not mean.requires_grad
        torch.testing.assert_close(mean, 0.9 * old + 0.1 * value)
        moved += float((mean - old).detach().abs().sum())
    assert moved > 0


@every_method
def test_without_average_the_network_itself_predicts(name):
    method = method_of(name, 2, "plain")
    assert method.predictor is method.network


@every_method
@everywhere
@every_variant
def test_same_draws_same_objective_and_other_draws_another(name, dims, variant):
    method = method_of(name, dims, variant)
    first, again, other = (float(method(batch_of(dims), Draws(seed, 5), 0.5).total.detach()) for seed in (1, 1, 2))
    assert first == again
    assert (first != other) == method.wants_unlabelled


@every_method
@everywhere
def test_the_guess_changes_neither_statistics_nor_modes(name, dims):
    """Batch norm: a forward pass on unlabelled scans for the guess must not move running statistics."""
    method = method_of(name, dims, "plain", norm="batch")
    method.train()
    method.network.encoder.stages[0].eval()
    method(batch_of(dims), Draws(0, 0), 0.5)
    assert not method.network.encoder.stages[0].training
    assert method.network.encoder.stages[1].training
    counts = {int(b) for n, b in method.network.named_buffers() if "num_batches" in n and "stages.0" not in n}
    # one counted pass for each of the forward passes with gradient, none for the guess
    assert counts <= {1, 2}
    assert len(counts) == 1
    assert counts == ({2} if name == "equireg" else {1})


@every_method
@everywhere
def test_state_dict_round_trip_continues_identically(name, dims):
    def train(method, steps):
        optimiser = torch.optim.SGD((p for p in method.parameters() if p.requires_grad), lr=0.05)
        method.train()
        for step in steps:
            optimiser.zero_grad()
            method(batch_of(dims, step), Draws(0, step), step / 10).total.backward()
            optimiser.step()
            method.after_step(step / 10)

    straight = method_of(name, dims)
    train(straight, range(4))
    stopped = method_of(name, dims)
    train(stopped, range(2))
    resumed = method_of(name, dims)
    resumed.load_state_dict(stopped.state_dict())
    train(resumed, range(2, 4))
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@every_method
@everywhere
def test_ignored_voxels_and_padding_do_not_matter(name, dims):
    """Labels under IGNORE and pixels outside the picture may hold anything, NaN included in the label's stead."""
    method = method_of(name, dims, "plain")
    batch = batch_of(dims)
    batch.label[:, :4] = IGNORE
    value = method(batch, Draws(0, 0), 0.5).terms["supervised"]
    everything_ignored = dataclasses.replace(batch, label=torch.full_like(batch.label, IGNORE))
    nothing = method(everything_ignored, Draws(0, 0), 0.5).terms["supervised"]
    assert torch.isfinite(value)
    assert float(nothing.detach()) == 0


@every_method
@everywhere
def test_a_short_run_learns_a_simple_shape(name, dims):
    """With the method's own gates and ramps, from a fresh network; mixing the last layer learns slowest."""
    method = build_method(name, network_of(dims), {"ema": 0.8})
    steps, lr, size = (120, 2e-2, 16) if dims == 2 else (100, 1e-2, 12)
    optimiser = torch.optim.AdamW((p for p in method.parameters() if p.requires_grad), lr=lr)
    method.train()
    for step in range(steps):
        optimiser.zero_grad()
        method(batch_of(dims, step, 3, 3, size), Draws(0, step), step / steps).total.backward()
        optimiser.step()
        method.after_step(step / steps)
    image, label = shapes(8, dims, torch.Generator().manual_seed(999), size)
    method.eval()
    guess = method.predictor(image).argmax(1)
    for value in (1, 2):
        overlap = 2 * ((guess == value) & (label == value)).sum()
        dice = float(overlap / ((guess == value).sum() + (label == value).sum()))
        assert dice > 0.9, f"class {value}: {dice:.3f}"


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if issubclass(m.Config, ConsistencyConfig)])
def test_warm_up_confidence_and_supervised_variant_gate_the_unlabelled_term(name):
    waiting = method_of(name, 2, ramp_start=0.5, ramp_end=0.6)
    early = waiting(batch_of(2), Draws(0, 0), 0.4).terms
    assert float(early["consistency"].detach() if "consistency" in early else 0) == 0
    started = waiting(batch_of(2), Draws(0, 0), 0.7)
    assert float(started.terms["consistency"].detach()) > 0
    assert started.watch["weight"] == waiting.config.weight
    doubting = method_of(name, 2, confidence=0.999)
    for network in {doubting.network, doubting.predictor}:
        torch.nn.init.zeros_(network.head.weight)  # each class a third
    assert float(doubting(batch_of(2), Draws(0, 0), 0.7).terms["consistency"].detach()) == 0
    variant = method_of(name, 2, unlabelled=False)
    assert not variant.wants_unlabelled
    assert "consistency" not in variant(batch_of(2, unlabelled=0), Draws(0, 0), 0.5).terms
