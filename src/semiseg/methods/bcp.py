"""BCP, bidirectional copy-paste: a box of a labelled image in an unlabelled one, and the other way round.

Bai, Chen, Li, Shen, Wang: Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation, CVPR 2023,
arXiv 2305.00673.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from semiseg import losses
from semiseg.draws import Draws
from semiseg.methods.method import SemiSupervised, UnlabelledConfig
from semiseg.networks.frozen import forward_frozen
from semiseg.transforms.components import largest_pieces
from semiseg.transforms.mixing import Box
from semiseg.types import IGNORE, Batch, Objective


class BCPConfig(UnlabelledConfig):
    """Settings of BCP."""

    ema: float = Field(default=0.99, gt=0, lt=1)
    weight: float = Field(default=0.5, ge=0)
    """Of the guessed part of each picture; the labelled part weighs 1."""
    ramp_start: float = Field(default=0.25, ge=0, le=1)
    """Share of the run that pre-trains: labelled images get boxes of each other."""
    ramp_end: float = Field(default=0.25, ge=0, le=1)
    side: float = Field(default=2 / 3, gt=0, lt=1)
    """Of the box, as a share of the picture's."""


class BCP(SemiSupervised):
    """Cross-entropy and Dice against labels on the labelled part of a picture, against guesses on the other part."""

    Config = BCPConfig
    config: BCPConfig

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        count = len(batch.image)
        learns = len(batch.unlabelled) > 0 and self.config.learns_from_unlabelled(progress)
        image, label = batch.image, batch.label
        if learns:
            image = torch.cat([image, batch.unlabelled])
            label = torch.cat([label, torch.where(batch.inside, self.guess(batch.unlabelled), IGNORE)])
        box = self.box(image.shape, count, draws.of("box"))
        logits, label = self.network(box(image)), box.labels(label)
        if not learns:
            return self.against_labels(logits, label, progress)
        known = torch.arange(len(image), device=label.device).reshape(-1, *[1] * (label.ndim - 1)) < count
        known = box.mask(known.expand(label.shape))  # whether a voxel's label is a true one
        weight = self.config.weight_at(progress)
        watch = {"weight": weight, "guess foreground": float((label[~known] > 0).float().mean())}
        objective = Objective({})
        for rows in (slice(None, count), slice(count, None)):  # a guess inside the box, and around it
            true, guess = (torch.where(part[rows], label[rows], IGNORE) for part in (known, ~known))
            objective = objective + self.against_labels(logits[rows], true, progress)
            term = losses.supervised(logits[rows], guess, self.config.dice, self.config.regions)
            objective = objective + Objective({"consistency": weight * term}, watch)
        return objective

    def box(self, shape: torch.Size, labelled: int, generator: torch.Generator) -> Box:
        """Each row gets a box of a random row of the other kind; of its own kind while there is only one."""
        others = shape[0] - labelled
        if not others:
            partner = torch.randperm(labelled, generator=generator)
        else:
            order = torch.randperm(others, generator=generator)
            into = labelled + order[torch.arange(labelled) % others]
            partner = torch.cat([into, torch.argsort(order) % labelled])
        share = self.config.side ** (len(shape) - 2)
        return Box.draw(shape, (share, share), 1.0, generator, partner)

    def guess(self, u: Float[Tensor, "b c *spatial"]) -> Int[Tensor, "b *spatial"]:
        """The average's most probable classes, of each the largest piece alone."""
        index = forward_frozen(self.predictor, u).argmax(1)
        pieces = np.stack([largest_pieces(one, corners=True) for one in index.cpu().numpy()])
        return torch.from_numpy(pieces).to(u.device)
