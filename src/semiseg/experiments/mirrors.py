"""Mirrors do not go with classes that have sides: a mirrored left hippocampus looks like a right one."""

from __future__ import annotations

from collections.abc import Iterator

from semiseg.data.label_tables import FREESURFER
from semiseg.data.plan import Plan
from semiseg.methods.method import MethodConfig
from semiseg.sides import pairs
from semiseg.transforms.warp import WarpConfig


def mirrored_sides(plan: Plan, config: MethodConfig) -> Iterator[str]:
    """A warning for each setting that mirrors from left to right where classes have sides.

    Sides are told by the names of classes; where these are numbers, by FreeSurfer's table.
    """
    names = [_freesurfer_name(value) if name.isdecimal() else name for name, value in plan.classes.items()]
    sided = pairs(names)
    if not sided:
        return
    axes = plan.prepared_axes if plan.dims == 3 else plan.prepared_axes[1:]
    (right, left), *more = sided.items()
    others = f" and {len(more)} more pair{'s' * (len(more) > 1)}" if more else ""
    for key, warp in _warps(plan, config):
        for axis in warp.flip:
            if axis < len(axes) and axes[axis] == 0:
                yield (
                    f"warning: {key}.flip: {axis} mirrors from left to right, and the labels of {left} and {right}"
                    f"{others} are not swapped; leave {axis} out of it"
                )


def _warps(plan: Plan, config: MethodConfig) -> Iterator[tuple[str, WarpConfig]]:
    """Those that training draws, by the key of their setting."""
    if config.augment and plan.augmentation.warp.probability > 0:
        yield "plan.augmentation.warp", plan.augmentation.warp
    strong = getattr(config, "warp", None)
    drawn = getattr(config, "unlabelled", False) or getattr(config, "on_labelled", False)
    if isinstance(strong, WarpConfig) and strong.probability > 0 and drawn:
        yield "method.warp", strong


def _freesurfer_name(value: int) -> str:
    return next((name for name, values in FREESURFER.items() if value in values), str(value))
