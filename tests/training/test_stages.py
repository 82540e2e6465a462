"""True labels and guesses: which cases the batches of a student are of."""

from collections import Counter

import numpy as np
import torch
from support.plans import make_plan

from semiseg.data.batches import Batches
from semiseg.data.prepare import PreparedCase
from semiseg.training.session import Cases, TrainingConfig
from semiseg.training.stages import batches_of
from semiseg.types import IGNORE

PLAN = make_plan(batch=3, unlabelled_batch=2)


def case(folder, name, value):
    """All voxels of its label have the value."""
    place = folder / name
    place.mkdir()
    np.save(place / "image.npy", np.full((1, 8, 8, 8), 0.5, np.float16))
    np.save(place / "label.npy", np.full((8, 8, 8), value, np.int16))
    np.save(place / "foreground.npy", np.zeros((0, 4), np.int32))
    paths = (place / "image.npy", place / "label.npy", place / "foreground.npy")
    return PreparedCase(name, *paths, (1.0, 1.0, 1.0), (8, 8, 8))


def cases_in(folder, guessed=5):
    true = [case(folder, f"true{k}", 1) for k in range(2)]
    others = [case(folder, f"guessed{k}", IGNORE if k == 0 else 2) for k in range(guessed)]
    return Cases(true, others, guessed=others)


def test_without_guesses_batches_are_what_they_were(tmp_path):
    cases = Cases([case(tmp_path, "true", 1)], [case(tmp_path, "other", 2)])
    assert type(batches_of(cases, True, PLAN, 0, 3)) is Batches


def test_guesses_until_the_last_steps_and_then_true_labels_alone(tmp_path):
    cases = cases_in(tmp_path)
    batches = batches_of(cases, True, PLAN, 7, fine_tune_from=30)
    alone = Batches(cases.labelled, cases.unlabelled, PLAN, 7)
    seen = Counter()
    for number in range(60):
        batch, names = batches[number], batches.names(number)
        labelled = names[: PLAN.batch]
        assert len(names) == PLAN.batch + PLAN.unlabelled_batch
        assert names[PLAN.batch :] == alone.names(number)[PLAN.batch :]  # the unlabelled stream goes on as it was
        if number < 30:
            seen.update(labelled)
        else:
            assert labelled == alone.names(number)[: PLAN.batch]
            assert torch.equal(batch.label, alone[number].label)
            assert set(batch.label.unique().tolist()) == {1}
    assert seen.keys() == {case.name for case in (*cases.labelled, *cases.guessed)}
    true = sum(count for name, count in seen.items() if name.startswith("true"))
    assert abs(true / sum(seen.values()) - 6 / 11) < 0.02  # two, three times, beside five


def test_voxels_that_nobody_is_sure_of_arrive_as_ignore(tmp_path):
    cases = cases_in(tmp_path, guessed=1)
    batches = batches_of(cases, False, PLAN, 0, fine_tune_from=100)
    found = {
        name: int(label.unique())
        for number in range(5)
        for name, label in zip(batches.names(number), batches[number].label, strict=True)
    }
    assert found == {"true0": 1, "true1": 1, "guessed0": IGNORE}


def test_the_first_step_of_true_labels_alone():
    for steps, share, first in ((10, 0.1, 9), (30, 0.1, 27), (5, 0.1, 4), (1000, 0.1, 900), (7, 0, 7), (7, 1, 0)):
        assert TrainingConfig(steps=steps, fine_tune=share).fine_tune_step == first
