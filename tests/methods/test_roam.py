"""ROAM: image, guess and validity of a strong view move alike; guesses over several views; MixMatch."""

from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from reference import equireg
from reference import roam as oracle
from reference.voxels import pasted
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
from support.toys import all_inside, batch_of, method_of

from semiseg.draws import Draws
from semiseg.errors import UserError
from semiseg.methods import build_method
from semiseg.methods.roam import Roam, RoamConfig
from semiseg.networks.editable import layer_named
from semiseg.networks.frozen import forward_frozen
from semiseg.transforms.intensity import Intensity
from semiseg.transforms.mixing import Box, Mix, sharpen
from semiseg.transforms.warp import Warp, WarpConfig

ALONE = {"ema": 0.0, "layers": ["input"], "mix_skips": False, "ramp_end": 0.0, "weight": 1.0}


@pytest.fixture
def unmixed(monkeypatch):
    """Every row is its own partner."""
    monkeypatch.setattr(Mix, "draw", lambda batch, *_: Mix(torch.arange(batch), torch.ones(batch)))


def single_voxel_network(dims):
    torch.manual_seed(0)
    head = (torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d)(1, 3, 1)
    return torch.nn.Sequential(OrderedDict(input=torch.nn.Identity(), head=head))


def mirrored(dims, **more):
    flips = WarpConfig(flip=tuple(range(dims)), at_least=1)
    return build_method("roam", single_voxel_network(dims), {**ALONE, "warp": flips, **more})


def consistency(method, batch):
    return float(method(batch, Draws(0, 0), 0.5).terms["consistency"].detach())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.usefixtures("unmixed")
