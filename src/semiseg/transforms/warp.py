"""One geometric transformation, called on anything living on a batch: images, logits, labels, masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from semiseg.errors import UserError
from semiseg.settings import Settings
from semiseg.transforms.rim import rim
from semiseg.types import IGNORE

_EDGE = 1e-5  # a voxel centre on the border, a rounding error of 32 bits outside, still counts as inside


class WarpConfig(Settings):
    """How far a random warp may go. Every range at its default leaves the picture as it is.

    Shares are of the picture's shortest side in millimetres, so that one setting suits a hippocampus and a thorax.
    """

    probability: float = Field(default=1.0, ge=0, le=1)
    """Of a sample being rotated, scaled, sheared and shifted at all; drawn again for the elastic part."""
    rotate_deg: float = Field(default=0.0, ge=0, le=180)
    """Largest angle, drawn evenly; in 3-D about each of the three axes."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest magnification, drawn evenly in the logarithm."""
    shear_deg: float = Field(default=0.0, ge=0, lt=90)
    shift: float = Field(default=0.0, ge=0)
    """Largest translation per axis, as a share of that axis' length; by whole voxels."""
    elastic: float = Field(default=0.0, ge=0)
    """Root mean square displacement per axis, as a share of the shortest side."""
    smooth: float = Field(default=0.1, gt=0)
    """Standard deviation of the elastic field's smoothing, as a share of the shortest side."""
    flip: tuple[int, ...] = ()
    """Spatial axes that are mirrored in half of the samples. Left-right pairs of classes are NOT swapped."""
    at_least: int = Field(default=0, ge=0)
    """0: a sample gets every part. Else a number of parts drawn evenly from this to all of those that are switched on
    (mirroring each axis of `flip`, rotation, scale, shear, shift along each axis, elastic), chosen evenly; half of the
    samples for which a mirror was chosen are mirrored. As in EquiReg (SomeOf of imgaug), but for the fixed order in
    which the parts are composed."""

    @model_validator(mode="after")
    def _scale_is_ordered(self) -> WarpConfig:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale}: expected two magnifications over 0, the smaller first")
        return self


