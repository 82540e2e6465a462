import dataclasses
import math

import numpy as np
import pytest
import torch
from reference import equireg as oracle
from reference import unet as by_hand
from reference.voxels import pasted, softmax, supervised
from support.oracles import (
    INTENSITY,
    array,
    assert_splits,
    assert_terms,
    both,
    box_of,
    logits_of,
    method_under_test,
    mirrors_and_shifts,
    ragged_batch,
    source_of,
    tensor,
)
from support.toys import batch_of, method_of

from semiseg import losses
from semiseg.draws import Draws
from semiseg.methods import build_method
from semiseg.methods.equireg import EquiRegConfig
from semiseg.methods.method import without_learned
from semiseg.schedules import annealing_threshold
from semiseg.transforms.intensity import Intensity
from semiseg.transforms.mixing import Box
from semiseg.transforms.warp import Warp, WarpConfig
from semiseg.types import IGNORE


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("logits", [False, True])
def test_an_equivariant_network_has_nothing_to_learn_from_unlabelled_images(dims, logits):
    """A network of single voxels commutes with flips: T(f(u)) is f(T(u)), so the term is zero; u is not symmetric."""
    torch.manual_seed(0)
    network = (torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d)(1, 3, 1)
    flips = WarpConfig(flip=tuple(range(dims)))
    plain = {
        "ema": 0.0,
        "intensity": {"probability": 0},
        "cutmix": 0.0,
        "confidence": 0.0,
        "warp": flips,
        "warp_logits": logits,
    }
    batch = batch_of(dims, unlabelled=8)
    term = build_method("equireg", network, plain)(batch, Draws(0, 0), 0.5).terms["consistency"]
    assert float(term.detach()) == pytest.approx(0, abs=1e-5)


def test_learned_voxels_are_left_out_by_hand():
    logits = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.2, 0.8]]).log().T[None, :, :, None]
    label = torch.tensor([0, 0, 0, IGNORE])[None, :, None]
    left = without_learned(label, logits, 0.5)  # the right class has .9, .5 and .2; the last is not annotated
    assert left.flatten().tolist() == [IGNORE, 0, 0, IGNORE]
    assert without_learned(label, logits, 1.0).flatten().tolist() == [0, 0, 0, IGNORE]


@pytest.mark.parametrize("dice", [False, True])
@pytest.mark.parametrize("shape", ["linear", "log", "exp"])
def test_annealing_is_the_supervised_loss_of_the_voxels_that_are_not_learned(shape, dice):
    method = method_of("equireg", 2, "plain", annealing=shape, dice=dice)
    batch, progress = batch_of(2), 0.3
    batch.label[:, :3] = IGNORE
    objective = method(batch, Draws(0, 0), progress)
    a = {"linear": progress, "log": 1 - math.exp(-5 * progress), "exp": math.exp(5 * (progress - 1))}[shape]
    threshold = a * (1 - 1 / 3) + 1 / 3
    logits = method.network(batch.image)
    annotated, kept, total = 0, [], 0.0
    for sample, label in zip(logits.softmax(1), batch.label, strict=True):
        for row, column in torch.cartesian_prod(torch.arange(16), torch.arange(16)).tolist():
            if label[row, column] != IGNORE:
                annotated += 1
                right = float(sample[label[row, column], row, column].detach())
                if right <= threshold:
                    kept.append((row, column))
                    total -= math.log(right)
                else:
                    label[row, column] = IGNORE
    assert 0 < len(kept) < annotated
    assert objective.watch["labels kept"] == pytest.approx(len(kept) / annotated)
    expected = total / len(kept)
    if dice:  # of the same voxels
        expected += float(losses.soft_dice(losses.one_hot(batch.label, 3), logits, batch.label != IGNORE).detach())
    assert float(objective.terms["supervised"].detach()) == pytest.approx(expected, rel=1e-4)


def test_annealing_begins_at_chance_ends_with_every_voxel_and_leaves_the_unlabelled_term():
    method, plain = (method_of("equireg", 2, "plain", annealing=kind) for kind in ("linear", "none"))
    first, last = (method(batch_of(2), Draws(0, 0), progress) for progress in (0.0, 1.0))
    assert first.watch["labels kept"] < 0.9
    assert last.watch["labels kept"] == 1
    assert "labels kept" not in plain(batch_of(2), Draws(0, 0), 1.0).watch
    for term, value in plain(batch_of(2), Draws(0, 0), 1.0).terms.items():
        assert float(last.terms[term].detach()) == pytest.approx(float(value.detach()))
    assert torch.equal(first.terms["consistency"], last.terms["consistency"])
    nothing = dataclasses.replace(batch_of(2), unlabelled=torch.zeros(0, 1, 16, 16), inside=torch.ones(0, 16, 16) > 0)
    assert "labels kept" in method(nothing, Draws(0, 0), 0.5).watch


