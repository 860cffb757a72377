"""The node's process: signals, logging, the executor and the exit. The node itself is in lifecycle.py.

The main thread only waits for a signal; everything else happens in other threads. So Ctrl-C ends the process at any
time, even while a library is being imported or a model is being loaded.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from litevlm_ros.errors import visible
from litevlm_ros.node.process_tuning import tune_process
from litevlm_ros.processes import StopRequest, stop_on_signals

SHUTDOWN_SECONDS = 1.5
"""Seconds that the node may take to end. After them the process ends without it."""

START_STOP_SECONDS = 0.5
"""Seconds, of SHUTDOWN_SECONDS, that a start that is under way may take to stop."""

LAST_RESPONSES_SECONDS = 0.2
"""Seconds, of SHUTDOWN_SECONDS, that the last responses and results may take."""

MakeNode = Callable[[StopRequest], Any]
"""Takes the request that is made when the process has to end, and returns a LiteVLMNode."""

_PACKAGE = "litevlm_ros"


class NodeProcess:
    """One node, spinning in a thread of its own until it is told to stop."""

    def __init__(self, arguments: Sequence[str] | None, stop: StopRequest, make_node: MakeNode | None = None) -> None:
        """`arguments` are those of the process, including `--ros-args`. None takes sys.argv. `stop` ends the node."""
        self._arguments = arguments
        self._stop = stop
        self._make_node = make_node
        self._wake: Callable[[], object] = lambda: None
        self._failed = False

    def run(self) -> int:
        """Runs until the request to stop. Returns the exit status: 0, or 1 after an internal error."""
        spinner = threading.Thread(target=self._spin, name="executor", daemon=True)
        spinner.start()
        self._stop.wait()
        self._wake()
        spinner.join(SHUTDOWN_SECONDS)
        return int(self._failed)

    def _spin(self) -> None:
        try:
            self._spin_until_stopped()
        except Exception:
            self._failed = not self._stop.is_set()
            if self._failed:
                traceback.print_exc()
            self._stop.set()

    def _spin_until_stopped(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from rclpy.utilities import ok, try_shutdown

        from litevlm_ros.node.lifecycle import LiteVLMNode

        if self._stop.is_set():
            return
        rclpy.init(
            args=None if self._arguments is None else list(self._arguments),
            signal_handler_options=SignalHandlerOptions.NO,
        )
        executor = SingleThreadedExecutor()
        # executor.wake() would not do: spin_once() then goes on waiting for work.
        self._wake = lambda: executor.create_task(lambda: None)
        node = (self._make_node or LiteVLMNode)(self._stop)
        log_to_ros(node.get_logger())
        executor.add_node(node)
        start = threading.Thread(target=node.start, name="start", daemon=True)
        start.start()
        while not self._stop.is_set():
            try:
                executor.spin_once()
            except Exception:
                # rclpy raises a callback's exception here, for example if a service request cannot be handled.
                if self._stop.is_set() or not ok():
                    raise
                node.get_logger().error(f"A callback failed; the node goes on.\n{traceback.format_exc()}")
        start.join(START_STOP_SECONDS)
        node.close()
        self._send_last_responses(executor, node)
        executor.shutdown(timeout_sec=0.0)
        node.destroy_node()
        try_shutdown()

    def _send_last_responses(self, executor: Any, node: Any) -> None:
        """Sends what clients still wait for. They would wait forever if the node ended without a word."""
        deadline = time.monotonic() + LAST_RESPONSES_SECONDS
        while node.questions.open_questions and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.02)


class RosLogHandler(logging.Handler):
    """Passes log records to a ROS logger, whose level decides which ones appear."""

    def __init__(self, ros_logger: Any) -> None:
        super().__init__()
        self._ros = ros_logger

    def emit(self, record: logging.LogRecord) -> None:
        """Logs one record. Each severity has its own call, as rclpy refuses different severities from one line."""
        try:
            text = visible(record.getMessage())
            if record.levelno >= logging.ERROR:
                self._ros.error(text)
            elif record.levelno >= logging.WARNING:
                self._ros.warning(text)
            elif record.levelno >= logging.INFO:
                self._ros.info(text)
            else:
                self._ros.debug(text)
        except Exception:
            self.handleError(record)


def log_to_ros(ros_logger: Any) -> None:
    """Sends everything that the package logs to `ros_logger`; of TensorRT's own messages only warnings and errors.

    A process has one node: another call replaces the logger of the one before.
    """
    package = logging.getLogger(_PACKAGE)
    package.handlers = [RosLogHandler(ros_logger)]
    package.setLevel(logging.DEBUG)
    logging.getLogger(f"{_PACKAGE}.tensorrt").setLevel(logging.WARNING)


def main(arguments: Sequence[str] | None = None, make_node: MakeNode | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM. Returns the exit status."""
    with stop_on_signals() as stop:
        tune_process()
        status = NodeProcess(arguments, stop, make_node).run()
    if threading.active_count() > 1:
        # Some library call cannot be interrupted, most likely the loading of a model. Do not wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
