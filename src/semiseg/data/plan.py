"""The plan: how scans are brought to the network, in one readable, editable JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from semiseg.data.label_values import listed, one_by_one
from semiseg.errors import InputError, UserError
from semiseg.files import write_json
from semiseg.settings import Settings
from semiseg.transforms.intensity import IntensityConfig
from semiseg.transforms.warp import WarpConfig

_WHOLE = ("classes", "relabel", "regions")
_PREPROCESSING = (
    "slice_axis", "spacing_mm", "crop_nonzero", "crop_box", "bias_correction", "resize", "mask_zeros", "normalisation",
)  # fmt: skip
_Length = Annotated[float, Field(gt=0)]
_Side = Annotated[int, Field(ge=1)]


class Normalisation(Settings):
    """How one channel's intensities become network input, in 32-bit."""

    scheme: Literal["zscore", "window", "equalise"] = "zscore"
    """zscore: clip to the scan's own 0.5 and 99.5 percentiles, subtract its mean, divide by its deviation
    (over non-zero voxels with `crop_nonzero` or `mask_zeros`). window: clip to [low, high], then (x - mean) /
    deviation; the same numbers for all scans, for CT. equalise: the rank of each non-zero voxel among them, in
    (0, 1]; zeros stay 0."""
    low: float = 0.0
    high: float = 1.0
    mean: float = 0.0
    deviation: float = 1.0
    eight_bit: bool = False
    """With `window`: a scan whose values all lie in 0 to 255 (or 0 to 1) is taken as windowed already, 0 for `low`
    and 255 (or 1) for `high`."""

    def check(self, where: str) -> None:
        """Raise UserError, naming the key as `where.key`, if values do not go together."""
        window = self.scheme == "window"
        for key in ("low", "high", "mean", "deviation", "eight_bit"):
            value = getattr(self, key)
            unused = value == type(self).model_fields[key].default
            _require(window or unused, f"{where}.{key}", value, f"nothing, as {self.scheme} does not use it, or window")
        _require(not window or self.low < self.high, f"{where}.high", self.high, f"more than low, {self.low}")


class NetworkPlan(Settings):
    """Which network, and how wide and deep. What is not given is as published for that network (docs/networks.md);
    settings of other networks stay empty."""

    name: str = "unet"
    """unet, roam-unet, fcdensenet, or monai:CLASS for a class of `monai.networks.nets`."""
    widths: tuple[int, ...] = ()
    """U-Nets: features at each resolution, finest first."""
    strides: tuple[tuple[int, ...], ...] = ()
    """U-Nets: down-sampling between consecutive resolutions, per spatial axis of the network."""
    norm: Literal["instance", "batch"] | None = None
    blocks: tuple[int, ...] = ()
    """FC-DenseNet: layers of each dense block on the way down, finest first, the bottleneck last."""
    growth: int = Field(default=0, ge=0)
    """FC-DenseNet: features that a dense layer adds."""
    first: int = Field(default=0, ge=0)
    """FC-DenseNet: features of the first convolution."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """FC-DenseNet: share of each layer's output that is zeroed in training."""
    options: dict[str, Any] = Field(default_factory=dict)
    """MONAI: further arguments of the class."""

    @model_validator(mode="before")
    @classmethod
    def _fill_by_name(cls, values: Any) -> Any:
        return {**_PUBLISHED.get(str(values.get("name", "unet")), {}), **values}

    @classmethod
    def halving(cls, values: Mapping[str, Any], dims: int) -> Self:
        """From settings; without `strides`, every change of resolution halves every axis."""
        network = cls.parse(values, "network")
        if "strides" in values or not network.widths:
            return network
        return network.model_copy(update={"strides": ((2,) * dims,) * (len(network.widths) - 1)})

    @property
    def from_monai(self) -> bool:
        return self.name.startswith("monai:")

    def stride(self, dims: int) -> tuple[int, ...]:
        """What the sides of a patch have to be divisible by; ones for MONAI's networks, which are tried when built."""
        if self.blocks:
            return (2 ** (len(self.blocks) - 1),) * dims
        return tuple(math.prod(steps) for steps in zip(*self.strides, strict=True)) or (1,) * dims

    def check(self, dims: int, where: str) -> None:
        """Raise UserError, naming the key as `where.key`, if the settings do not go together."""
        kind = "monai" if self.from_monai else self.name
        _require(kind in _SETTINGS, f"{where}.name", self.name, f"{', '.join(_SETTINGS)}:CLASS")
        for key, field in type(self).model_fields.items():
            value = getattr(self, key)
            unused = key not in ("name", *_SETTINGS[kind])
            _require(
                not unused or value == field.get_default(call_default_factory=True),
                f"{where}.{key}",
                value,
                f"nothing, as {self.name} does not have this setting",
            )
        if kind == "fcdensenet":
            for key in ("blocks", "growth", "first"):
                value = getattr(self, key)
                good = len(value) > 1 and min(value) > 0 if key == "blocks" else value > 0
                _require(
                    good, f"{where}.{key}", value, "at least two positive numbers" if key == "blocks" else "over 0"
                )
        if kind in ("unet", "roam-unet"):
            self._check_unet(dims, where)

    def _check_unet(self, dims: int, where: str) -> None:
        _require(
            all(len(step) == dims and min(step) > 0 for step in self.strides),
            f"{where}.strides",
            self.strides,
            f"{dims} positive steps for each change of resolution",
        )
        _require(
            len(self.widths) == len(self.strides) + 1 and min(self.widths) > 0,
            f"{where}.widths",
            self.widths,
            f"{len(self.strides) + 1}, one more than {where}.strides has",
        )


