"""UA-MT: Mean Teacher that learns only where the teacher agrees with itself.

Yu, Wang, Li, Fu, Heng: Uncertainty-Aware Self-Ensembling Model for Semi-Supervised 3D Left Atrium Segmentation,
MICCAI 2019, arXiv 1907.07034.

The published network has dropout of channels before its head and at its deepest features. Networks here have none, so
the method drops these layers' channels itself, in student and teacher alike, whatever the network; prediction drops
nothing.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from semiseg import losses
from semiseg.draws import Draws
from semiseg.methods.mean_teacher import MeanTeacherConfig
from semiseg.methods.method import SemiSupervised
from semiseg.networks.editable import layer_named
from semiseg.networks.frozen import forward_frozen
from semiseg.schedules import sigmoid_ramp
from semiseg.transforms.dropout import ChannelDropout
from semiseg.transforms.hidden import edited
from semiseg.transforms.intensity import clipped_noise
from semiseg.types import Batch, Objective


class UAMTConfig(MeanTeacherConfig):
    """Settings of UA-MT."""

    passes: int = Field(default=8, ge=2)
    """Of the teacher, each with its own noise and dropout; the entropy of their mean is the uncertainty."""
    dropout: float = Field(default=0.5, gt=0, lt=1)
    """Probability that a channel is left out."""
    dropout_layers: tuple[str, ...] = Field(default=("deepest", "last"), min_length=1)
    """Where: `deepest` for the end of the encoder, `last` for the last decoder block, or as ROAM's `layers`."""
    certainty: float = Field(default=0.75, gt=0, le=1)
    """Voxels with less than this share of the greatest possible entropy are learned from; it rises to 1 with the
    run."""


class UAMT(SemiSupervised):
    """Squared error between student and teacher, mean over the voxels whose entropy over the passes is small."""

    Config = UAMTConfig
    config: UAMTConfig

    def __init__(self, network: nn.Module, config: UAMTConfig) -> None:
        super().__init__(network, config)
        self.layers = [layer_named(network, name, "method.dropout_layers") for name in config.dropout_layers]

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        u, config = batch.unlabelled, self.config
        with self.dropped(self.network, draws.within("labelled")):
            objective = self.supervised(batch, progress)
        if not len(u):
            return objective
        passes = [self.noisy_pass(u, draws.within(f"pass {number}")) for number in range(config.passes)]
        mean = torch.stack(passes).mean(0)
        entropy = -torch.special.xlogy(mean, mean).sum(1)
        limit = config.certainty + (1 - config.certainty) * sigmoid_ramp(progress, 0.0, 1.0)
        certain = (entropy < limit * math.log(mean.shape[1])) & batch.inside
        target = self.noisy_pass(u, draws.within("target"))  # a pass of its own, as in the authors' code
        with self.dropped(self.network, draws.within("student")):
            error = losses.squared_error(target, self.network(u))
        objective.watch["certain"] = float(certain.float().mean())
        return objective + self.consistency(error, certain, progress, target)  # a mean over certain voxels alone

    def noisy_pass(self, u: Float[Tensor, "b c *spatial"], draws: Draws) -> Float[Tensor, "b classes *spatial"]:
        """What the teacher makes of the images under noise, with dropout, held constant."""
        with self.dropped(self.predictor, draws):
            return forward_frozen(self.predictor, clipped_noise(u, self.config.noise, draws.of("noise"))).softmax(1)

    def dropped(self, network: nn.Module, draws: Draws) -> AbstractContextManager[None]:
        """For one forward pass: the network with dropout at the chosen layers."""
        drops = {name: ChannelDropout.draw(self.config.dropout, draws.of(name)) for name in self.layers}
        return edited(network, drops)