def test_the_published_settings_are_those_of_the_thesis():
    config = EquiRegConfig(preset="2020")
    assert (config.weight, config.ramp_end, config.confidence, config.ema, config.cutmix) == (1, 0, 0, 0, 0)
    assert (config.dice, config.annealing, config.temperature, config.intensity.probability) == (False, "none", 1, 0)
    method, batch = method_of("equireg", 2, "2020"), batch_of(2)
    cross_entropy = torch.nn.functional.cross_entropy(method.network(batch.image), batch.label)
    torch.testing.assert_close(method(batch, Draws(0, 0), 0.5).terms["supervised"], cross_entropy)
    config = EquiRegConfig(preset="2020", dice=True)
    assert config.dice


class Normalised(torch.nn.Sequential):
    """Batch norm as the author's, then the same three logits of every voxel's one number."""

    def __init__(self, dims):
        norm, conv = (torch.nn.BatchNorm2d, torch.nn.Conv2d) if dims == 2 else (torch.nn.BatchNorm3d, torch.nn.Conv3d)
        super().__init__(norm(1, eps=1e-3, momentum=0.01), conv(1, 3, 1))
        generator = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator)

    def by_hand(self, image, slope):
        """Logits with the statistics of all rows together, mean and variance. slope: of each logit."""
        scale, offset, _, base = (array(weight).reshape(-1) for weight in self.parameters())
        rows = image.reshape(len(image), 1, -1, 1)
        normalised, mean, variance = by_hand.batch_norm(rows, scale, offset, 1e-3)
        logits = normalised.reshape(image.shape) * slope.reshape(-1, *[1] * (image.ndim - 2))
        return logits + base.reshape(-1, *[1] * (image.ndim - 2)), mean, variance


@both
def test_labelled_weak_and_strong_views_share_one_pass_and_its_batch_statistics(dims):
    """Two labelled and six unlabelled slices: fourteen rows; the target is held constant, and comes from that pass."""
    network = Normalised(dims)
    before = [statistic.clone() for statistic in (network[0].running_mean, network[0].running_var)]
    # of a network of single voxels, a view that is only moved would teach nothing
    settings = {"preset": "2020", "warp": mirrors_and_shifts(dims), "intensity": INTENSITY}
    method = build_method("equireg", network, settings).train()
    batch, draws, strong = ragged_batch(dims, unlabelled=6), Draws(3, 4), Draws(3, 4).within("strong")
    u, slope = array(batch.unlabelled), array(network[1].weight).reshape(-1)
    source = source_of(Warp.draw(u.shape, method.config.warp, (1.0,) * dims, strong.of("warp")))
    view = tensor(oracle.moved_image(u, source))
    view = array(Intensity.draw(u.shape, method.config.intensity, strong.of("intensity"))(view))
    rows = np.concatenate([array(batch.image), u, view])

    def terms(slope, target=None):
        logits, mean, variance = network.by_hand(rows, slope)
        labelled, weak, changed = np.split(logits, [2, 8])
        published, valid = oracle.target_of(weak, array(batch.inside), source)
        target = published if target is None else target
        found = {
            "supervised": oracle.annealed(labelled, array(batch.label), 1.0),  # nothing is ever that well learned
            "consistency": oracle.consistency_per_image(target, changed, valid),
        }
        return found, target, (mean, variance)

    expected, target, statistics = terms(slope)
    objective = method(batch, draws, 0.5)
    assert_terms(objective.terms, expected)
    running = network[0].running_mean, network[0].running_var
    for kept, first, of_batch in zip(running, before, statistics, strict=True):  # one pass moved them, once
        torch.testing.assert_close(kept, tensor(by_hand.running(array(first), of_batch)))
    if dims == 2:
        objective.total.backward()
        for k, gradient in enumerate(array(network[1].weight.grad).reshape(-1)):
            step = 1e-4 * np.eye(3)[k]
            higher, lower = (sum(terms(slope + sign * step, target)[0].values()) for sign in (1, -1))
            assert gradient == pytest.approx((higher - lower) / 2e-4, rel=1e-3)