_SETTINGS: dict[str, tuple[str, ...]] = {
    "unet": ("widths", "strides", "norm"),
    "roam-unet": ("widths", "strides", "norm"),
    "fcdensenet": ("blocks", "growth", "first", "norm", "dropout"),
    "monai": ("options",),
}
"""The settings that each network has."""

_PUBLISHED: dict[str, dict[str, Any]] = {
    "unet": {"widths": (32, 64, 128, 256), "strides": ((2, 2),) * 3, "norm": "instance"},
    "roam-unet": {"widths": (64, 128, 256, 512, 1024), "strides": ((2, 2),) * 4, "norm": "batch"},
    "fcdensenet": {"blocks": (4, 5, 7, 10, 12, 15), "growth": 16, "first": 48, "norm": "batch"},
}
"""arXiv 2003.09439, section 4 (ROAM); arXiv 1611.09326, tables 1 and 2 (FC-DenseNet103)."""


class Augmentation(Settings):
    """The weak augmentation that the training loop gives to labelled and unlabelled images alike."""

    warp: WarpConfig = WarpConfig(
        probability=0.8, rotate_deg=20, scale=(0.8, 1.25), shear_deg=5, shift=0.08, elastic=0.02, smooth=0.12
    )
    intensity: IntensityConfig = IntensityConfig(
        probability=0.3, contrast=0.3, brightness=0.2, gamma=0.3, noise=0.15, blur=0.8
    )


