"""How many images go through networks in a step, against what the methods' papers do, counted by hand."""

import pytest
from support.toys import UNDER_CONTRACT, batch_of, method_of

from semiseg.draws import Draws
from semiseg.training.passes import passes_counted

BY_HAND = {
    "supervised": (1, 0),
    "roam": (1, 2),  # guess, and mixed with the labelled ones
    "equireg": (1, 2),  # guess and strong view
    "mean_teacher": (1, 2),
    "uamt": (1, 10),  # eight noisy passes, the target and the student
    "cps": (2, 2),
    "fixmatch": (1, 2),
    "unimatch": (1, 4),  # guess, two strong views, features left out
    "bcp": (1, 2),
    "two": (2, 2),  # the second network is an attribute like any other
}
"""Passes over the labelled batch, and over the unlabelled one."""


def counted(method, batch):
    with passes_counted(method) as passed:
        method(batch, Draws(0, 3), 0.5)
    return passed.images


@pytest.mark.parametrize("name", UNDER_CONTRACT)
def test_a_step_costs_the_passes_that_its_paper_has(name):
    batch = batch_of(2)
    labelled, unlabelled = BY_HAND[name]
    assert counted(method_of(name, 2), batch) == labelled * len(batch.image) + unlabelled * len(batch.unlabelled)


def test_an_average_that_measures_its_batch_norms_is_a_pass_too():
    batch = batch_of(2)
    assert counted(method_of("supervised", 2, norm="batch"), batch) == 2 * len(batch.image)


def test_afterwards_nothing_is_left_on_the_networks():
    method = method_of("cps", 2)
    counted(method, batch_of(2))
    assert not any(module._forward_pre_hooks for module in method.modules())
