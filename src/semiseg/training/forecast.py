"""When training will end: told once, from the first steps that were timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from statistics import median

from torch import Tensor

from semiseg.devices import peak_memory_gb
from semiseg.progress import duration, say

WARM_UP = 3
"""Steps that are not timed: the first ones load and compile."""
TIMED, TIMED_S = 10, 20.0
"""The line comes when so many steps are timed, or so many seconds of them."""
SHORT_S, LONG_S = 60.0, 3600.0
"""What ends before the first needs no line; what takes longer than the second is told of a faster way."""
YEAR_S = 365.25 * 24 * 3600


class Forecast:
    """Of one training. It only listens: nothing that is computed depends on it."""

    def __init__(self, checkpoint: Callable[[], Mapping[str, Tensor]], faster: str = "") -> None:
        """checkpoint: the tensors that one would hold now. faster: what to say about a faster way, if there is one."""
        self._checkpoint = checkpoint
        self._faster = faster
        self._steps_s: list[float] = []
        self._told = False

    def step(self, duration_s: float, left: int) -> None:
        """After each step, which took so long without validation and checkpoint; left: steps still to come."""
        if self._told:
            return
        self._steps_s.append(duration_s)
        timed = self._steps_s[WARM_UP:]
        if len(timed) < TIMED and sum(timed) < TIMED_S:
            return
        self._told = True
        step_s = median(timed)
        if left * step_s < SHORT_S:
            return
        memory_gb, size_mb = peak_memory_gb(), sum(tensor.nbytes for tensor in self._checkpoint().values()) / 1e6
        parts = [
            ending(step_s, left, datetime.now().astimezone()),
            *([] if memory_gb is None else [f"{memory_gb:.1f} GB of memory"]),
            f"checkpoints of {size_mb:.0f} MB" if size_mb >= 1 else "checkpoints of less than 1 MB",
        ]
        say(", ".join(parts) + (f"; {self._faster}" if self._faster and left * step_s > LONG_S else ""))


def ending(step_s: float, left: int, now: datetime) -> str:
    """When so many steps of this duration will be done, in words and in the user's local time; now: with its zone."""
    left_s = left * step_s
    each = f"{step_s:.2g}" if step_s < 10 else f"{step_s:.0f}"
    return f"{each} s a step: {left} steps until about {_when(left_s, now)} ({duration(left_s)} without validation)"


def _when(left_s: float, now: datetime) -> str:
    if left_s > YEAR_S:
        return str(now.year + round(left_s / YEAR_S))
    end = (now + timedelta(seconds=left_s)).astimezone()  # clocks may change until then
    days = (end.date() - now.astimezone().date()).days
    day = "" if days == 0 else " tomorrow" if days == 1 else f" on {end:%A} {end.day} {end:%B}"
    return f"{end:%H:%M}{day}"
