"""Finds what is wrong around the node: with the clock that it follows, or with its name. Each fault is logged once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from litevlm_ros.node.simulated_clock import CLOCK_TOPIC, ClockState, SimulatedClock

PATIENCE = 5.0
"""Seconds that a fault may last until it is told. Discovery and simulations start slowly."""


@dataclass
class _Watched:
    """One thing that can be wrong."""

    find: Callable[[], str]
    """Returns what is wrong, with the fix; '' if nothing is."""
    mended: str
    """The line in the log when it is no longer wrong."""
    patience: float = PATIENCE
    """Seconds that it may be wrong until it is told."""
    began: float | None = None
    """Time since when it is wrong, in seconds on the monotonic clock; None while it is not."""
    told: bool = False


class Surroundings:
    """The faults around one node. look() has to be called about once a second, by one thread."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._clock = SimulatedClock(node)
        self._clock_topic: str = node.resolve_topic_name(CLOCK_TOPIC)
        self._watched = (
            _Watched(self._clock_trouble, f"The time on {self._clock_topic} runs", patience=0.0),
            _Watched(self._clock_publishers, f"{self._clock_topic} has at most one publisher now"),
            _Watched(self._namesakes, f"No other node is named {node.get_fully_qualified_name()} any longer"),
        )

    def look(self) -> list[str]:
        """Returns a sentence with the fix for each fault that lasts, and logs those that are new or gone."""
        lasting = []
        for watched in self._watched:
            text = watched.find()
            if not text:
                if watched.told:
                    self._node.get_logger().info(watched.mended)
                watched.began, watched.told = None, False
                continue
            now = time.monotonic()
            watched.began = now if watched.began is None else watched.began
            if now - watched.began < watched.patience:
                continue
            lasting.append(text)
            if not watched.told:
                watched.told = True
                self._node.get_logger().warning(text[0].upper() + text[1:])
        return lasting

    def _clock_trouble(self) -> str:
        begins = self._clock.state() is ClockState.NEVER_CAME and self._clock.standstill() < PATIENCE
        return "" if begins else self._clock.trouble()

    def _clock_publishers(self) -> str:
        count = self._node.count_publishers(self._clock_topic)
        if self._clock.state() is ClockState.UNUSED or count < 2:
            return ""
        return (
            f"{count} publishers send times to {self._clock_topic}, so the time may jump to and fro; stop all but one"
        )

    def _namesakes(self) -> str:
        own = (self._node.get_name(), self._node.get_namespace())
        count = self._node.get_node_names_and_namespaces().count(own)
        if count < 2:
            return ""
        return (
            f"{count} nodes are named {self._node.get_fully_qualified_name()}: questions and parameters may reach "
            "either one; give each its own name or namespace (__node:=NAME, __ns:=/NAME), or stop one. A node that was "
            "killed stays listed for up to 20 s"
        )
