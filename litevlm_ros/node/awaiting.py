"""Coroutines of the executor that wait for what happens in another thread."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from rclpy.node import Node
from rclpy.task import Future as RosFuture


def ended(node: Node, future: Future[Any]) -> RosFuture:
    """Returns what callbacks of the node can await until `future` is done. Its result is None, whatever that has."""
    executor = node.executor
    result = RosFuture()

    def wake(_: Future[Any]) -> None:
        result.set_result(None)
        if executor is not None:
            executor.wake()

    future.add_done_callback(wake)
    return result
