"""BCP against the formula: both directions, labels and guesses apart, the largest piece of every guessed class."""

import numpy as np
import pytest
import torch
from reference import bcp as oracle
from reference.voxels import IGNORE, pasted, supervised
from support.oracles import SIDE, array, assert_splits, assert_terms, both, box_of, logits_of, method_under_test
from support.oracles import ragged_batch as batch_with_holes

from semiseg.draws import Draws
from semiseg.methods.bcp import BCPConfig


@both
@pytest.mark.parametrize(("labelled", "unlabelled"), [(2, 3), (3, 3), (3, 2)])
def test_terms(dims, labelled, unlabelled):
    method, draws = method_under_test("bcp", dims), Draws(3, 4)
    batch = batch_with_holes(dims, labelled, unlabelled)
    image, label = array(torch.cat([batch.image, batch.unlabelled])), array(batch.label)
    guess = oracle.guess(logits_of(method.average, batch.unlabelled))
    raw = logits_of(method.average, batch.unlabelled).argmax(1)
    assert_splits((guess != raw).mean() * 2)  # a good part of the guess is cut off
    guess = np.where(array(batch.inside), guess, IGNORE)
    partner, box = box_of(method.box(torch.Size(image.shape), labelled, draws.of("box")))
    logits = logits_of(method.network, pasted(image, image[partner], box))
    both_labels = np.concatenate([label, guess])
    inward, outward = (
        (logits[rows], both_labels[rows], both_labels[partner[rows]], box[rows])
        for rows in (slice(labelled), slice(labelled, None))
    )
    whole = oracle.terms(outward, inward)
    known = oracle.terms(outward, inward, alpha=0.0)
    expected = {  # the published loss is half of cross-entropy plus Dice
        "supervised": 2 * sum(known.values()),
        "consistency": 2 * (sum(whole.values()) - sum(known.values())),
    }
    assert_terms(method(batch, draws, 0.5).terms, expected)


@both
@pytest.mark.parametrize(("labelled", "unlabelled"), [(1, 1), (2, 3), (3, 2), (3, 0), (1, 0)])
def test_each_row_gets_one_box_of_a_row_of_the_other_kind(dims, labelled, unlabelled):
    method = method_under_test("bcp", dims)
    seen = set()
    for step in range(12):
        shape = torch.Size((labelled + unlabelled, 1, *[SIDE] * dims))
        box = method.box(shape, labelled, Draws(0, step).of("box"))
        partner = box.partner.tolist()
        seen.add(tuple(partner))
        for row, other in enumerate(partner):
            assert (other >= labelled) == (row < labelled) or not unlabelled
            sides = [len(set(axis.tolist())) for axis in box.where[row].nonzero(as_tuple=True)]
            assert sides == [round(2 / 3 * SIDE)] * dims
            assert int(box.where[row].sum()) == round(2 / 3 * SIDE) ** dims
        assert len(set(partner[:labelled])) == min(labelled, unlabelled or labelled)  # as few twice as can be
        assert len(set(partner[labelled:])) == min(labelled, unlabelled)
    assert len(seen) > 1 or labelled + unlabelled <= 2


@both
def test_before_the_ramp_labelled_images_get_boxes_of_each_other(dims):
    method, batch, draws = method_under_test("bcp", dims), batch_with_holes(dims, 3), Draws(3, 4)
    image, label = array(batch.image), array(batch.label)
    partner, box = box_of(method.box(batch.image.shape, 3, draws.of("box")))
    assert sorted(partner) == [0, 1, 2]
    logits = logits_of(method.network, pasted(image, image[partner], box))
    mixed = pasted(label, label[partner], box)
    assert_terms(method(batch, draws, 0.24).terms, {"supervised": supervised(logits, mixed)})
    assert "consistency" in method(batch, draws, 0.25).terms


def test_guesses_are_the_averages_with_the_largest_piece_of_every_class():
    method, u = method_under_test("bcp", 2), batch_with_holes(2).unlabelled
    expected = oracle.guess(logits_of(method.average, u))
    assert np.array_equal(array(method.guess(u)), expected)
    assert not np.array_equal(expected, oracle.guess(logits_of(method.network, u)))


def test_only_the_guessed_part_is_weighed():
    first, second = (method_under_test("bcp", 2, weight=weight) for weight in (0.5, 1.5))
    one, three = (method(batch_with_holes(2), Draws(0, 0), 0.5).terms for method in (first, second))
    torch.testing.assert_close(one["supervised"], three["supervised"])
    torch.testing.assert_close(3 * one["consistency"], three["consistency"])
    assert BCPConfig().weight == 0.5
