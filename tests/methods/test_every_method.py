"""The contract of a method, run for every entry of METHODS, and for a toy that owns two networks, in 2-D and 3-D."""

import dataclasses

import pytest
import torch
from support.toys import (
    UNDER_CONTRACT,
    batch_of,
    build,
    method_of,
    network_of,
    optimiser_for,
    settings_of,
    shapes,
    variants,
)

from semiseg.draws import Draws
from semiseg.methods import METHODS
from semiseg.methods.method import UnlabelledConfig
from semiseg.methods.strong import StrongConfig
from semiseg.networks.frozen import forward_frozen
from semiseg.runs.checkpoint import optimiser_tensors, restore_optimiser
from semiseg.types import IGNORE

everywhere = pytest.mark.parametrize("dims", [2, 3])
every_method = pytest.mark.parametrize("name", UNDER_CONTRACT)
every_variant = pytest.mark.parametrize(("name", "variant"), list(variants()))


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


@everywhere
@every_variant
def test_one_step_of_the_loops_optimiser_moves_every_weight_that_requires_a_gradient(name, dims, variant):
    method = method_of(name, dims, variant)
    method.train()
    trained = {key: weight for key, weight in method.named_parameters() if weight.requires_grad}
    before = {key: weight.detach().clone() for key, weight in trained.items()}
    optimiser = optimiser_for(method, lr=0.1)
    for step in range(3):  # mixing at one layer alone may leave a weight of another without a gradient
        optimiser.zero_grad()
        method(batch_of(dims, step), Draws(0, step), 0.5).total.backward()
        optimiser.step()
    still = [key for key, weight in trained.items() if torch.equal(weight, before[key])]
    assert not still
    assert not [key for key, weight in method.named_parameters() if weight.grad is not None and key not in trained]


@every_method
@everywhere
def test_a_teacher_starts_equal_moves_by_the_decay_and_receives_no_gradient(name, dims):
    method = method_of(name, dims, ema=0.9)
    start = [p.clone() for p in method.network.parameters()]
    assert method.predictor is not method.network
    for mean, value in zip(method.predictor.parameters(), start, strict=True):
        assert torch.equal(mean, value)
    optimiser = optimiser_for(method, lr=0.1)
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


@pytest.mark.parametrize("name", [name for name in UNDER_CONTRACT if settings_of(name, "plain")])
def test_without_average_the_network_itself_predicts(name):
    method = method_of(name, 2, "plain")
    assert method.predictor is method.network


@everywhere
@every_variant
def test_same_draws_same_objective_and_other_draws_another(name, dims, variant):
    method = method_of(name, dims, variant)
    first, again, other = (float(method(batch_of(dims), Draws(seed, 5), 0.5).total.detach()) for seed in (1, 1, 2))
    assert first == again
    assert (first != other) == (name not in ("supervised", "cps", "two"))  # these draw nothing


@pytest.mark.parametrize("name", [name for name in UNDER_CONTRACT if settings_of(name, "teacher")])
def test_a_guess_changes_neither_statistics_nor_modes(name):
    """Batch norm: a forward pass for a guess must not move running statistics, nor switch anything on or off."""
    predictor = method_of(name, 2, norm="batch").predictor
    network = predictor.train()
    first = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    forward_frozen(network, batch_of(2).unlabelled)
    assert not first.training
    assert sum(module.training for module in network.modules()) == sum(1 for _ in network.modules()) - 1
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


PASSES = {"supervised": 1, "roam": 1, "bcp": 1, "unimatch": 4}
"""Forward passes with gradient of each trained network in a step, where they are not two."""


@every_method
@everywhere
def test_only_passes_with_gradient_move_the_trained_networks_statistics(name, dims):
    method = method_of(name, dims, norm="batch")
    method.train()
    method(batch_of(dims), Draws(0, 0), 0.5)
    trained = {key.rpartition(".")[0] for key, weight in method.named_parameters() if weight.requires_grad}
    counts = [int(b) for key, b in method.named_buffers() if "num_batches" in key and key.rpartition(".")[0] in trained]
    assert set(counts) == {PASSES.get(name, 2)}


@every_method
@everywhere
def test_a_checkpoint_continues_identically(name, dims):
    def train(method, optimiser, steps):
        method.train()
        for step in steps:
            optimiser.zero_grad()
            method(batch_of(dims, step), Draws(0, step), step / 10).total.backward()
            optimiser.step()
            method.after_step(step / 10)

    straight, stopped, resumed = (method_of(name, dims) for _ in range(3))
    first, second, third = (optimiser_for(method, lr=0.05) for method in (straight, stopped, resumed))
    train(straight, first, range(4))
    train(stopped, second, range(2))
    resumed.load_state_dict(stopped.state_dict())
    restore_optimiser(third, optimiser_tensors(second))
    train(resumed, third, range(2, 4))
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@every_method
@everywhere
def test_a_batch_without_any_annotated_voxel_teaches_nothing_labelled(name, dims):
    method = method_of(name, dims)
    batch = batch_of(dims)
    ignored = dataclasses.replace(batch, label=torch.full_like(batch.label, IGNORE))
    assert float(method(ignored, Draws(0, 0), 0.5).terms["supervised"].detach()) == 0


@pytest.mark.parametrize("name", [name for name, method in UNDER_CONTRACT.items() if settings_of(name, "teacher")])
@everywhere
def test_where_nothing_is_inside_nothing_is_learned_from_unlabelled_images(name, dims):
    """`inside` is false everywhere: padding and what lies outside the field of view teach nothing."""
    batch = batch_of(dims)
    outside = dataclasses.replace(batch, inside=torch.zeros_like(batch.inside))
    terms = method_of(name, dims)(outside, Draws(0, 0), 0.5).terms
    assert float(terms["consistency"].detach() if "consistency" in terms else 0) == 0


@every_method
@pytest.mark.parametrize("dims", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_short_run_learns_a_simple_shape(name, dims):
    """With the method's own gates and ramps, from a fresh network; mixing the last layer learns slowest."""
    method = build(name, network_of(dims), {"ema": 0.8})
    steps, lr, size = (120, 2e-2, 16) if dims == 2 else (100, 1e-2, 12)
    optimiser = optimiser_for(method, lr, "adamw")
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


@pytest.mark.parametrize("name", [n for n, m in UNDER_CONTRACT.items() if issubclass(m.Config, UnlabelledConfig)])
def test_warm_up_and_supervised_variant_gate_the_unlabelled_term(name):
    waiting = method_of(name, 2, ramp_start=0.5, ramp_end=0.6)
    early = waiting(batch_of(2), Draws(0, 0), 0.4).terms
    assert float(early["consistency"].detach() if "consistency" in early else 0) == 0
    started = waiting(batch_of(2), Draws(0, 0), 0.7)
    assert float(started.terms["consistency"].detach()) > 0
    assert started.watch["weight"] == waiting.config.weight
    variant = method_of(name, 2, unlabelled=False)
    assert not variant.wants_unlabelled
    assert "consistency" not in variant(batch_of(2, unlabelled=0), Draws(0, 0), 0.5).terms


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if issubclass(m.Config, StrongConfig)])
def test_what_is_not_confident_teaches_nothing(name):
    doubting = method_of(name, 2, confidence=0.999)
    for network in {doubting.network, doubting.predictor}:
        torch.nn.init.zeros_(network.head.weight)  # each class a third
    assert float(doubting(batch_of(2), Draws(0, 0), 0.7).terms["consistency"].detach()) == 0
