"""The age of frames, and the clock that it is measured with."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time

FRAME_CLOCKS = ("auto", "stamp", "arrival")
"""Starts of a frame's age. `auto`: its stamp if the clocks agree, else its arrival."""

LARGEST_DELAY = 60.0
"""Seconds. A stamp that is older when its image arrives comes from another clock: from a replayed bag, or from a
computer whose clock is not set."""

LARGEST_LEAD = 1.0
"""Seconds by which a sender's clock may be ahead of the node's and still count as the same."""


@dataclass(frozen=True)
class Instant:
    """One moment on the monotonic and the simulated clock."""

    steady: float
    """Seconds on the monotonic clock."""
    simulated: float | None
    """Seconds on /clock. None if the node does not follow it, or it has not begun."""

    def seconds_until(self, later: Instant) -> float:
        """Returns the seconds between two instants, on the simulated clock if both have it.

        They are infinite if the simulated clock was set back, as when a bag is played again from its start: frames from
        before belong to another run.
        """
        if self.simulated is None or later.simulated is None:
            return later.steady - self.steady
        seconds = later.simulated - self.simulated
        return seconds if seconds >= 0 else math.inf


class FrameClock:
    """The clock that frames take their times from."""

    def __init__(self, clock: Any, counts_from: str = "auto") -> None:
        """`clock` is a node's clock; `counts_from` is one of FRAME_CLOCKS."""
        self.counts_from = counts_from
        """May be changed at any time."""
        self._clock = clock

    def now(self) -> Instant:
        """Returns this moment."""
        simulated = self._clock.now().nanoseconds / 1e9 if self._clock.ros_time_is_active else 0.0
        return Instant(time.monotonic(), simulated or None)

    def since(self, stamp: Time) -> float:
        """Returns the seconds from a stamp until now on the node's clock.

        They are negative for a stamp in the future, and NaN for one that was not set (0 seconds and 0 nanoseconds).
        """
        nanoseconds = stamp.sec * 10**9 + stamp.nanosec
        return (self._clock.now().nanoseconds - nanoseconds) / 1e9 if nanoseconds else math.nan

    def delay(self, since_stamp: float) -> float:
        """Returns the frame's age in seconds when it arrived.

        `since_stamp` is the time in seconds from the frame's stamp to its arrival, as since() returns it.
        """
        if self.counts_from == "arrival" or math.isnan(since_stamp):
            return 0.0
        return max(0.0, since_stamp) if self.counts_from == "stamp" or agrees(since_stamp) else 0.0


def agrees(since_stamp: float) -> bool:
    """Returns True if a stamp that was `since_stamp` seconds old on arrival fits the node's clock."""
    return -LARGEST_LEAD <= since_stamp <= LARGEST_DELAY