def test_the_supervised_variant_of_the_published_settings_is_one_pass_of_labelled_slices():
    network = Normalised(2)
    method = build_method("equireg", network, {"preset": "2020", "unlabelled": False}).train()
    full = ragged_batch(2)
    batch = dataclasses.replace(full, unlabelled=full.unlabelled[:0], inside=full.inside[:0])
    logits, *_ = network.by_hand(array(batch.image), array(network[1].weight).reshape(-1))
    assert_terms(
        method(batch, Draws(0, 0), 0.5).terms, {"supervised": oracle.annealed(logits, array(batch.label), 1.0)}
    )


@both
@pytest.mark.parametrize("shape", ["linear", "log", "exp"])
def test_what_is_not_learned_yet_is_averaged_image_by_image(dims, shape):
    """An image of which few voxels are left weighs as much as one of which many are."""
    method, batch = method_under_test("equireg", dims, preset="2020", annealing=shape), ragged_batch(dims)
    labelled, label = logits_of(method.network, batch.image), array(batch.label)
    threshold = annealing_threshold(0.4, shape, 3)
    left = oracle.without_learned(label, labelled, threshold)
    counts = [int((row != IGNORE).sum()) for row in left]
    assert 0 < min(counts) < 0.95 * max(counts)
    expected = oracle.annealed(labelled, label, threshold)
    objective = method(batch, Draws(3, 4), 0.4)
    assert_terms({"supervised": objective.terms["supervised"]}, {"supervised": expected})
    assert objective.watch["labels kept"] == pytest.approx(sum(counts) / (label != IGNORE).sum())
    pooled = method_under_test("equireg", dims, preset="2020", annealing=shape, per_image=False)
    assert float(pooled(batch, Draws(3, 4), 0.4).terms["supervised"].detach()) == pytest.approx(
        supervised(labelled, left, with_dice=False), rel=1e-4
    )


def test_an_image_that_is_learned_altogether_counts_as_zero():
    method = method_under_test("equireg", 2, preset="2020", annealing="linear")
    batch = ragged_batch(2)
    with torch.no_grad():
        method.network.head.weight.zero_()
        method.network.head.bias.copy_(torch.tensor([2.0, 0.0, -2.0]))
    batch.label[0], batch.label[1] = 0, 1
    objective = method(batch, Draws(3, 4), 0.5)  # the threshold is 2/3; the classes have .87, .12 and .02
    one = -math.log(float(torch.tensor([2.0, 0.0, -2.0]).softmax(0)[1]))
    assert float(objective.terms["supervised"].detach()) == pytest.approx(one / 2, rel=1e-5)
    batch.label[1] = 0
    nothing = method(batch, Draws(3, 4), 0.5).terms["supervised"]
    assert float(nothing.detach()) == 0
    nothing.backward()
    assert all(bool(p.grad.isfinite().all()) for p in method.network.parameters() if p.grad is not None)


@both
def test_soft_annealing_weighs_every_labelled_voxel_by_what_is_left_to_learn(dims):
    settings = {"preset": "2020", "annealing": "soft", "per_image": False}
    method, batch = method_under_test("equireg", dims, **settings), ragged_batch(dims)
    labelled, label = logits_of(method.network, batch.image), array(batch.label)
    objective = method(batch, Draws(3, 4), 0.1)
    assert_terms({"supervised": objective.terms["supervised"]}, {"supervised": oracle.softly_annealed(labelled, label)})
    later = method(batch, Draws(3, 4), 0.9)
    assert torch.equal(later.terms["supervised"], objective.terms["supervised"])  # there is no threshold that rises
    probability = softmax(labelled)
    right = [
        probability[(row, label[(row, *where)], *where)]
        for row, *where in np.ndindex(label.shape)
        if label[(row, *where)] != IGNORE
    ]
    assert objective.watch["labels kept"] == pytest.approx(1 - np.mean(right), rel=1e-4)


def test_the_weights_of_soft_annealing_are_held_constant():
    """By differences of the head's bias, with the weights of before; and the published mean over images is the same
    where all of them are annotated."""
    method, batch = method_under_test("equireg", 2, preset="2020", annealing="soft"), ragged_batch(2)
    batch.label[batch.label == IGNORE] = 1
    labelled, label = logits_of(method.network, batch.image), array(batch.label)
    term = method(batch, Draws(3, 4), 0.5).terms["supervised"]
    assert_terms({"supervised": term}, {"supervised": oracle.softly_annealed(labelled, label)})
    (gradient,) = torch.autograd.grad(term, method.network.head.bias)
    for k, slope in enumerate(gradient.tolist()):
        step = 1e-4 * np.eye(3)[k].reshape(1, 3, 1, 1)
        higher, lower = (oracle.softly_annealed(labelled + sign * step, label, labelled) for sign in (1, -1))
        assert slope == pytest.approx((higher - lower) / 2e-4, rel=1e-3)


