"""Labelled scans alone: cross-entropy and soft Dice. The baseline that everything is judged by."""

from __future__ import annotations

from semiseg.draws import Draws
from semiseg.methods.method import Method, MethodConfig
from semiseg.types import Batch, Objective


class SupervisedConfig(MethodConfig):
    """Only what every method has."""


class Supervised(Method):
    """Cross-entropy + soft Dice on labelled scans, with the same augmentation and averaging as the others."""

    Config = SupervisedConfig

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:  # noqa: ARG002
        return self.supervised(batch, progress)
