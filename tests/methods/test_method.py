"""The average of a network: parameters by its decay, statistics of batch norm by what it makes of the images itself."""

import copy

import pytest
import torch
from support.toys import batch_of, method_of

from semiseg.draws import Draws
from semiseg.methods import build_method
from semiseg.networks.frozen import forward_frozen, measure_statistics, move_towards
from semiseg.types import IGNORE


def network_with_batch_norm():
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.5))


def test_an_average_keeps_its_own_statistics():
    network = network_with_batch_norm()
    average = copy.deepcopy(network).eval()
    with torch.no_grad():
        network[0].weight.add_(1.0)
        network[1].running_mean.fill_(7.0)
    before = average[0].weight.clone()
    move_towards(average, network, 0.9)
    torch.testing.assert_close(average[0].weight, 0.9 * before + 0.1 * network[0].weight)
    assert (average[1].running_mean == 0).all()

    x = torch.randn(4, 1, 5, 5)
    measure_statistics(average, x)
    features = average[0](x)
    torch.testing.assert_close(average[1].running_mean, 0.1 * features.mean((0, 2, 3)))
    torch.testing.assert_close(average[1].running_var, 0.9 + 0.1 * features.var((0, 2, 3)))
    assert not any(module.training for module in average.modules())
    assert (network[1].running_mean == 7.0).all()


@pytest.mark.parametrize("name", ["roam", "equireg"])
@pytest.mark.parametrize("progress", [0.4, 0.5])
def test_statistics_are_of_the_images_that_the_network_learns_from(name, progress):
    """Before the ramp these are the labelled ones; the others may come from another scanner."""
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.BatchNorm2d(3))
    settings = {"ema": 0.9, "ramp_start": 0.5, "ramp_end": 1.0}
    more = {"layers": ["last"], "mix_skips": False} if name == "roam" else {}
    method = build_method(name, network, settings | more)
    batch = batch_of(2)
    method.train()
    method(batch, Draws(0, 0), progress)
    images = batch.image if progress < 0.5 else torch.cat([batch.image, batch.unlabelled])
    expected = 0.1 * method.average[0](images).mean((0, 2, 3))
    torch.testing.assert_close(method.average[1].running_mean, expected)


def test_statistics_are_those_that_prediction_meets_without_dropout():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.Dropout(0.5), torch.nn.BatchNorm2d(3))
    method = build_method("supervised", network, {"ema": 0.9})
    method.train()  # as the loop does at every step: the average goes along
    x = torch.randn(4, 1, 5, 5)
    measure_statistics(method.average, x)
    features = method.average[0](x)
    torch.testing.assert_close(method.average[2].running_mean, 0.1 * features.mean((0, 2, 3)))


def test_a_frozen_pass_leaves_no_weights_without_gradient_behind():
    """Older releases of torch reuse weights that were cast in the frozen pass: the next one would learn nothing."""
    seen = []
    network = torch.nn.Conv2d(1, 2, 1)
    network.register_forward_hook(lambda *_: seen.append(torch.is_autocast_cache_enabled()))
    x = torch.randn(2, 1, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        forward_frozen(network, x)
        network(x).float().sum().backward()
    assert seen == [False, True]
    assert network.weight.grad.abs().sum() > 0


def test_what_is_watched_by_hand():
    """The share of foreground in the guess, over all its voxels; of confident voxels, over valid ones; the weight."""
    method = method_of("equireg", 2, weight=2.0)
    guess = torch.zeros(1, 3, 2, 4)
    guess[0, 0] = 0.5
    guess[0, 1, 0, :2] = guess[0, 2, 0, 2] = 1.0  # three of eight voxels, of two classes
    valid = torch.tensor([[[True, True, True, True], [True, True, False, False]]])
    certain = torch.tensor([[[True, True, False, False], [True, False, True, False]]])
    error = torch.arange(8.0).reshape(1, 2, 4)
    objective = method.consistency(error, valid, 1.0, guess, certain)
    assert objective.watch == {"weight": 2.0, "guess foreground": 3 / 8, "confident": 3 / 6}
    assert float(objective.terms["consistency"]) == pytest.approx(2.0 * (0 + 1 + 4) / 6)
    assert "confident" not in method.consistency(error, valid, 1.0, guess).watch


def test_the_share_of_labels_that_annealing_keeps_is_of_the_annotated_ones():
    method = method_of("supervised", 2, annealing="linear")
    label = torch.tensor([[[0, 1, 2, IGNORE]]])
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, 0, 0, 0] = 9.0  # learned
    kept, watch = method.unlearned(label, logits, 0.5)
    assert kept.tolist() == [[[IGNORE, 1, 2, IGNORE]]]
    assert watch == {"labels kept": pytest.approx(2 / 3)}


def test_a_method_that_learns_from_labels_alone_measures_statistics_on_labelled_images_alone():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.BatchNorm2d(3))
    method = build_method("supervised", network, {"ema": 0.9})
    method.train()
    batch = batch_of(2)
    method(batch, Draws(0, 0), 1.0)
    expected = 0.1 * method.average[0](batch.image).mean((0, 2, 3))
    torch.testing.assert_close(method.average[1].running_mean, expected)
