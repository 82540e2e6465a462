"""Mean Teacher: what the network says of an image should be what its average says of the same image under noise.

Tarvainen and Valpola: Mean teachers are better role models, NeurIPS 2017, arXiv 1703.01780; noise, weight and ramp as
SSL4MIS has them, the reference that the medical literature compares with.
"""

from __future__ import annotations

from pydantic import Field

from semiseg import losses
from semiseg.draws import Draws
from semiseg.methods.method import Ramp, SemiSupervised, UnlabelledConfig
from semiseg.networks.frozen import forward_frozen
from semiseg.transforms.intensity import clipped_noise
from semiseg.types import Batch, Objective


class MeanTeacherConfig(UnlabelledConfig):
    """Settings of Mean Teacher."""

    ema: float = Field(default=0.99, gt=0, lt=1)
    weight: float = Field(default=0.1, ge=0)
    ramp: Ramp = "sigmoid"
    ramp_end: float = Field(default=1.0, ge=0, le=1)
    noise: float = Field(default=0.1, ge=0)
    """Deviation of the noise on the teacher's images, which have deviation 1; cut at twice that."""


class MeanTeacher(SemiSupervised):
    """Squared error between f(u) and the average's f(u + noise), held constant."""

    Config = MeanTeacherConfig
    config: MeanTeacherConfig

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        u = batch.unlabelled
        objective = self.supervised(batch, progress)
        if not len(u):
            return objective
        target = forward_frozen(self.predictor, clipped_noise(u, self.config.noise, draws.of("noise"))).softmax(1)
        error = losses.squared_error(target, self.network(u))
        return objective + self.consistency(error, batch.inside, progress, target)
