"""How old a frame is, and whose clock says so."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time

FRAME_CLOCKS = ("auto", "stamp", "arrival")
"""What a frame's age counts from. `auto`: its stamp where clocks agree, else its arrival."""

LARGEST_DELAY = 60.0
"""Seconds. A stamp that is older when its image arrives is another clock's: a replayed bag, or a computer that does not
know the time."""

LARGEST_LEAD = 1.0
"""Seconds that a sender's clock may be ahead and still count as the same."""


@dataclass(frozen=True)
class Instant:
    """One moment on the two clocks that matter."""

    steady: float
    """Seconds on the monotonic clock."""
    simulated: float | None
    """Seconds on /clock; None where the node does not follow it, or it has not begun."""

    def seconds_until(self, later: Instant) -> float:
        """On the simulated clock where both have it. Infinite where that was set back, as at the start of a bag that is
        played again: what came before belongs to another run."""
        if self.simulated is None or later.simulated is None:
            return later.steady - self.steady
        seconds = later.simulated - self.simulated
        return seconds if seconds >= 0 else math.inf


class FrameClock:
    """Tells the time to frames."""

    def __init__(self, clock: Any, counts_from: str = "auto") -> None:
        """`clock` is a node's; `counts_from` is one of FRAME_CLOCKS."""
        self.counts_from = counts_from
        """May be changed at any time."""
        self._clock = clock

    def now(self) -> Instant:
        """This moment."""
        simulated = self._clock.now().nanoseconds / 1e9 if self._clock.ros_time_is_active else 0.0
        return Instant(time.monotonic(), simulated or None)

    def since(self, stamp: Time) -> float:
        """Seconds from a stamp until now on the node's clock; negative for a stamp that is yet to come. NaN for a stamp
        that nobody has set."""
        nanoseconds = stamp.sec * 10**9 + stamp.nanosec
        return (self._clock.now().nanoseconds - nanoseconds) / 1e9 if nanoseconds else math.nan

    def delay(self, since_stamp: float) -> float:
        """How much older than its arrival a frame is whose stamp was so many seconds ago when it arrived."""
        if self.counts_from == "arrival" or math.isnan(since_stamp):
            return 0.0
        return max(0.0, since_stamp) if self.counts_from == "stamp" or agrees(since_stamp) else 0.0


def agrees(since_stamp: float) -> bool:
    """Whether stamps that were so many seconds ago on arrival come from a clock like the node's."""
    return -LARGEST_LEAD <= since_stamp <= LARGEST_DELAY
