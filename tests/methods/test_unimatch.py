"""UniMatch against the formula: two strong views with draws of their own, and one with perturbed features."""

import pytest
import torch
from reference import equireg
from reference import unimatch as oracle
from reference.voxels import guesses, pasted
from support.oracles import (
    INTENSITY,
    array,
    assert_splits,
    assert_terms,
    both,
    box_of,
    kept_by,
    logits_of,
    method_under_test,
    mirrors_and_shifts,
    ragged_batch,
    source_of,
    tensor,
)

from semiseg.draws import Draws
from semiseg.errors import UserError
from semiseg.methods import build_method
from semiseg.transforms.dropout import ChannelDropout
from semiseg.transforms.intensity import Intensity
from semiseg.transforms.mixing import Box
from semiseg.transforms.warp import Warp

THRESHOLD = 0.8


def strong_view(method, batch, draws, moved):
    """What the oracle takes of a view."""
    u, inside, weak = batch.unlabelled, array(batch.inside), logits_of(method.network, batch.unlabelled)
    view = array(u)
    if moved:
        source = source_of(Warp.draw(u.shape, method.config.warp, batch.spacing_mm, draws.of("warp")))
        view, weak, inside = (
            equireg.moved_image(view, source),
            equireg.moved(weak, source),
            equireg.moved_mask(inside, source),
        )
    view = array(Intensity.draw(u.shape, method.config.intensity, draws.of("intensity"))(tensor(view)))
    partner, box = box_of(Box.draw(u.shape, (0.02, 0.4), 0.9, draws.of("box")))
    logits = logits_of(method.network, pasted(view, view[partner], box))
    return weak, weak[partner], logits, box, pasted(inside, inside[partner], box)


def feature_logits(network, u, draws):
    """Every resolution loses channels of its own."""
    with torch.no_grad():
        features = network.encoder(u)
        kept = [
            kept_by(ChannelDropout.draw(0.5, draws.of(str(level))), *h.shape[:2]) for level, h in enumerate(features)
        ]
        assert len(features) == 3
        assert (kept[1] != kept[2]).any()  # as many channels, other ones
        perturbed = [tensor(oracle.perturbed(array(h), k)) for h, k in zip(features, kept, strict=True)]
        return array(network.head(network.decoder(perturbed)))


@both
@pytest.mark.parametrize("moved", [False, True])
def test_terms(dims, moved):
    warp_config = {"warp": mirrors_and_shifts(dims)} if moved else {}
    method = method_under_test(
        "unimatch", dims, intensity=INTENSITY, cutmix=0.9, confidence=THRESHOLD, weight=3.0, **warp_config
    )
    batch, draws = ragged_batch(dims), Draws(3, 4)
    weak = logits_of(method.network, batch.unlabelled)
    assert_splits((guesses(weak)[1] >= THRESHOLD).mean())
    views = [strong_view(method, batch, draws.within(name), moved) for name in ("first", "second")]
    assert (views[0][3] != views[1][3]).any()
    perturbed = feature_logits(method.network, batch.unlabelled, draws.within("features"))
    features = (weak, perturbed, array(batch.inside))
    labelled = logits_of(method.network, batch.image)
    expected = oracle.terms(labelled, array(batch.label), views, features, THRESHOLD, 3.0)
    assert_terms(method(batch, draws, 0.5).terms, expected)


def test_the_weights_of_the_views_add_up_to_one():
    """Nothing is perturbed: all three views are the image, and the term is the cross-entropy of the own guess."""
    method = method_under_test(
        "unimatch", 2, intensity={"probability": 0}, cutmix=0.0, confidence=0.0, dropout=1e-9, weight=3.0
    )
    batch = ragged_batch(2)
    logits = method.network(batch.unlabelled)
    expected = torch.nn.functional.cross_entropy(logits, logits.argmax(1), reduction="none")[batch.inside].mean()
    torch.testing.assert_close(method(batch, Draws(0, 0), 0.5).terms["consistency"], 3 * expected)


def test_the_network_itself_guesses():
    method, batch = method_under_test("unimatch", 2), ragged_batch(2)
    before = method(batch, Draws(0, 0), 0.5).total
    for weight in method.average.parameters():
        torch.nn.init.zeros_(weight)
    assert torch.equal(method(batch, Draws(0, 0), 0.5).total, before)


def test_a_network_without_an_encoder_is_refused():
    with pytest.raises(UserError, match=r"network.name: got Conv2d, which has no encoder.*unet, roam-unet or fcdense"):
        build_method("unimatch", torch.nn.Conv2d(1, 3, 1), {})
