"""The plan: how scans are brought to the network, in one readable, editable JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from unicodedata import category

from pydantic import BeforeValidator, Field

from semiseg.data.label_values import LabelValue, listed, one_by_one
from semiseg.files import read_json, write_json
from semiseg.networks.network_plan import NetworkPlan, require
from semiseg.settings import Settings
from semiseg.transforms.augment import Augmentation

MOST_PATCHES, MOST_GB = 2**20, 1e5
_MOST_VOXELS = 2**30
"""Along an axis. More of any of these, and a number was misread."""
_WHOLE = ("classes", "relabel", "regions")
_PREPROCESSING = (
    "slice_axis", "spacing_mm", "crop_nonzero", "crop_box", "bias_correction", "resize", "mask_zeros", "normalisation",
)  # fmt: skip
_Length = Annotated[float, Field(ge=1e-6, le=1e6)]
_Side = Annotated[int, Field(ge=1, le=_MOST_VOXELS)]
_Grey = Annotated[float, Field(ge=-1e30, le=1e30)]
_End = Annotated[int, Field(le=_MOST_VOXELS)]


class Normalisation(Settings):
    """How one channel's intensities become network input, in 32-bit."""

    scheme: Literal["zscore", "window", "equalise"] = "zscore"
    """zscore: clip to the scan's own 0.5 and 99.5 percentiles, subtract its mean, divide by its deviation
    (over non-zero voxels with `crop_nonzero` or `mask_zeros`). window: clip to [low, high], then (x - mean) /
    deviation; the same numbers for all scans, for CT. equalise: the rank of each non-zero voxel among them, in
    (0, 1]; zeros stay 0."""
    low: _Grey = 0.0
    high: _Grey = 1.0
    mean: _Grey = 0.0
    deviation: float = Field(default=1.0, ge=1e-30, le=1e30)
    eight_bit: bool = False
    """With `window`: a scan whose values all lie in 0 to 255 (or 0 to 1) is taken as windowed already, 0 for `low`
    and 255 (or 1) for `high`."""

    def check(self, where: str) -> None:
        """Raise UserError, naming the key as `where.key`, if values do not go together."""
        window = self.scheme == "window"
        for key in ("low", "high", "mean", "deviation", "eight_bit"):
            value = getattr(self, key)
            unused = value == type(self).model_fields[key].default
            require(window or unused, f"{where}.{key}", value, f"nothing, as {self.scheme} does not use it, or window")
        require(not window or self.low < self.high, f"{where}.high", self.high, f"more than low, {self.low}")


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
    classes: dict[str, LabelValue]
    """Name to value in the label files. The order is the network's; the first is the background."""
    ignore: LabelValue | None = None
    """Value in the label files that means 'not annotated'."""
    relabel: Annotated[dict[LabelValue, LabelValue], BeforeValidator(one_by_one)] = Field(default_factory=dict)
    """Further values in the label files, and the value of `classes` that each stands for. In plan.json, the other way
    round and with ranges: `{"3": "1000-1035, 11100"}`."""
    other_is_background: bool = False
    """Values in the label files that are none of all these stand for the background."""
    regions: dict[str, tuple[LabelValue, ...]] = Field(default_factory=dict)
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
    crop_box: tuple[tuple[_End, _End] | None, tuple[_End, _End] | None, tuple[_End, _End] | None] = (None, None, None)
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
    patch: tuple[_End, ...]
    """Voxels per spatial axis of the network."""
    batch: int = Field(ge=1, le=MOST_PATCHES)
    """Labelled patches a step."""
    unlabelled_batch: int = Field(ge=0, le=MOST_PATCHES)
    """Unlabelled patches a step, for methods that use them."""
    foreground_share: float = Field(default=1 / 3, ge=0, le=1)
    """Share of labelled patches centred on a voxel of a random foreground class."""
    overlap: float = Field(default=0.5, ge=0, le=0.9)
    """Of neighbouring windows in prediction."""
    network: NetworkPlan = NetworkPlan()
    augmentation: Augmentation = Augmentation()
    memory_gb: float = Field(default=8.0, gt=0, le=MOST_GB)
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
        require(len(values) >= max(2, len(self.classes)), f"{where}.classes", self.classes, "distinct values")
        for kind in ("classes", "channels", "regions"):
            odd = [name for name in getattr(self, kind) if any(category(sign) in ("Cc", "Cs") for sign in name)]
            require(not odd, f"{where}.{kind}", odd, "names without control characters, as tables have a line each")
        self._check_regions(where)
        require(channels > 0, f"{where}.channels", self.channels, "at least one name")
        require(
            len(self.normalisation) == channels,
            f"{where}.normalisation",
            self.normalisation,
            f"{channels}, one for each channel",
        )
        for channel, rule in zip(self.channels, self.normalisation, strict=True):
            rule.check(f"{where}.normalisation of {channel}")
        for axis, side in enumerate(self.crop_box):
            require(
                side is None or 0 <= side[0] < side[1],
                f"{where}.crop_box.{axis}",
                side,
                "a first voxel of at least 0, and one past the last that is larger",
            )
        require(
            (self.slice_axis is None) == (self.dims == 3),
            f"{where}.slice_axis",
            self.slice_axis,
            "0, 1 or 2 in 2-D, none in 3-D",
        )
        self.network.check(self.dims, f"{where}.network")
        stride = self.network.stride(self.dims)
        require(
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
        require(not strays, f"{where}.relabel", strays, f"values of {where}.classes to stand for")
        for name, values in self.regions.items():
            good = bool(values) and set(values) <= set(foreground)
            require(good, f"{where}.regions.{name}", values, f"foreground values of {where}.classes")
        if self.train_on == "regions":
            require(bool(self.regions), f"{where}.train_on", self.train_on, f"classes, as {where}.regions is empty")
            seen: dict[tuple[str, ...], str] = {}
            for name, value in self.classes.items():
                united = tuple(region for region, values in self.regions.items() if value in values)
                other = seen.setdefault(united, name)
                expected = f"classes, or regions that tell {name!r} from {other!r} (both in {list(united) or 'none'})"
                require(other == name, f"{where}.train_on", self.train_on, expected)

    def save(self, path: Path) -> None:
        write_json(path, self.model_dump(mode="json") | {"relabel": listed(self.relabel)})

    @classmethod
    def load(cls, path: Path) -> Plan:
        return cls.checked(read_json(path, "a plan.json", "make one with `semiseg plan`"), where=str(path))

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
