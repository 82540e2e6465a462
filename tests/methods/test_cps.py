"""CPS against the formula: each network learns the other's classes, on every voxel inside."""

import pytest
import torch
from reference import cps as oracle
from reference.mean_teacher import sigmoid_ramp
from reference.voxels import guesses
from support.oracles import array, assert_splits, assert_terms, both, logits_of, method_under_test, ragged_batch
from support.toys import network_of

from semiseg.draws import Draws
from semiseg.methods import build_method
from semiseg.methods.cps import CPSConfig
from semiseg.types import IGNORE


@both
@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_terms(dims, progress):
    method, batch = method_under_test("cps", dims), ragged_batch(dims)
    first, second = method.network.networks
    on_labelled = [logits_of(network, batch.image) for network in (first, second)]
    on_others = [logits_of(network, batch.unlabelled) for network in (first, second)]
    assert_splits((guesses(on_others[0])[0] == guesses(on_others[1])[0]).mean())
    weight = 0.2 * sigmoid_ramp(progress)
    expected = oracle.terms(*on_labelled, array(batch.label), *on_others, weight, array(batch.inside))
    assert_terms(method(batch, Draws(0, 0), progress).terms, expected)


@pytest.mark.parametrize("student", [0, 1])
def test_each_network_learns_what_the_other_one_guesses(student):
    """The teacher says one class everywhere: the student's gradient leads there, though it is sure of another."""
    method, batch = method_under_test("cps", 2, weight=1.0, ramp_end=0.0), ragged_batch(2)
    batch.label[:] = IGNORE
    learner, teacher = method.network.networks[student], method.network.networks[1 - student]
    for network, favoured in ((learner, 1), (teacher, 2)):
        torch.nn.init.zeros_(network.head.weight)
        with torch.no_grad():
            network.head.bias.zero_()[favoured] = 5.0
    method(batch, Draws(0, 0), 0.5).total.backward()
    assert int(learner.head.bias.grad.argmin()) == 2  # where gradient descent raises the logit most
    assert int(learner.head.bias.grad.argmax()) == 1
    assert int(teacher.head.bias.grad.argmin()) == 1


def test_the_second_network_starts_apart_from_the_first_which_is_the_one_given():
    given = network_of(2)
    first, second = build_method("cps", given, {}).network.networks
    assert first is given
    for name, weight in first.named_parameters():
        if weight.ndim > 1:
            assert not torch.equal(weight, second.get_parameter(name)), name


def test_the_mean_of_both_is_averaged_and_predicts():
    method = method_under_test("cps", 2)
    assert method.predictor is method.average
    assert len(method.average.networks) == 2
    x = ragged_batch(2).image
    mean = torch.stack([network(x).softmax(1) for network in method.average.networks]).mean(0)
    torch.testing.assert_close(method.predictor(x).softmax(1), mean)


def test_the_published_weight_is_for_cross_entropy_alone():
    config = CPSConfig(preset="2021")
    assert (config.dice, config.weight, [config.weight_at(p) for p in (0.0, 1.0)]) == (False, 1.5, [1.5, 1.5])
