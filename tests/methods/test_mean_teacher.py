"""Mean Teacher against the formula: clean student, noisy average, squared error inside the picture."""

from dataclasses import replace

import pytest
import torch
from reference import mean_teacher as oracle
from support.oracles import array, assert_terms, both, logits_of, method_under_test, ragged_batch

from semiseg.draws import Draws
from semiseg.methods.mean_teacher import MeanTeacherConfig


@both
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_terms(dims, progress):
    method, batch, draws = method_under_test("mean_teacher", dims), ragged_batch(dims), Draws(3, 4)
    normal = array(torch.randn(batch.unlabelled.shape, generator=draws.of("noise")))
    noisy = batch.unlabelled + torch.tensor(oracle.noise(normal.flatten())).reshape(normal.shape).float()
    assert float((noisy - batch.unlabelled).abs().max()) == pytest.approx(0.2)  # some of it is cut
    expected = oracle.terms(
        logits_of(method.network, batch.image),
        array(batch.label),
        logits_of(method.network, batch.unlabelled),
        logits_of(method.average, noisy),
        0.1 * oracle.sigmoid_ramp(progress),
        array(batch.inside),
    )
    assert_terms(method(batch, draws, progress).terms, expected)


def test_cross_entropy_alone_on_labels():
    method, batch = method_under_test("mean_teacher", 2, dice=False), ragged_batch(2)
    logits = logits_of(method.network, batch.image)
    expected = oracle.supervised(logits, array(batch.label), with_dice=False)
    assert float(method(batch, Draws(0, 0), 0.5).terms["supervised"].detach()) == pytest.approx(expected, rel=1e-4)


def test_without_noise_only_the_average_differs():
    method, batch = method_under_test("mean_teacher", 2, noise=0.0), ragged_batch(2)
    assert float(method(batch, Draws(0, 0), 1.0).terms["consistency"].detach()) > 0
    method.average.load_state_dict(method.network.state_dict())
    assert float(method(batch, Draws(0, 0), 1.0).terms["consistency"].detach()) == pytest.approx(0, abs=1e-9)


def test_every_step_has_its_own_noise():
    method, batch = method_under_test("mean_teacher", 2), ragged_batch(2)
    first, again, second = (float(method(batch, Draws(0, k), 1.0).terms["consistency"].detach()) for k in (0, 0, 1))
    assert first == again
    assert first != second


def test_the_average_learns_nothing_from_the_term():
    method, batch = method_under_test("mean_teacher", 2), ragged_batch(2)
    method(replace(batch, label=torch.full_like(batch.label, -100)), Draws(0, 0), 1.0).total.backward()
    assert all(weight.grad is None for weight in method.average.parameters())
    assert any(weight.grad.abs().sum() > 0 for weight in method.network.parameters())


@pytest.mark.parametrize(("shape", "rises"), [("linear", lambda t: t), ("sigmoid", oracle.sigmoid_ramp)])
def test_the_weight_rises_between_start_and_end(shape, rises):
    config = MeanTeacherConfig(weight=4.0, ramp=shape, ramp_start=0.2, ramp_end=0.6)
    assert config.weight_at(0.19) == 0
    for progress in (0.2, 0.3, 0.5, 0.6, 1.0):
        assert config.weight_at(progress) == pytest.approx(4 * rises(min((progress - 0.2) / 0.4, 1)))