@dataclass(frozen=True, eq=False)
class Warp:
    """Where every output voxel's value comes from: `grid[..., k]` along spatial axis k, -1 and 1 at the centres of
    the first and last voxel."""

    grid: Float[Tensor, "b *spatial ndim"]

    @classmethod
    def draw(
        cls,
        shape: Sequence[int],
        config: WarpConfig,
        spacing_mm: Sequence[float],
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> Warp:
        """A warp for a batch of `shape` (b, c, *spatial), one independent draw a sample.

        Parameters are drawn on the CPU, so they are the same on every device; the grid is built on `device`.
        Raises UserError for a mirror along an axis that the picture does not have, or too few parts to choose from.
        """
        ndim = len(shape) - 2
        for axis in config.flip:
            if not 0 <= axis < ndim:
                raise UserError(
                    f"warp.flip: got {axis}, expected axes below {ndim}, the number of the picture's; leave it out"
                )
        # matrix products in 16 bits could not tell neighbouring voxels apart
        with torch.autocast("cpu", enabled=False), torch.autocast(torch.device(device).type, enabled=False):
            return cls(_draw_grid(shape, config, spacing_mm, generator, device))

    def __call__(self, x: Float[Tensor, "b c *spatial"]) -> Float[Tensor, "b c *spatial"]:
        """Linear interpolation in 32-bit; zero outside."""
        return self._sample(x, "bilinear")

    def image(self, x: Float[Tensor, "b c *spatial"]) -> Float[Tensor, "b c *spatial"]:
        """A picture, which goes on outside as its outermost voxels do."""
        x = x.float()
        return torch.where(self.inside[:, None], self(x), rim(x))

    def labels(self, y: Int[Tensor, "b *spatial"]) -> Int[Tensor, "b *spatial"]:
        """The nearest voxel's label; IGNORE outside."""
        moved = self._sample(y[:, None], "nearest")[:, 0].round().to(y.dtype)
        return torch.where(self.inside, moved, IGNORE)

    def mask(self, m: Bool[Tensor, "b *spatial"]) -> Bool[Tensor, "b *spatial"]:
        """The nearest voxel's value; false outside."""
        return (self._sample(m[:, None], "nearest")[:, 0] > 0.5) & self.inside

    @cached_property
    def inside(self) -> Bool[Tensor, "b *spatial"]:
        """Voxels whose value comes from inside the picture."""
        return (self.grid.abs() <= 1 + _EDGE).all(dim=-1)

    def _sample(self, x: Tensor, mode: str) -> Tensor:
        # grid_sample wants the last axis first: this is the only place where the order is reversed
        with torch.autocast(x.device.type, enabled=False):
            return F.grid_sample(x.float(), self.grid.flip(-1), mode=mode, padding_mode="zeros", align_corners=True)


def _draw_grid(
    shape: Sequence[int],
    config: WarpConfig,
    spacing_mm: Sequence[float],
    generator: torch.Generator,
    device: torch.device | str,
) -> Float[Tensor, "b *spatial ndim"]:
    batch, size = shape[0], tuple(shape[2:])
    ndim = len(size)
    half_mm = torch.tensor([max(n - 1, 1) / 2 * s for n, s in zip(size, spacing_mm, strict=True)])
    chosen = _choose_parts(batch, ndim, config, generator) if config.at_least else {}
    matrix, shift = _draw_affine(batch, half_mm, config, chosen, generator)
    # by whole voxels: a picture that is only moved and mirrored keeps its values, and is as sharp as those to predict
    voxel = torch.tensor([2 / max(n - 1, 1) for n in size])
    shift = (shift / voxel).round() * voxel
    # from millimetres around the centre to the grid's -1 to 1, on both sides
    matrix = matrix * half_mm / half_mm[:, None]
    axes = [torch.linspace(-1, 1, n, device=device) if n > 1 else torch.zeros(1, device=device) for n in size]
    centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, ndim)
    grid = centres @ matrix.to(device).mT + shift.to(device)[:, None]
    grid = grid.reshape(batch, *size, ndim)
    if config.elastic > 0:
        grid = grid + _draw_elastic(batch, half_mm, size, config, chosen, generator, device)
    return grid


def _parts(config: WarpConfig, ndim: int) -> list[str]:
    """The parts of a warp that the configuration switches on."""
    whole = {
        "rotate": config.rotate_deg > 0,
        "scale": config.scale != (1.0, 1.0),
        "shear": config.shear_deg > 0,
        "elastic": config.elastic > 0,
    }
    shifts = [f"shift {axis}" for axis in range(ndim) if config.shift > 0]
    return [name for name, on in whole.items() if on] + shifts + [f"mirror {axis}" for axis in config.flip]


def _choose_parts(
    batch: int, ndim: int, config: WarpConfig, generator: torch.Generator
) -> dict[str, Float[Tensor, " b"]]:
    """1 or 0 a sample: whether it gets this part. Raises UserError if too few parts are switched on."""
    parts = _parts(config, ndim)
    if config.at_least > len(parts):
        raise UserError(
            f"warp.at_least: got {config.at_least}, expected at most {len(parts)}, the parts that are switched on "
            f"({', '.join(parts) or 'none'}); lower it or switch on more"
        )
    count = torch.randint(config.at_least, len(parts) + 1, (batch, 1), generator=generator)
    place = torch.rand(batch, len(parts), generator=generator).argsort(1).argsort(1)  # of each part in a random order
    warped = torch.rand(batch, 1, generator=generator) < config.probability
    return dict(zip(parts, ((place < count) & warped).float().unbind(1), strict=True))


