"""How a scan and its labels are shown: which channel, in which window, outlined or filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from semiseg.data.plan import Normalisation, Plan
from semiseg.errors import UserError

WINDOWS = {
    "abdomen": (40, 400),
    "bone": (400, 1800),
    "brain": (40, 80),
    "liver": (60, 160),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "soft tissue": (40, 400),
    "stroke": (40, 40),
    "subdural": (75, 215),
}
"""Level and width in Hounsfield units, as CT is usually read: https://radiopaedia.org/articles/windowing-ct"""


@dataclass(frozen=True)
class Look:
    """What pictures show."""

    fill: bool = False
    """Tint the inside of the outlines."""
    channel: str = ""
    """A name among the plan's; default: the first one."""
    window: str = ""
    """A name among WINDOWS; default: what the network sees."""

    def channel_of(self, plan: Plan) -> int:
        """The channel's number. Raises UserError for a channel that the plan has not, or a window for what is no CT."""
        if self.channel and self.channel not in plan.channels:
            raise UserError(
                f"--overlay-channel: got {self.channel!r}, expected one of: {', '.join(plan.channels)}, as in the plan"
            )
        number = plan.channels.index(self.channel) if self.channel else 0
        if self.window and self.window not in WINDOWS:
            raise UserError(f"--overlay-window: got {self.window!r}, expected one of: {', '.join(WINDOWS)}")
        if self.window and plan.normalisation[number].scheme != "window":
            raise UserError(
                f"--overlay-window: got {self.window!r} for channel {plan.channels[number]}, expected a channel of CT, "
                "whose values are Hounsfield units; leave the window out"
            )
        return number

    def grey(self, channel: Float[np.ndarray, "x y z"], rule: Normalisation) -> UInt8[np.ndarray, "x y z"]:
        """Grey levels: the window; without a name, the one that the network sees of CT; else all but the darkest and
        brightest half per cent. A CT picture of 8 bits was windowed by who made it."""
        low, high = map(float, np.percentile(channel, (0.5, 99.5)))
        if rule.scheme == "window" and not (rule.eight_bit and channel.min() >= 0 and channel.max() <= 255):
            low, high = rule.low, rule.high
            if self.window:
                level, width = WINDOWS[self.window]
                low, high = level - width / 2, level + width / 2
        shown = (np.clip(channel, low, high) - low) * (255 / max(high - low, 1e-6))
        return np.asarray(np.rint(shown), np.uint8)
