"""The clock on /clock, which a node with `use_sim_time: true` follows: it runs, stands still or never came."""

from __future__ import annotations

import threading
import time
from enum import Enum
from typing import Any

CLOCK_TOPIC = "/clock"

LONGEST_STANDSTILL = 2.0
"""Seconds for which /clock may stand still and still be trusted. Slow simulations publish it a few times a second."""


class ClockState(Enum):
    """States of /clock."""

    UNUSED = "the node does not follow /clock"
    RUNS = "runs"
    STANDS = "stands still"
    NEVER_CAME = "never came"


class SimulatedClock:
    """Reads a node's simulated time, and notices by the steady clock when it last moved.

    It sees the time only when it is asked, so it has to be asked about once a second. Any thread may ask.
    """

    def __init__(self, node: Any) -> None:
        """`node` is the rclpy node whose clock is read."""
        self._node = node
        self._clock = node.get_clock()
        self._lock = threading.Lock()
        self._seen: float | None = None
        self._since = time.monotonic()

    def nanoseconds(self) -> int:
        """Returns the time on the node's clock, simulated or not, in nanoseconds."""
        return int(self._clock.now().nanoseconds)

    def seconds(self) -> float | None:
        """Returns the simulated time. It is None if the node does not follow /clock, or the clock has not begun."""
        simulated = self.nanoseconds() / 1e9 if self._clock.ros_time_is_active else 0.0
        with self._lock:
            if self._seen != simulated:
                self._seen, self._since = simulated, time.monotonic()
        return simulated or None

    def standstill(self) -> float:
        """Returns for how many seconds of the steady clock the simulated time has not moved; 0 if none is followed."""
        self.seconds()
        return time.monotonic() - self._since if self._clock.ros_time_is_active else 0.0

    def state(self, patience: float = LONGEST_STANDSTILL) -> ClockState:
        """Returns the state. A clock that has not moved for more than `patience` seconds stands still."""
        if not self._clock.ros_time_is_active:
            return ClockState.UNUSED
        if self.seconds() is None:
            return ClockState.NEVER_CAME
        return ClockState.STANDS if self.standstill() > patience else ClockState.RUNS

    def trouble(self, patience: float = LONGEST_STANDSTILL) -> str:
        """Returns what is wrong with the clock, with the fix; '' if nothing is. Asks the middleware if something is."""
        state = self.state(patience)
        if state in (ClockState.UNUSED, ClockState.RUNS):
            return ""
        topic = self._node.resolve_topic_name(CLOCK_TOPIC)
        published = self._node.count_publishers(topic) > 0
        if state is ClockState.STANDS:
            cause = (
                "the simulation or bag is paused or hangs; let it run on, or raise max_frame_age to bridge the pause"
                if published
                else "its publisher is gone; start the simulation or bag again"
            )
            return f"{topic} has stood still at {self.seconds() or 0.0:.2f} s for {self.standstill():.1f} s: {cause}"
        fault = "the parameter use_sim_time is true, but"
        if published:
            return f"{fault} {topic} has brought no time above 0 yet; let the simulation or bag run"
        return (
            f"{fault} nobody publishes {topic}; start the simulation, or `ros2 bag play` with --clock, or set "
            "use_sim_time to false"
        )
