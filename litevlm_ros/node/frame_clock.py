"""The age of frames, and the clock that it is measured with."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time

from litevlm_ros.node.simulated_clock import LONGEST_STANDSTILL, ClockState, SimulatedClock

LARGEST_DELAY = 60.0
"""Seconds. A stamp that is older when its image arrives comes from another clock: from a replayed bag, or from a
computer whose clock is not set."""

LARGEST_LEAD = 1.0
"""Seconds by which a sender's clock may be ahead of the node's and still count as the same."""

_MOVED = 0.5
"""Seconds within which /clock must have moved, so that a stamp ahead of it tells of another clock."""


@dataclass(frozen=True)
class Instant:
    """One moment on the monotonic and the simulated clock."""

    steady: float
    """Seconds on the monotonic clock."""
    simulated: float | None
    """Seconds on /clock. None if the node does not follow it, or it has not begun."""

    def seconds_until(self, later: Instant) -> float:
        """Returns the seconds between two instants: on the steady clock or on the simulated one, where they are more.

        So a simulation that stands still or is slower than real time does not keep frames young, and one that is faster
        ages them faster. The seconds are infinite if the simulated clock was set back, as when a bag is played again
        from its start: frames from before belong to another run.
        """
        real, simulated = later.steady - self.steady, self.simulated_seconds_until(later)
        return max(real, simulated) if simulated >= 0 else math.inf

    def simulated_seconds_until(self, later: Instant) -> float:
        """Returns the seconds on the simulated clock, below 0 if that was set back; 0 unless both instants have it."""
        if self.simulated is None or later.simulated is None:
            return 0.0
        return later.simulated - self.simulated


class FrameClock:
    """The clock that frames take their times from."""

    def __init__(self, node: Any, counts_from: str = "auto") -> None:
        """`node` is the rclpy node whose clock it is; `counts_from` is one of FRAME_CLOCKS."""
        self.counts_from = counts_from
        """May be changed at any time."""
        self._simulated = SimulatedClock(node)

    def now(self) -> Instant:
        """Returns this moment."""
        return Instant(time.monotonic(), self._simulated.seconds())

    def tells_ages(self, max_age: float) -> bool:
        """Returns False if /clock never came or stands still, so that nobody can tell how old a new frame is.

        A standstill of up to `max_age` seconds is no matter, nor is any if ages count from the arrival.
        """
        state = self._simulated.state(max(max_age, LONGEST_STANDSTILL))
        return self.counts_from == "arrival" or state in (ClockState.UNUSED, ClockState.RUNS)

    def trouble(self, max_age: float) -> str:
        """Returns what is wrong with /clock, with the fix; '' if nothing is, or a standstill is below `max_age`."""
        return self._simulated.trouble(max(max_age, LONGEST_STANDSTILL))

    def moves(self) -> bool:
        """Returns True unless /clock stands still or never came: stamps then run ahead of it for that reason alone."""
        return self._simulated.state(_MOVED) in (ClockState.UNUSED, ClockState.RUNS)

    def since(self, stamp: Time) -> float:
        """Returns the seconds from a stamp until now on the node's clock.

        They are negative for a stamp in the future, and NaN for one that was not set (0 seconds and 0 nanoseconds).
        """
        nanoseconds = stamp.sec * 10**9 + stamp.nanosec
        return (self._simulated.nanoseconds() - nanoseconds) / 1e9 if nanoseconds else math.nan

    def delay(self, since_stamp: float, *, latched: bool = False) -> float:
        """Returns the frame's age in seconds when it arrived.

        `since_stamp` is the time in seconds from the frame's stamp to its arrival, as since() returns it. A `latched`
        frame may have been taken long ago, so its stamp counts however old it is.
        """
        if self.counts_from == "arrival" or math.isnan(since_stamp):
            return 0.0
        counts = latched or self.counts_from == "stamp" or agrees(since_stamp)
        return max(0.0, since_stamp) if counts else 0.0


def agrees(since_stamp: float) -> bool:
    """Returns True if a stamp that was `since_stamp` seconds old on arrival fits the node's clock."""
    return -LARGEST_LEAD <= since_stamp <= LARGEST_DELAY