def test_the_guess_moves_with_the_image(dims):
    """A network of single voxels commutes with mirrors, so an unsharpened guess is met exactly."""
    assert consistency(mirrored(dims, temperature=1.0), batch_of(dims, unlabelled=8)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.usefixtures("unmixed")
def test_validity_moves_with_the_image(dims):
    """Sharpened guesses are missed by an amount that every voxel keeps when it is mirrored."""
    method, batch = mirrored(dims), batch_of(dims, unlabelled=8)
    batch.inside[:, :5] = False
    batch.inside[:3, :, 10:] = False
    probability = method.network(batch.unlabelled).softmax(1)
    error = (probability - sharpen(probability, 0.5)).square().sum(1)
    inside = float(error[batch.inside].mean().detach())
    assert abs(inside - float(error.mean().detach())) > 1e-3 * inside
    mirrored_term = consistency(method, batch)
    assert mirrored_term == pytest.approx(inside, rel=1e-4)
    assert mirrored_term == pytest.approx(consistency(mirrored(dims, warp={"probability": 0}), batch), rel=1e-4)


@pytest.mark.usefixtures("unmixed")
def test_voxels_from_outside_the_picture_are_left_out():
    """Shrunk to half, three quarters of the view come from outside, whatever the guess says there."""
    batch = batch_of(2, unlabelled=4)
    batch.unlabelled[:] = 1.0
    halved = mirrored(2, warp=WarpConfig(scale=(0.5, 0.5)))
    whole = mirrored(2, warp={"probability": 0})
    assert consistency(halved, batch) == pytest.approx(consistency(whole, batch), rel=1e-4)


@pytest.mark.parametrize("views", [1, 3])
def test_the_guess_is_the_mean_over_views_of_which_the_first_is_the_image(views):
    changes = {"probability": 1.0, "contrast": 0.5, "noise": 0.3}
    method = method_of("roam", 2, "plain", views=views, view_intensity=changes)
    u, draws = batch_of(2).unlabelled, Draws(3, 4)
    seen = [u]
    for view in range(2, views + 1):
        config = method.config.view_intensity
        seen.append(Intensity.draw(u.shape, config, draws.of(f"view {view}"))(u))
        assert float((seen[-1] - seen[-2]).abs().mean()) > 0.05
    expected = torch.stack([forward_frozen(method.network, image).softmax(1) for image in seen]).mean(0)
    torch.testing.assert_close(method.guess(u, draws), expected)
    torch.testing.assert_close(expected.sum(1), torch.ones(2, 16, 16))


def test_views_that_do_not_differ_are_a_mistake():
    with pytest.raises(UserError, match=r"views 2: expected view_intensity.probability above 0, or views 1"):
        RoamConfig.parse({"views": 2, "view_intensity": {"probability": 0}}, where="method")


def test_mixmatch_mixes_the_input_by_a_share_a_sample_towards_sharpened_mean_guesses():
    """The objective by hand, without hidden layers: MixMatch, equations 3 to 7, with weights for sums over classes."""
    method, batch, draws = method_of("roam", 2, "mixmatch", weight=7.5), all_inside(batch_of(2, 0, 3, 3)), Draws(0, 1)
    assert isinstance(method, Roam)
    assert method.config == RoamConfig(preset="mixmatch", ramp_end=0.0)
    mix = Mix.draw(6, 0.75, draws.of("mix"), per_sample=True)
    assert len(mix.share.unique()) == 6
    label = torch.nn.functional.one_hot(batch.label, 3).movedim(-1, 1).float()
    target = mix(torch.cat([label, sharpen(method.guess(batch.unlabelled, draws), 0.5)]))
    logits = method.network(mix(torch.cat([batch.image, batch.unlabelled])))
    objective = method(batch, draws, 0.5)
    assert objective.terms.keys() == {"supervised", "consistency"}
    cross_entropy = -(target * logits.log_softmax(1)).sum(1)[:3].mean()
    # 75 on a mean over the 10 classes of their pictures
    error = 75 / 10 * (target - logits.softmax(1)).square().sum(1)[3:].mean()
    torch.testing.assert_close(objective.terms["supervised"], cross_entropy)
    torch.testing.assert_close(objective.terms["consistency"], error)


def test_mixmatch_takes_a_network_that_does_not_name_its_skip_connections():
    network = single_voxel_network(2)
    method = build_method("roam", network, {"preset": "mixmatch"})
    assert torch.isfinite(method(batch_of(2), Draws(0, 0), 0.5).total)


def test_before_the_ramp_labelled_images_are_alone():
    """Guesses of a network that has learned nothing are noise; so there is nothing to mix."""
    batch, draws = batch_of(2), Draws(3, 0)
    waiting = method_of("roam", 2, ema=0.0, ramp_start=0.5, ramp_end=1.0)
    alone = method_of("supervised", 2, ema=0.0)
    alone.load_state_dict(waiting.state_dict())
    early, without = (method(batch, draws, 0.4) for method in (waiting, alone))
    torch.testing.assert_close(early.total, without.total)
    assert "consistency" in waiting(batch, draws, 0.5).terms


def test_no_skip_leads_around_the_default_layers():
    """So mixing skips or not is the same for them; around a deeper layer there are some."""
    network = method_of("roam", 2).network
    for name in ("input", "1", "last"):
        layer = layer_named(network, name)
        assert network.edits_at(layer, abs).keys() == {layer}
    deeper = layer_named(network, "2")
    assert len(network.edits_at(deeper, abs)) > 1


CONFIDENCE, TEMPERATURE = 0.85, 0.6


def split_at(network, layer):
    """The network before the mixed layer, for one image: what the layer puts out and the skips that lead around it;
    and after it: logits."""
    stages, decoder, head = network.encoder.stages, network.decoder, network.head

    def before(image):
        with torch.no_grad():
            features = network.encoder(tensor(image)[None])
            if layer == "input":
                return image[None], []
            if layer == "last":
                return array(decoder(features)), []
            level = int(layer) - 1
            return array(features[level]), [array(skip) for skip in features[:level]]

    def after(hidden, skips):
        with torch.no_grad():
            h = tensor(hidden)
            if layer == "last":
                return array(head(h))[0]
            if layer == "input":
                return array(network(h))[0]
            features = [*map(tensor, skips), h]
            for stage in stages[len(features) :]:
                features.append(stage(features[-1]))
            return array(head(decoder(features)))[0]

    return before, after


@both
@pytest.mark.parametrize("layer", ["input", "1", "2", "3", "last"])
@pytest.mark.parametrize(
    ("mix_skips", "per_sample", "mix_labelled"), [(True, False, False), (True, False, True), (False, True, True)]
)
def test_terms(dims, layer, mix_skips, per_sample, mix_labelled):
    method = method_under_test(
        "roam",
        dims,
        layers=[layer],
        mix_skips=mix_skips,
        per_sample=per_sample,
        mix_labelled=mix_labelled,
        warp=mirrors_and_shifts(dims),
        intensity=INTENSITY,
        cutmix=0.9,
        confidence=CONFIDENCE,
        temperature=TEMPERATURE,
        weight=3.0,
    )
    batch, draws = ragged_batch(dims), Draws(3, 7)
    u, strong, labelled = batch.unlabelled, draws.within("strong"), len(batch.image)
    source = source_of(Warp.draw(u.shape, method.config.warp, batch.spacing_mm, strong.of("warp")))
    guess = equireg.moved(oracle.guess([logits_of(method.average, u)], TEMPERATURE), source)
    view, inside = equireg.moved_image(array(u), source), equireg.moved_mask(array(batch.inside), source)
    view = array(Intensity.draw(u.shape, method.config.intensity, strong.of("intensity"))(tensor(view)))
    partner, box = box_of(Box.draw(u.shape, (0.02, 0.4), 0.9, strong.of("box")))
    view, guess, inside = (pasted(x, x[partner], box) for x in (view, guess, inside))
    mix = Mix.draw(labelled + len(u), 0.75, draws.of("mix"), per_sample)
    partner, share = mix.partner.tolist(), array(mix.share)
    assert any(other >= labelled for other in partner[:labelled])
    assert any(labelled <= other != row for row, other in enumerate(partner[labelled:], labelled))
    assert share.min() < 0.9
    if not mix_labelled:
        partner[:labelled] = range(labelled)
    logits = oracle.forward(
        *split_at(method.network, layer), np.concatenate([array(batch.image), view]), partner, share, mix_skips
    )
    assert_splits((guess.max(1) >= CONFIDENCE)[inside].mean())
    expected = oracle.terms(np.stack(logits), array(batch.label), guess, partner, share, 3.0 * 0.5, inside, CONFIDENCE)
    objective = method(batch, draws, 0.5)
    assert_terms(objective.terms, expected)
    alone = oracle.terms(np.stack(logits), array(batch.label), guess, partner, share, 1.5, inside, 0.0)
    assert objective.terms["consistency"] < alone["consistency"]  # the threshold left something out


def test_layers_are_drawn_evenly_and_the_last_one_too():
    method = method_under_test("roam", 2, layers=["input", "2", "last"])
    mix = Mix(torch.arange(2), torch.ones(2))
    drawn = Counter(frozenset(method.edits(mix, Draws(0, step).of("layer"))) for step in range(300))
    edited_together = [{"input"}, {"encoder.stages.1", "encoder"}, {"decoder.stages.1"}]
    assert drawn.keys() == {*map(frozenset, edited_together)}
    assert min(drawn.values()) > 70


def test_one_view_needs_no_change_and_two_do():
    still = {"view_intensity": {"probability": 0.0}}
    assert RoamConfig.parse({"views": 1, **still}, where="method").views == 1
    with pytest.raises(UserError, match=r"views 2: expected view_intensity\.probability above 0, or views 1"):
        RoamConfig.parse({"views": 2, **still}, where="method")
