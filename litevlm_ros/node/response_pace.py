"""The pace at which the responses of a service, or of a part of an action, are sent when many come at the same time.

A client holds a few responses until it looks at them, ROS's default 10, and drops further ones without a word. It looks
at none while it still sends requests.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]  # where Humble and Jazzy both have it
from rclpy.node import Node
from rclpy.task import Future

AT_ONCE = 6
"""Responses that are sent without waiting: fewer than a client with ROS's default QoS holds."""

_PERIOD = 0.008
"""Seconds between two responses when more come. A client in Python, on a busy machine, takes as many."""

_QUIET = 0.1
"""Seconds without a request after which the clients are taken to have sent all of theirs."""

_MOST_HELD = 1.0
"""Seconds after which responses are sent even though requests still come."""

_MOST_WAITING = 1000
"""Responses that may wait. rclpy looks at each coroutine that waits whenever it does anything, and so is slow enough by
itself when there are more."""


class ResponsePace:
    """Gives the coroutines that respond their turns: refusals last, others in the order in which they asked for it.

    So a client that asks far too much does not hold up what the node does for others. A few responses are never held
    up, however soon they follow each other, nor are any that come at less than the pace. It has to be used in the
    thread of the node's executor.
    """

    def __init__(self, node: Node, callback_group: Any) -> None:
        self._waiting: deque[Future] = deque()
        self._refusals: deque[Future] = deque()
        self._at_once = float(AT_ONCE)
        self._newest = time.monotonic()
        self._held_since = 0.0
        # The steady clock: that of a simulator may stand still.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_PERIOD, self._release, callback_group=callback_group, clock=clock)
        self._timer.cancel()

    async def turn(self, *, refusal: bool = False) -> None:
        """Returns when a response may be sent that is ready now, or a refusal."""
        now = time.monotonic()
        self._at_once = min(AT_ONCE, self._at_once + (now - self._newest) / _PERIOD)
        self._newest = now
        waiting = len(self._waiting) + len(self._refusals)
        if not waiting and self._at_once >= 1:
            self._at_once -= 1
        elif waiting < _MOST_WAITING:
            if not waiting:
                self._held_since = now
                self._timer.reset()
            place = Future()
            (self._refusals if refusal else self._waiting).append(place)
            await place

    def _release(self) -> None:
        now = time.monotonic()
        if now - self._newest < _QUIET and now - self._held_since < _MOST_HELD:
            return
        (self._waiting or self._refusals).popleft().set_result(None)
        if not self._waiting and not self._refusals:
            self._timer.cancel()
            self._at_once, self._newest = 0.0, now