class Plan(Settings):
    """Everything that has to be the same in training and prediction.

    Axes are those of the scan brought to closest RAS orientation: 0 = left to right, 1 = posterior to
    anterior, 2 = inferior to superior. In 2-D, slices are taken across `slice_axis`; prepared arrays store
    that axis first and the other two after it in RAS order. The network's spatial axes are the remaining ones
    (all three in 3-D).
    """

    version: Literal[1] = 1
    dims: Literal[2, 3]
    reason: str = ""
    """Why 2-D or 3-D, in words."""
    channels: tuple[str, ...]
    classes: dict[str, int]
    """Name to value in the label files. The order is the network's; the first is the background."""
    ignore: int | None = None
    """Value in the label files that means 'not annotated'."""
    relabel: Annotated[dict[int, int], BeforeValidator(one_by_one)] = Field(default_factory=dict)
    """Further values in the label files, and the value of `classes` that each stands for. In plan.json, the other way
    round and with ranges: `{"3": "1000-1035, 11100"}`."""
    other_is_background: bool = False
    """Values in the label files that are none of all these stand for the background."""
    regions: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Name to the values of `classes` that it unites, such as whole tumour: (1, 2, 4)."""
    train_on: Literal["classes", "regions"] = "classes"
    """What the supervised loss compares: every class, or every region, whose probability is its classes' sum."""
    channel_suffix: bool = False
    """Image files of the dataset end in _0000, _0001, ...: in prediction too, that is no part of a case's name."""
    slice_axis: Literal[0, 1, 2] | None = None
    spacing_mm: tuple[_Length | None, _Length | None, _Length | None]
    """Target spacing per RAS axis; None keeps the scan's own (across slices). Where `resize` decides, it only says
    what shape voxels have on average, for augmentation."""
    crop_nonzero: bool = False
    """Crop each scan to the box of voxels that are not zero in any channel before anything else."""
    crop_box: tuple[tuple[int, int] | None, tuple[int, int] | None, tuple[int, int] | None] = (None, None, None)
    """Per RAS axis, the voxels of the scan to keep (first, one past the last), instead of what `crop_nonzero` finds.
    Clipped to the scan; None leaves the axis to `crop_nonzero`."""
    bias_correction: bool = False
    """N4 of each channel: inside its non-zero voxels where a good part is exactly zero, else inside the head."""
    resize: tuple[_Side | None, _Side | None, _Side | None] = (None, None, None)
    """Per RAS axis, the voxels that every scan is resampled to, whatever its spacing; None goes by `spacing_mm`."""
    mask_zeros: bool = False
    """Voxels that are 0 in every channel of the files are no part of the picture: prepared images are 0 there and
    nowhere else, and terms on unlabelled scans leave them out."""
    normalisation: tuple[Normalisation, ...]
    """One per channel."""
    patch: tuple[int, ...]
    """Voxels per spatial axis of the network."""
    batch: int = Field(ge=1)
    """Labelled patches a step."""
    unlabelled_batch: int = Field(ge=0)
    """Unlabelled patches a step, for methods that use them."""
    foreground_share: float = Field(default=1 / 3, ge=0, le=1)
    """Share of labelled patches centred on a voxel of a random foreground class."""
    overlap: float = Field(default=0.5, ge=0, lt=1)
    """Of neighbouring windows in prediction."""
    network: NetworkPlan = NetworkPlan()
    augmentation: Augmentation = Augmentation()
    memory_gb: float = Field(default=8.0, gt=0)
    """The budget that patch and batch were chosen for."""
    fingerprint: dict[str, Any] = Field(default_factory=dict)
    """What was measured on the scans that are not test scans; for reading, never used again."""

    @property
    def prepared_axes(self) -> tuple[int, int, int]:
        """RAS axes in the order in which prepared arrays store them."""
        if self.slice_axis is None:
            return (0, 1, 2)
        rest = [axis for axis in range(3) if axis != self.slice_axis]
        return (self.slice_axis, rest[0], rest[1])

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Everything that decides what a prepared image holds, as plain values."""
        return self.model_dump(mode="json", include=set(_PREPROCESSING))

    @property
    def region_members(self) -> tuple[tuple[int, ...], ...]:
        """The class indices that each region of the supervised loss unites; empty where that compares classes."""
        index = {value: index for index, value in enumerate(self.classes.values())}
        regions = self.regions.values() if self.train_on == "regions" else ()
        return tuple(tuple(index[value] for value in values) for values in regions)

    @property
    def patch_spacing_mm(self) -> tuple[float, ...]:
        """Target spacing of the network's spatial axes, 1 for those that have none."""
        axes = self.prepared_axes if self.dims == 3 else self.prepared_axes[1:]
        return tuple(float(self.spacing_mm[axis] or 1.0) for axis in axes)

    def check(self, where: str) -> None:
        """Raise UserError, naming the key as `where.key`, if values do not go together."""
        values, channels = set(self.classes.values()), len(self.channels)
        _require(len(values) >= max(2, len(self.classes)), f"{where}.classes", self.classes, "distinct values")
        self._check_regions(where)
        _require(channels > 0, f"{where}.channels", self.channels, "at least one name")
        _require(
            len(self.normalisation) == channels,
            f"{where}.normalisation",
            self.normalisation,
            f"{channels}, one for each channel",
        )
        for channel, rule in zip(self.channels, self.normalisation, strict=True):
            rule.check(f"{where}.normalisation of {channel}")
        for axis, side in enumerate(self.crop_box):
            _require(
                side is None or 0 <= side[0] < side[1],
                f"{where}.crop_box.{axis}",
                side,
                "a first voxel of at least 0, and one past the last that is larger",
            )
        _require(
            (self.slice_axis is None) == (self.dims == 3),
            f"{where}.slice_axis",
            self.slice_axis,
            "0, 1 or 2 in 2-D, none in 3-D",
        )
        self.network.check(self.dims, f"{where}.network")
        stride = self.network.stride(self.dims)
        _require(
            len(self.patch) == self.dims
            and all(side > 0 and side % step == 0 for side, step in zip(self.patch, stride, strict=True)),
            f"{where}.patch",
            self.patch,
            f"{self.dims} sizes divisible by {stride}, the network's whole down-sampling",
        )

    def _check_regions(self, where: str) -> None:
        background, *foreground = self.classes.values()
        known = {background, *foreground, *([] if self.ignore is None else [self.ignore])}
        strays = {file: value for file, value in self.relabel.items() if value not in known}
        _require(not strays, f"{where}.relabel", strays, f"values of {where}.classes to stand for")
        for name, values in self.regions.items():
            good = bool(values) and set(values) <= set(foreground)
            _require(good, f"{where}.regions.{name}", values, f"foreground values of {where}.classes")
        if self.train_on == "regions":
            _require(bool(self.regions), f"{where}.train_on", self.train_on, f"classes, as {where}.regions is empty")
            seen: dict[tuple[str, ...], str] = {}
            for name, value in self.classes.items():
                united = tuple(region for region, values in self.regions.items() if value in values)
                other = seen.setdefault(united, name)
                expected = f"classes, or regions that tell {name!r} from {other!r} (both in {list(united) or 'none'})"
                _require(other == name, f"{where}.train_on", self.train_on, expected)

    def save(self, path: Path) -> None:
        write_json(path, self.model_dump(mode="json") | {"relabel": listed(self.relabel)})

    @classmethod
    def load(cls, path: Path) -> Plan:
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: {error}, expected a plan.json; make one with `semiseg plan`") from None
        return cls.checked(values, where=str(path))

    @classmethod
    def checked(cls, values: Mapping[str, Any], where: str) -> Self:
        """`parse`, and raise UserError too for values that do not go together."""
        plan = cls.parse(values, where)
        plan.check(where)
        return plan


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` on top of a plan's `values`, group by group; `classes`, `relabel` and `regions` are replaced whole."""
    result = dict(values)
    for key, value in changes.items():
        deeper = isinstance(value, Mapping) and isinstance(result.get(key), Mapping) and key not in _WHOLE
        result[key] = merged(result[key], value) if deeper else value
    return result


def for_every_channel(changes: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """`normalisation` may be given once: then every channel gets it."""
    once = isinstance(changes.get("normalisation"), Mapping)
    return {**changes, "normalisation": [changes["normalisation"]] * channels} if once else dict(changes)


def _require(good: bool, key: str, value: Any, expected: str) -> None:
    if not good:
        raise UserError(f"{key}: got {value!r}, expected {expected}; correct the plan")
