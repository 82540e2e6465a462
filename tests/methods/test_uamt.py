"""UA-MT against the formula: every pass with noise and dropout of its own, a mean over certain voxels alone."""

import math

import pytest
import torch
from reference import uamt as oracle
from reference.unimatch import perturbed
from support.oracles import (
    array,
    assert_splits,
    assert_terms,
    both,
    kept_by,
    logits_of,
    method_under_test,
    ragged_batch,
    tensor,
)

from semiseg.draws import Draws
from semiseg.errors import UserError
from semiseg.methods import build_method
from semiseg.transforms.dropout import ChannelDropout
from semiseg.transforms.intensity import clipped_noise

LAYERS = ("encoder.stages.2", "decoder.stages.1")
"""`deepest` and `last` of the network of these tests."""


def with_dropout(network, image, draws):
    """Logits of the network whose two layers lose channels, layer by layer."""

    def dropped(h, layer):
        kept = kept_by(ChannelDropout.draw(0.5, draws.of(layer)), *h.shape[:2])
        assert 0 < kept.mean() < 1
        return tensor(perturbed(array(h), kept))

    with torch.no_grad():
        *skips, deepest = network.encoder(image)
        last = network.decoder([*skips, dropped(deepest, LAYERS[0])])
        return array(network.head(dropped(last, LAYERS[1])))


def noisy_pass(method, u, draws):
    return with_dropout(method.average, clipped_noise(u, 0.1, draws.of("noise")), draws)


@both
@pytest.mark.parametrize(("progress", "passes"), [(0.1, 8), (0.7, 3)])
def test_terms(dims, progress, passes):
    method, batch, draws = method_under_test("uamt", dims, passes=passes), ragged_batch(dims), Draws(3, 4)
    u = batch.unlabelled
    seen = [noisy_pass(method, u, draws.within(f"pass {number}")) for number in range(passes)]
    limit = oracle.threshold(progress, classes=3)
    certain = oracle.certain(seen, limit)
    assert_splits(certain.mean())
    expected = oracle.terms(
        with_dropout(method.network, batch.image, draws.within("labelled")),
        array(batch.label),
        with_dropout(method.network, u, draws.within("student")),
        noisy_pass(method, u, draws.within("target")),
        seen,
        limit,
        0.1 * oracle.sigmoid_ramp(progress),
        array(batch.inside),
    )
    objective = method(batch, draws, progress)
    assert_terms(objective.terms, expected)
    assert objective.watch["certain"] == pytest.approx((certain & array(batch.inside)).mean())


def test_the_limit_is_a_share_of_the_greatest_entropy_and_rises_to_all_of_it():
    """A network that says nothing has entropy log(classes): never certain, however late."""
    method, batch = method_under_test("uamt", 2), ragged_batch(2)
    for network in (method.network, method.average):
        torch.nn.init.zeros_(network.head.weight)
        torch.nn.init.zeros_(network.head.bias)
    assert method(batch, Draws(0, 0), 1.0).watch["certain"] == 0
    nearly = torch.tensor([math.log(0.45), math.log(0.45), math.log(0.1)])  # entropy .86 of the greatest
    with torch.no_grad():
        method.average.head.bias.copy_(nearly)
    assert method(batch, Draws(0, 0), 0.2).watch["certain"] == 0
    assert method(batch, Draws(0, 0), 1.0).watch["certain"] == pytest.approx(float(batch.inside.float().mean()))


def test_passes_differ_in_noise_and_in_dropout():
    method, batch, draws = method_under_test("uamt", 2), ragged_batch(2), Draws(0, 0)
    first, again, other = (method.noisy_pass(batch.unlabelled, draws.within(name)) for name in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert float((first - other).abs().mean()) > 0.01


def test_prediction_drops_nothing():
    method, batch = method_under_test("uamt", 2), ragged_batch(2)
    before = logits_of(method.predictor, batch.image)
    method(batch, Draws(0, 0), 0.5)
    assert (logits_of(method.predictor, batch.image) == before).all()


def test_layers_by_name_and_a_layer_that_is_not_there():
    assert method_under_test("uamt", 2).layers == list(LAYERS)
    assert method_under_test("uamt", 2, dropout_layers=["1"]).layers == ["encoder.stages.0"]
    with pytest.raises(UserError, match=r"method.dropout_layers: got 'nowhere', expected input, 1, 2, \.\.\., last"):
        method_under_test("uamt", 2, dropout_layers=["nowhere"])
    single = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1))
    with pytest.raises(UserError, match=r"method.dropout_layers: got 'deepest'"):
        build_method("uamt", single, {})
