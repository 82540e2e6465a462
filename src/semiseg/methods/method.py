"""What every method is, and the parts that methods share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from semiseg.draws import Draws
from semiseg.networks.frozen import frozen_copy, measure_statistics, move_towards
from semiseg.schedules import ramp
from semiseg.settings import Settings, overlaid
from semiseg.transforms.intensity import Intensity, IntensityConfig
from semiseg.transforms.mixing import Box
from semiseg.transforms.warp import WarpConfig
from semiseg.types import Batch, Objective

PUBLISHED_WARP = WarpConfig(
    rotate_deg=20, scale=(0.9, 1.1), shear_deg=11.3, shift=0.1, elastic=5 / 224, smooth=24 / 224
)
"""EquiReg's strong view: 5 pixels r.m.s. displacement, smoothed with 24 pixels, on pictures of 224 x 224."""

STRONG_INTENSITY = IntensityConfig(probability=0.5, contrast=0.5, brightness=0.3, gamma=0.4, noise=0.2, blur=1.0)
"""About twice the plan's weak intensity changes."""


class MethodConfig(Settings):
    """Settings that every method has."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named sets of settings. What is given beside `preset` wins over it."""

    preset: str | None = None
    augment: bool = True
    """Give both streams the plan's weak augmentation."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the averaged network, a step; it is the predictor, and the teacher where there is one. 0: none."""

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


class ConsistencyConfig(MethodConfig):
    """Settings that methods with an unlabelled term share."""

    unlabelled: bool = True
    """False: the supervised variant, which draws no unlabelled images."""
    weight: float = Field(default=1.0, ge=0)
    """Of the unlabelled term, a sum over classes and a mean over voxels."""
    ramp_start: float = Field(default=0.0, ge=0, le=1)
    """Progress at which the weight begins to rise from zero: before it, labels alone train the network."""
    ramp_end: float = Field(default=0.0, ge=0, le=1)
    """Progress at which the weight is reached."""
    intensity: IntensityConfig = IntensityConfig()
    """Intensity changes of the strong view."""
    cutmix: float = Field(default=0.0, ge=0, le=1)
    """Probability that a sample of the strong view, and its target, gets a box of another sample."""
    cutmix_share: tuple[float, float] = (0.02, 0.4)
    """Smallest and largest part of the picture that the box covers (as in UniMatch)."""
    confidence: float = Field(default=0.0, ge=0, lt=1)
    """Voxels whose largest target probability is below this are not learned from."""
    temperature: float = Field(default=1.0, gt=0)
    """Sharpens the target: p^(1/T), normalised. 1 changes nothing."""

    @model_validator(mode="after")
    def _ramp_is_ordered(self) -> ConsistencyConfig:
        if self.ramp_end < self.ramp_start:
            raise ValueError(f"ramp_end {self.ramp_end}: expected at least ramp_start {self.ramp_start}")
        return self

    def learns_from_unlabelled(self, progress: float) -> bool:
        return self.unlabelled and progress >= self.ramp_start

    def weight_at(self, progress: float) -> float:
        return self.weight * ramp(progress, self.ramp_start, self.ramp_end)


class Method(nn.Module, ABC):
    """Owns every network it trains or averages, so state_dict() is the checkpoint.

    Knows no files, optimisers or devices. A method of your own: subclass, name a `Config`, write `objective`.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    config: MethodConfig
    network: nn.Module
    """What is trained."""

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


def strengthen(
    image: Float[Tensor, "b c *spatial"],
    target: Float[Tensor, "b classes *spatial"],
    valid: Bool[Tensor, "b *spatial"],
    config: ConsistencyConfig,
    draws: Draws,
) -> tuple[Tensor, Tensor, Tensor]:
    """The rest of a strong view: intensity changes of the image, then CutMix of image, target and validity alike."""
    if config.intensity.probability > 0:
        image = Intensity.draw(image.shape, config.intensity, draws.of("strong intensity"))(image)
    if config.cutmix > 0:
        box = Box.draw(image.shape, config.cutmix_share, config.cutmix, draws.of("strong box"))
        image, target, valid = box(image), box(target), box.mask(valid)
    return image, target, valid


def confident(target: Float[Tensor, "b classes *spatial"], threshold: float) -> Bool[Tensor, "b *spatial"]:
    """Voxels whose largest probability reaches the threshold."""
    return target.amax(1) >= threshold
