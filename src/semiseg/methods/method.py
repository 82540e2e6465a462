"""What every method is, and the parts that methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from semiseg import losses
from semiseg.draws import Draws
from semiseg.networks.frozen import frozen_copy, measure_statistics, move_towards
from semiseg.schedules import annealing_threshold, ramp, sigmoid_ramp
from semiseg.settings import Settings, overlaid
from semiseg.types import IGNORE, Batch, Objective

Ramp = Literal["linear", "sigmoid"]


class MethodConfig(Settings):
    """Settings that every method has."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named sets of settings. What is given beside `preset` wins over it."""

    preset: str | None = None
    augment: bool = True
    """Give both streams the plan's weak augmentation."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the averaged network, a step; it is the predictor, and the teacher where there is one. 0: none."""
    dice: bool = True
    """Soft Dice beside cross-entropy on the labelled images."""
    annealing: Literal["none", "linear", "log", "exp"] = "none"
    """Leave labelled voxels whose probability of the right class exceeds a threshold out of the supervised loss, Dice
    included; the threshold rises over the run from 1 / classes to 1 (training-signal annealing, UDA section 2.2)."""

    regions: tuple[tuple[int, ...], ...] = ()
    """Class indices that each region of the labelled loss unites, as the plan says with `train_on = "regions"`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("preset") is not None:
            preset = str(values["preset"])  # YAML reads 2020 as a number
            if preset not in cls.presets:
                raise ValueError(f"preset {preset!r}: expected one of: {', '.join(cls.presets) or 'none'}")
            chosen = cls.presets[preset]
            return {**chosen, **{name: overlaid(chosen.get(name), value) for name, value in values.items()}}
        return values

    def learns_from_unlabelled(self, progress: float) -> bool:  # noqa: ARG002 - for methods that do, from some time on
        """Whether unlabelled images train the network, so that an average's batch norms are to fit them as well."""
        return False


class UnlabelledConfig(MethodConfig):
    """Settings that methods with an unlabelled term share."""

    unlabelled: bool = True
    """False: the supervised variant, which draws no unlabelled images."""
    weight: float = Field(default=1.0, ge=0)
    """Of the unlabelled term, a sum over classes and a mean over voxels."""
    ramp: Ramp = "linear"
    """How the weight rises: in a straight line, or as exp(-5 (1 - t)^2)."""
    ramp_start: float = Field(default=0.0, ge=0, le=1)
    """Progress at which the weight begins to rise from zero: before it, labels alone train the network."""
    ramp_end: float = Field(default=0.0, ge=0, le=1)
    """Progress at which the weight is reached."""

    @model_validator(mode="after")
    def _ramp_is_ordered(self) -> UnlabelledConfig:
        if self.ramp_end < self.ramp_start:
            raise ValueError(f"ramp_end {self.ramp_end}: expected at least ramp_start {self.ramp_start}")
        return self

    def learns_from_unlabelled(self, progress: float) -> bool:
        return self.unlabelled and progress >= self.ramp_start

    def weight_at(self, progress: float) -> float:
        shape = sigmoid_ramp if self.ramp == "sigmoid" else ramp
        return self.weight * shape(progress, self.ramp_start, self.ramp_end)


