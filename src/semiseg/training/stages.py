"""Which labels a network learns from: true ones or, if it is a student, guessed ones too until its last steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

from semiseg.data.batches import Batches, Position
from semiseg.data.plan import Plan
from semiseg.data.prepare import PreparedCase
from semiseg.training.session import Cases


def batches_of(cases: Cases, unlabelled: bool, plan: Plan, seed: int, fine_tune_from: int) -> Batches:
    """unlabelled: whether batches have unlabelled images. fine_tune_from: the first number of a batch of true labels
    alone, where there are guessed ones."""
    others = cases.unlabelled if unlabelled else ()
    if not cases.guessed:
        return Batches(cases.labelled, others, plan, seed)
    return _Stages(cases, others, plan, seed, fine_tune_from)


class _Stages(Batches):
    """Before number `fine_tune_from`, as many patches of labelled scans as of guessed ones, or a few more: labelled
    scans are repeated (as in ST++, Yang et al. 2022), so that guesses never outvote them."""

    def __init__(
        self, cases: Cases, unlabelled: Sequence[PreparedCase], plan: Plan, seed: int, fine_tune_from: int
    ) -> None:
        super().__init__(cases.labelled, unlabelled, plan, seed)
        often = ceil(len(cases.guessed) / len(cases.labelled))
        self._both = Batches([*list(cases.labelled) * often, *cases.guessed], unlabelled, plan, seed)
        self._fine_tune_from = fine_tune_from

    def positions(self, number: int, stream: str) -> Iterator[Position]:
        if number < self._fine_tune_from:
            return self._both.positions(number, stream)
        return super().positions(number, stream)
