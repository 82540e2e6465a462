"""FixMatch against the formula: the guess moves and is pasted as the image is; doubtful voxels count as zero."""

import pytest
import torch
from reference import equireg, fixmatch
from reference.voxels import guesses, pasted, supervised
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

from semiseg.draws import Draws
from semiseg.methods.fixmatch import FixMatchConfig
from semiseg.transforms.intensity import Intensity
from semiseg.transforms.mixing import Box
from semiseg.transforms.warp import Warp

THRESHOLD = 0.8


@both
@pytest.mark.parametrize("moved", [False, True])
def test_terms(dims, moved):
    warp_config = {"warp": mirrors_and_shifts(dims)} if moved else {}
    method = method_under_test(
        "fixmatch", dims, intensity=INTENSITY, cutmix=0.9, confidence=THRESHOLD, weight=3.0, **warp_config
    )
    batch, draws = ragged_batch(dims), Draws(3, 4)
    u, strong = batch.unlabelled, draws.within("strong")
    weak, view, inside = logits_of(method.network, u), array(u), array(batch.inside)
    if moved:
        source = source_of(Warp.draw(u.shape, method.config.warp, batch.spacing_mm, strong.of("warp")))
        assert (source < 0).any()
        weak, view = equireg.moved(weak, source), equireg.moved_image(view, source)
        inside = equireg.moved_mask(inside, source)
    view = array(Intensity.draw(u.shape, method.config.intensity, strong.of("intensity"))(tensor(view)))
    partner, box = box_of(Box.draw(u.shape, (0.02, 0.4), 0.9, strong.of("box")))
    view, inside = pasted(view, view[partner], box), pasted(inside, inside[partner], box)
    assert_splits((guesses(weak)[1] >= THRESHOLD).mean())
    logits = logits_of(method.network, view)
    expected = {
        "supervised": supervised(logits_of(method.network, batch.image), array(batch.label)),
        "consistency": 3 * fixmatch.consistency_with_cutmix(weak, weak[partner], logits, box, THRESHOLD, inside),
    }
    assert_terms(method(batch, draws, 0.5).terms, expected)


def test_the_network_itself_guesses_and_the_average_only_predicts():
    method, batch = method_under_test("fixmatch", 2), ragged_batch(2)
    before = method(batch, Draws(0, 0), 0.5).total
    for weight in method.average.parameters():
        torch.nn.init.zeros_(weight)
    assert torch.equal(method(batch, Draws(0, 0), 0.5).total, before)
    assert method.predictor is method.average


def test_the_published_threshold_and_no_geometry():
    config = FixMatchConfig()
    assert (config.confidence, config.warp.probability, config.weight_at(0.0)) == (0.95, 0, 1)
