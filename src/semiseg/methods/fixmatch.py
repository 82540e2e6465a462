"""FixMatch: where the network is sure of a weak view, the strong view learns its guess.

Sohn, Berthelot et al.: FixMatch, NeurIPS 2020, arXiv 2001.07685. The strong view is that of UniMatch's baseline for
segmentation (arXiv 2208.09910): intensity changes and CutMix, no geometry.
"""

from __future__ import annotations

from pydantic import Field

from semiseg import losses
from semiseg.draws import Draws
from semiseg.methods.method import SemiSupervised
from semiseg.methods.strong import STRONG_INTENSITY, Strong, StrongConfig, confident
from semiseg.networks.frozen import forward_frozen
from semiseg.transforms.intensity import IntensityConfig
from semiseg.types import Batch, Objective


class FixMatchConfig(StrongConfig):
    """Settings of FixMatch."""

    intensity: IntensityConfig = STRONG_INTENSITY
    cutmix: float = Field(default=0.5, ge=0, le=1)
    confidence: float = Field(default=0.95, ge=0, lt=1)


class FixMatch(SemiSupervised):
    """Cross-entropy of a strong view against the network's own most probable classes where they are confident."""

    Config = FixMatchConfig
    config: FixMatchConfig

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        u, config = batch.unlabelled, self.config
        objective = self.supervised(batch, progress)
        if not len(u):
            return objective
        strong = Strong.draw(u.shape, config, batch.spacing_mm, draws.within("strong"), u.device)
        guess = strong.target(forward_frozen(self.network, u).softmax(1))
        error = losses.cross_entropy(losses.most_probable(guess), self.network(strong.image(u)))
        certain = confident(guess, config.confidence)
        return objective + self.consistency(error, strong.mask(batch.inside), progress, guess, certain)
