"""Dice of a validation, by hand."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.plans import make_plan

from semiseg.runs.checkpoint import Progress
from semiseg.training import validation
from semiseg.training.validation import dice_per_class, out_of_patience, validate
from semiseg.types import IGNORE

LABEL = np.array([[[0, 1, 1, 2, 2, 2, IGNORE, IGNORE]]])
GUESS = np.array([[[1, 1, 0, 2, 2, 1, 1, 2]]])


def test_dice_of_each_class_that_the_label_has():
    """Class a: 1 voxel shared, 2 true, 3 predicted (one more is not annotated); b: 2 shared, 3 true, 2 predicted."""
    assert dice_per_class(GUESS, LABEL, make_plan()) == {
        "a": pytest.approx(2 * 1 / (2 + 3)),
        "b": pytest.approx(2 * 2 / (3 + 2)),
    }
    assert dice_per_class(GUESS, np.minimum(LABEL, 1), make_plan()).keys() == {"a"}
    assert dice_per_class(GUESS * 0, LABEL, make_plan()) == {"a": 0.0, "b": 0.0}


def test_scans_are_averaged_a_class_and_then_the_classes(monkeypatch):
    """The second scan has no class b: its Dice is of one scan, and weighs as much as that of a."""
    guesses = iter([GUESS, GUESS])

    def predicted(*_):
        index = torch.from_numpy(next(guesses))
        return torch.nn.functional.one_hot(index, 3).movedim(-1, 0).float()

    monkeypatch.setattr(validation, "predict_probabilities", predicted)
    cases = [
        SimpleNamespace(open_image=lambda: None, open_label=lambda label=label: label)
        for label in (LABEL, np.minimum(LABEL, 1))
    ]
    one = SimpleNamespace(process_index=0, num_processes=1, device="cpu", autocast=nullcontext)
    progress = Progress(step=4)
    validate(None, make_plan(), cases, one, progress)
    second = 2 * 2 / (5 + 3)  # five voxels are a now; three are predicted, of which two are right
    assert progress.dice == {"a": pytest.approx((0.4 + second) / 2), "b": pytest.approx(0.8)}
    assert progress.last_dice == pytest.approx(((0.4 + second) / 2 + 0.8) / 2)
    assert (progress.best_step, progress.best_dice) == (4, progress.last_dice)


def test_patience():
    assert not out_of_patience(Progress(step=9, best_step=2), None)
    assert not out_of_patience(Progress(step=9), 3)
    assert not out_of_patience(Progress(step=9, best_step=7), 3)
    assert out_of_patience(Progress(step=9, best_step=6), 3)
