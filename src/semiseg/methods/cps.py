"""CPS, cross pseudo supervision: two networks that differ in their first weights teach each other.

Chen, Yuan, Zeng, Wang: Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision, CVPR 2021,
arXiv 2106.01226; weight and ramp as SSL4MIS has them for medical scans, `preset = "2021"` as the authors have them.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import nn

from semiseg import losses
from semiseg.draws import Draws
from semiseg.methods.method import Ramp, SemiSupervised, UnlabelledConfig
from semiseg.networks.ensemble import Ensemble, fresh_copy
from semiseg.types import Batch, Objective


class CPSConfig(UnlabelledConfig):
    """Settings of CPS."""

    presets: ClassVar = {"2021": {"weight": 1.5, "ramp_start": 0.0, "ramp_end": 0.0, "dice": False}}

    weight: float = Field(default=0.2, ge=0)
    ramp: Ramp = "sigmoid"
    ramp_end: float = Field(default=1.0, ge=0, le=1)


class CPS(SemiSupervised):
    """Cross-entropy of each network against the other's most probable classes. Both predict, as their mean."""

    Config = CPSConfig
    config: CPSConfig
    network: Ensemble

    def __init__(self, network: nn.Module, config: CPSConfig) -> None:
        super().__init__(Ensemble([network, fresh_copy(network)]), config)

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:  # noqa: ARG002
        first, second = self.network.networks
        objective = self.supervised(batch, progress, first) + self.supervised(batch, progress, second)
        if not len(batch.unlabelled):
            return objective
        one, other = first(batch.unlabelled), second(batch.unlabelled)
        guesses = losses.most_probable(one), losses.most_probable(other)
        error = losses.cross_entropy(guesses[1], one) + losses.cross_entropy(guesses[0], other)
        return objective + self.consistency(error, batch.inside, progress, guesses[0])
