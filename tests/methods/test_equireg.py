import dataclasses
import math

import numpy as np
import pytest
import torch
from reference import equireg as oracle
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
    view = tensor(oracle.moved(array(u), source))
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
    expected = oracle.consistency(target, logits_of(method.network, warp(u)), valid)
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
