"""A client that listens to all captions and asks one question after the other."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from litevlm_ros.lab.soak.record import Record
from litevlm_ros.msg import Caption
from litevlm_ros.srv import Query

QUESTIONS: tuple[tuple[str, list[str]], ...] = (
    ("Is there a car?", []),
    ("How many vehicles are there?", []),
    ("What is ahead?", ["front"]),
    ("Describe the scene.", ["back"]),
    ("Is it day or night?", ["front_left", "front_right"]),
)
"""With the cameras that they are about; none: all."""

ANSWER_SECONDS = 20.0
"""After which a question counts as lost."""


class SoakClient:
    """A node of its own, which writes into a record."""

    def __init__(self, record: Record, period: float) -> None:
        """Asks every `period` seconds, if the answer before has come."""
        self._record = record
        self._period = period
        self._began = time.monotonic()
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("litevlm_soak", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_subscription(Caption, "/litevlm/caption", self._on_caption, 50)
        self._query = self._node.create_client(Query, "/litevlm/query")
        self._questions = itertools.cycle(QUESTIONS)
        self._pending: tuple[float, Any] | None = None
        self._ask_at = 0.0

    def close(self) -> None:
        """Leaves the ROS domain."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def ready(self, cameras: Sequence[str]) -> bool:
        """Whether the node has captioned all its cameras and answers questions. Waits a moment for that."""
        self._executor.spin_once(timeout_sec=0.1)
        return self._record.caption_times.keys() >= set(cameras) and bool(self._query.service_is_ready())

    def begin(self) -> float:
        """Forgets what came before. Returns the time of the beginning, on the monotonic clock."""
        self._record.captions.clear()
        self._record.caption_times.clear()
        self._began = time.monotonic()
        return self._began

    def step(self) -> None:
        """Handles what has arrived, and asks when it is time to."""
        self._executor.spin_once(timeout_sec=0.05)
        now = time.monotonic()
        if self._pending is None:
            if now >= self._ask_at:
                question, cameras = next(self._questions)
                self._pending = now, self._query.call_async(Query.Request(question=question, cameras=cameras))
                self._ask_at = now + self._period
            return
        asked, future = self._pending
        if future.done():
            self._pending = None
            response = future.result()
            if response.success:
                self._record.answers.append((now - self._began, 1e3 * (now - asked)))
            else:
                self._record.failures[response.error] += 1
        elif now - asked > ANSWER_SECONDS:
            self._query.remove_pending_request(future)
            self._pending = None
            self._record.failures["no response came"] += 1

    def _on_caption(self, message: Any) -> None:
        now = time.monotonic() - self._began
        self._record.captions.append((now, message.timings.total))
        self._record.caption_times.setdefault(message.camera, []).append(now)