class Method(nn.Module, ABC):
    """Owns every network it trains or averages, as attributes, so state_dict() is the checkpoint: every parameter that
    requires a gradient is trained.

    Knows no files, optimisers or devices. A method of your own: subclass, name a `Config`, write `objective`. Several
    networks that predict together are one `Ensemble`.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    config: MethodConfig
    network: nn.Module
    """What is predicted with, unless there is an average."""

    def __init__(self, network: nn.Module, config: MethodConfig) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.average = frozen_copy(network) if config.ema else None

    @property
    def predictor(self) -> nn.Module:
        """What is evaluated, saved and exported: the average where there is one, else the network."""
        return self.average if self.average is not None else self.network

    @property
    def wants_unlabelled(self) -> bool:
        """False: the loop loads no unlabelled images."""
        return False

    @abstractmethod
    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        """One step's loss terms. Randomness comes from `draws` alone; `progress` goes from 0 to 1."""

    def forward(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        # distributed training synchronises gradients through forward only
        objective = self.objective(batch, draws, progress)
        if self.average is not None:
            both = self.config.learns_from_unlabelled(progress)
            # statistics of images that the network has not learned from do not fit it, least of all another site's
            measure_statistics(self.average, torch.cat([batch.image, batch.unlabelled]) if both else batch.image)
        return objective

    @torch.no_grad()
    def after_step(self, progress: float) -> None:  # noqa: ARG002 - for methods whose decay changes
        """Called after every optimiser step: averages move here."""
        if self.average is not None:
            move_towards(self.average, self.network, self.config.ema)

    def supervised(self, batch: Batch, progress: float, network: nn.Module | None = None) -> Objective:
        """The labelled term: what the network (or another one) makes of the labelled images, against their labels."""
        return self.against_labels((network or self.network)(batch.image), batch.label, progress)

    def against_labels(
        self, logits: Float[Tensor, "b classes *spatial"], label: Int[Tensor, "b *spatial"], progress: float
    ) -> Objective:
        """Cross-entropy and, with `dice`, soft Dice, of classes or `regions`, over what is still to be learned."""
        kept, watch = self.unlearned(label, logits, progress)
        return Objective({"supervised": losses.supervised(logits, kept, self.config.dice, self.config.regions)}, watch)

    def unlearned(
        self, label: Int[Tensor, "b *spatial"], logits: Float[Tensor, "b classes *spatial"], progress: float
    ) -> tuple[Int[Tensor, "b *spatial"], dict[str, float]]:
        """The label, IGNORE where `annealing` leaves it out, and the share that it keeps, to be watched."""
        if self.config.annealing == "none":
            return label, {}
        kept = without_learned(label, logits, annealing_threshold(progress, self.config.annealing, logits.shape[1]))
        return kept, {"labels kept": float((kept != IGNORE).sum() / (label != IGNORE).sum().clamp(min=1))}


class SemiSupervised(Method):
    """A method with a term on unlabelled images."""

    Config: ClassVar[type[MethodConfig]] = UnlabelledConfig
    config: UnlabelledConfig

    @property
    def wants_unlabelled(self) -> bool:
        return self.config.unlabelled

    def consistency(
        self,
        error: Float[Tensor, "b *spatial"],
        valid: Bool[Tensor, "b *spatial"],
        progress: float,
        guess: Float[Tensor, "b classes *spatial"],
        certain: Bool[Tensor, "b *spatial"] | None = None,
        mean: losses.Mean = losses.masked_mean,
    ) -> Objective:
        """The unlabelled term: the mean error over valid voxels, times the weight.

        guess: what the error is from; its share of foreground is watched, as a dead teacher has none. certain: other
        voxels count as zero, so few certain ones do not weigh more.
        """
        weight = self.config.weight_at(progress)
        watch = {"weight": weight, "guess foreground": float((guess.argmax(1) > 0).float().mean())}
        if certain is not None:
            watch["confident"] = float((certain & valid).sum() / valid.sum().clamp(min=1))
            error = torch.where(certain, error, 0)
        return Objective({"consistency": weight * mean(error, valid)}, watch)


def without_learned(
    label: Int[Tensor, "b *spatial"], logits: Float[Tensor, "b classes *spatial"], threshold: float
) -> Int[Tensor, "b *spatial"]:
    """The label, IGNORE where the probability of the right class exceeds the threshold."""
    return torch.where(probability_of_the_right_class(label, logits) > threshold, IGNORE, label)


def probability_of_the_right_class(
    label: Int[Tensor, "b *spatial"], logits: Float[Tensor, "b classes *spatial"]
) -> Float[Tensor, "b *spatial"]:
    """Held constant; that of the background where the label is IGNORE."""
    return (losses.one_hot(label, logits.shape[1]) * logits.detach().float().softmax(1)).sum(1)
