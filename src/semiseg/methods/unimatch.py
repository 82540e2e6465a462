"""UniMatch: FixMatch with two strong views, and a third whose features are perturbed instead of its image.

Yang, Qi, Feng, Zhang, Shi: Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation, CVPR 2023,
arXiv 2208.09910.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from semiseg import losses
from semiseg.draws import Draws
from semiseg.errors import UserError
from semiseg.methods.fixmatch import FixMatchConfig
from semiseg.methods.method import SemiSupervised
from semiseg.methods.strong import Strong, confident
from semiseg.networks.frozen import forward_frozen
from semiseg.transforms.dropout import ChannelDropout
from semiseg.transforms.hidden import edited
from semiseg.types import Batch, Objective


class UniMatchConfig(FixMatchConfig):
    """Settings of UniMatch."""

    dropout: float = Field(default=0.5, gt=0, lt=1)
    """Probability that a channel of the encoder's features, deepest and skips alike, is left out in the third view."""


class UniMatch(SemiSupervised):
    """Cross-entropy of three views against the confident guess: a quarter each of two strong ones, half of perturbed
    features."""

    Config = UniMatchConfig
    config: UniMatchConfig

    def __init__(self, network: nn.Module, config: UniMatchConfig) -> None:
        super().__init__(network, config)
        if not hasattr(network, "encoder"):
            raise UserError(
                f"network.name: got {type(network).__name__}, which has no encoder to perturb, expected unet, "
                "roam-unet or fcdensenet for unimatch; choose one of them or another method"
            )

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        u, config = batch.unlabelled, self.config
        objective = self.supervised(batch, progress)
        if not len(u):
            return objective
        clean = forward_frozen(self.network, u).softmax(1)
        for name in ("first", "second"):
            strong = Strong.draw(u.shape, config, batch.spacing_mm, draws.within(name), u.device)
            view = self.term(strong.target(clean), self.network(strong.image(u)), strong.mask(batch.inside), progress)
            objective = objective + view.scaled(0.25)
        with edited(self.network, {"encoder": lambda features: self.perturbed(features, draws.within("features"))}):
            logits = self.network(u)
        return objective + self.term(clean, logits, batch.inside, progress).scaled(0.5)

    def term(self, guess: Tensor, logits: Tensor, valid: Tensor, progress: float) -> Objective:
        error = losses.cross_entropy(losses.most_probable(guess), logits)
        return self.consistency(error, valid, progress, guess, confident(guess, self.config.confidence))

    def perturbed(self, features: list[Tensor], draws: Draws) -> list[Tensor]:
        """Every resolution with channels of its own left out."""
        drops = [ChannelDropout.draw(self.config.dropout, draws.of(str(level))) for level in range(len(features))]
        return [drop(feature) for drop, feature in zip(drops, features, strict=True)]