def _draw_affine(
    batch: int, half_mm: Tensor, config: WarpConfig, chosen: dict[str, Tensor], generator: torch.Generator
) -> tuple[Float[Tensor, "b n n"], Float[Tensor, "b n"]]:
    """Output position to source position, in millimetres around the centre; the shift in units of the half side.

    chosen: which sample gets which part; empty where parts are not chosen.
    """
    ndim = len(half_mm)

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator) * 2 - 1

    every = (torch.rand(batch, generator=generator) < config.probability).float()

    def applied(part: str) -> Tensor:
        return chosen.get(part, every)  # a part that is not switched on has no size, chosen or not

    angles = uniform(batch, 1 if ndim == 2 else 3) * math.radians(config.rotate_deg) * applied("rotate")[:, None]
    low, high = math.log(config.scale[0]), math.log(config.scale[1])
    logarithm = low + (high - low) * torch.rand(batch, generator=generator)
    shears = torch.tan(uniform(batch, ndim) * math.radians(config.shear_deg)) * applied("shear")[:, None]
    shift = uniform(batch, ndim) * 2 * config.shift
    shift = shift * torch.stack([applied(f"shift {axis}") for axis in range(ndim)], dim=1)
    signs = torch.ones(batch, ndim)
    for axis in config.flip:
        half = (torch.rand(batch, generator=generator) < 0.5).float()
        signs[:, axis] = half * chosen.get(f"mirror {axis}", 1) * -2 + 1

    matrix = torch.diag_embed(signs)
    planes = [(0, 1)] if ndim == 2 else [(1, 2), (0, 2), (0, 1)]
    for angle, (i, j) in zip(angles.unbind(1), planes, strict=True):
        turn = torch.eye(ndim).repeat(batch, 1, 1)
        turn[:, i, i] = turn[:, j, j] = angle.cos()
        turn[:, i, j], turn[:, j, i] = -angle.sin(), angle.sin()
        matrix = turn @ matrix
    slant = torch.eye(ndim).repeat(batch, 1, 1)
    for axis in range(ndim):
        slant[:, axis, (axis + 1) % ndim] = shears[:, axis]
    matrix = slant @ matrix / (logarithm * applied("scale")).exp()[:, None, None]
    return matrix, shift


def _draw_elastic(
    batch: int,
    half_mm: Tensor,
    size: tuple[int, ...],
    config: WarpConfig,
    chosen: dict[str, Tensor],
    generator: torch.Generator,
    device: torch.device | str,
) -> Float[Tensor, "b *spatial n"]:
    """A smooth displacement in grid units: white noise on a lattice, interpolated by cubic B-splines."""
    ndim = len(size)
    shortest_mm = 2 * float(half_mm.min())
    # a cubic B-spline on a lattice of pitch h smooths like a Gaussian of deviation h / sqrt(3)
    pitch_mm = config.smooth * shortest_mm * math.sqrt(3)
    bases = [_spline_basis(n, 2 * float(half) / pitch_mm) for n, half in zip(size, half_mm, strict=True)]
    noise = torch.randn((batch, ndim, *(basis.shape[1] for basis in bases)), generator=generator)
    every = (torch.rand(batch, generator=generator) < config.probability).float()
    applied = chosen.get("elastic", every)
    deviation = math.prod(float((basis**2).sum(1).mean()) for basis in bases) ** 0.5
    field = noise.to(device)
    for basis in bases:  # contracts the first lattice axis and appends the voxel axis: in order after all of them
        field = torch.tensordot(field, basis.to(device), dims=([2], [1]))
    amplitude = applied[:, None] * config.elastic * shortest_mm / deviation / half_mm
    return field.movedim(1, -1) * amplitude.to(device).reshape(batch, *[1] * ndim, ndim)


def _spline_basis(count: int, pitches: float) -> Float[Tensor, "count knots"]:
    """Cubic B-spline weights of `count` evenly spaced points over `pitches` lattice steps; every row sums to one."""
    knots = torch.arange(-1, math.floor(pitches) + 3)
    distance = (torch.linspace(0, pitches, count)[:, None] - knots).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far)
