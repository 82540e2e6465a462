"""The stronger augmentation of students."""

from __future__ import annotations

from semiseg.transforms.augment import Augmentation

MOST_ROTATE_DEG, MOST_SHEAR_DEG, MOST_BLUR = 180.0, 60.0, 100.0


def stronger(augmentation: Augmentation, factor: float) -> Augmentation:
    """Every range times the factor, magnifications to its power; how often images change stays, and mirrors do.

    Rotations end at 180 degrees, shears at 60, smoothing at 100 voxels.
    """
    warp, intensity = augmentation.warp, augmentation.intensity
    smallest, largest = warp.scale
    geometry = {
        "rotate_deg": min(factor * warp.rotate_deg, MOST_ROTATE_DEG),
        "scale": (smallest**factor, largest**factor),
        "shear_deg": min(factor * warp.shear_deg, max(MOST_SHEAR_DEG, warp.shear_deg)),
        "shift": factor * warp.shift,
        "elastic": factor * warp.elastic,
    }
    changes = {name: factor * getattr(intensity, name) for name in ("contrast", "brightness", "gamma", "noise")}
    changes["blur"] = min(factor * intensity.blur, MOST_BLUR)
    return augmentation.model_copy(
        update={"warp": warp.model_copy(update=geometry), "intensity": intensity.model_copy(update=changes)}
    )
