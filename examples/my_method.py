"""A method of your own: Mean Teacher (Tarvainen and Valpola, arXiv 1703.01780), trained by the same loop as the others.

    semiseg train DATA --labelled 4 --method examples/my_method.py:MeanTeacher --set method.noise=0.1 --out RUN

The same from Python: python examples/my_method.py DATA RUN. The run folder works with `semiseg predict` like any other.
"""

import sys
from pathlib import Path

import torch

from semiseg import METHODS, Batch, ConsistencyConfig, Draws, Method, Objective, RunSettings, forward_frozen, train_run
from semiseg.losses import masked_mean, squared_error, supervised


class MeanTeacherConfig(ConsistencyConfig):
    """`ema` (the teacher's decay), `weight` and its ramp are there already."""

    ramp_end: float = 0.3
    noise: float = 0.2
    """Deviation of the noise that student and teacher see, each their own; images have deviation 1."""


class MeanTeacher(Method):
    """The network, under noise, should agree with its own average, under other noise."""

    Config = MeanTeacherConfig
    config: MeanTeacherConfig
    wants_unlabelled = True

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        target = forward_frozen(self.predictor, self.noisy(batch.unlabelled, draws.of("teacher"))).softmax(1)
        logits = self.network(self.noisy(batch.unlabelled, draws.of("student")))
        consistency = masked_mean(squared_error(target, logits), batch.inside)
        return Objective(
            {
                "supervised": supervised(self.network(batch.image), batch.label),
                "consistency": self.config.weight_at(progress) * consistency,
            }
        )

    def noisy(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return image + self.config.noise * torch.randn(image.shape, generator=generator).to(image)


if __name__ == "__main__":
    METHODS["mine"] = MeanTeacher
    data, run = sys.argv[1:]
    settings = {"data": {"path": data, "labelled": "4"}, "method": {"name": "mine", "noise": 0.1}}
    train_run(RunSettings.parse(settings, where=""), Path(run))
