"""Changes of brightness, contrast, sharpness and noise: the view of another scanner."""

from __future__ import annotations

from semiseg.settings import Settings


class IntensityConfig(Settings):
    probability: float = 0.0
