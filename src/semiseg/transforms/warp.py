"""One geometric transformation, called on anything living on a batch."""

from semiseg.settings import Settings


class WarpConfig(Settings):
    probability: float = 0.0