CONFIDENCE, TEMPERATURE = 0.9, 0.6


@both
@pytest.mark.parametrize("on_labelled", [False, True])
@pytest.mark.parametrize("warp_logits", [False, True])
def test_terms(dims, on_labelled, warp_logits):
    """Mirrors and shifts, so that probabilities and logits are warped alike; the average is the teacher."""
    method = method_under_test(
        "equireg",
        dims,
        warp=mirrors_and_shifts(dims),
        warp_logits=warp_logits,
        intensity=INTENSITY,
        cutmix=0.9,
        confidence=CONFIDENCE,
        temperature=TEMPERATURE,
        weight=2.0,
        annealing="linear",
        on_labelled=on_labelled,
    )
    batch, draws = ragged_batch(dims), Draws(3, 4)
    u, inside, strong = batch.unlabelled, array(batch.inside), draws.within("strong")
    if on_labelled:
        u, inside = torch.cat([batch.image, u]), np.concatenate([array(batch.label) != IGNORE, inside])
    source = source_of(Warp.draw(u.shape, method.config.warp, batch.spacing_mm, strong.of("warp")))
    assert (source < 0).any()
    target, valid = oracle.target_of(logits_of(method.average, u), inside, source, TEMPERATURE)
    view = tensor(oracle.moved_image(array(u), source))
    view = array(Intensity.draw(u.shape, method.config.intensity, strong.of("intensity"))(view))
    partner, box = box_of(Box.draw(u.shape, (0.02, 0.4), 0.9, strong.of("box")))
    view, target, valid = (pasted(x, x[partner], box) for x in (view, target, valid))
    assert_splits((target.max(1) >= CONFIDENCE)[valid].mean())
    assert_splits(valid.mean())
    labelled = logits_of(method.network, batch.image)
    left = oracle.without_learned(array(batch.label), labelled, annealing_threshold(0.5, "linear", 3))
    expected = {
        "supervised": supervised(labelled, left),
        "consistency": oracle.consistency(target, logits_of(method.network, view), valid, CONFIDENCE, 2.0),
    }
    assert_terms(method(batch, draws, 0.5).terms, expected)


@both
@pytest.mark.parametrize("warp_logits", [False, True])
def test_what_is_interpolated_is_the_probabilities_unless_told(dims, warp_logits):
    method = method_under_test(
        "equireg",
        dims,
        warp={"rotate_deg": 30},
        warp_logits=warp_logits,
        intensity={"probability": 0},
        cutmix=0.0,
        confidence=0.0,
    )
    batch, draws = ragged_batch(dims), Draws(3, 4)
    u = batch.unlabelled
    warp = Warp.draw(u.shape, method.config.warp, batch.spacing_mm, draws.within("strong").of("warp"))
    guess = logits_of(method.average, u)
    target = softmax(array(warp(tensor(guess)))) if warp_logits else array(warp(tensor(softmax(guess))))
    valid = array(warp.mask(batch.inside))
    expected = oracle.consistency(target, logits_of(method.network, warp.image(u)), valid)
    assert float(method(batch, draws, 0.5).terms["consistency"].detach()) == pytest.approx(expected, rel=1e-4)


def test_every_step_has_its_own_noise():
    """Nothing but noise of one size is drawn: two steps differ by the noise itself."""
    noise = {"probability": 1.0, "noise": 0.5, "contrast": 0, "brightness": 0, "gamma": 0, "blur": 0}
    alone = {"warp": {"probability": 0}, "cutmix": 0.0, "confidence": 0.0, "intensity": noise}
    method, batch = method_under_test("equireg", 2, **alone), ragged_batch(2)
    seen = []
    method.network.get_submodule("input").register_forward_hook(lambda _m, _i, output: seen.append(output))
    for step in (0, 1):
        method(batch, Draws(0, step), 0.5)
    first, second = ((views - batch.unlabelled).flatten() for views in (seen[1], seen[3]))
    assert float(first.abs().mean()) > 0.05
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.3
