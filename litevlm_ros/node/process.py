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

from litevlm_ros.errors import ConfigError, LiteVLMError, visible
from litevlm_ros.node.command_line import check_command_line, split
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

    def __init__(self, arguments: Sequence[str], stop: StopRequest, make_node: MakeNode | None = None) -> None:
        """`arguments` are those of the process, including `--ros-args`. `stop` ends the node."""
        self._arguments = arguments
        self._stop = stop
        self._make_node = make_node
        self._wake: Callable[[], object] = lambda: None
        self._status = 0

    def run(self) -> int:
        """Runs until the request to stop. Returns the exit status.

        It is 0 after the request, 2 if the settings cannot work, so that another start would fail too, and 1 after
        another fault.
        """
        spinner = threading.Thread(target=self._spin, name="executor", daemon=True)
        spinner.start()
        self._stop.wait()
        self._wake()
        spinner.join(SHUTDOWN_SECONDS)
        return self._status

    def _spin(self) -> None:
        try:
            self._spin_until_stopped()
        except Exception as error:
            if not self._stop.is_set():
                self._status = 2 if isinstance(error, ConfigError) else 1
                told = f"litevlm_node: {error}" if isinstance(error, LiteVLMError) else traceback.format_exc()
                print(told, file=sys.stderr, flush=True)
            self._stop.set()

    def _spin_until_stopped(self) -> None:
        from litevlm_ros.node.ros_start import join_ros, ros_errors_in_words

        if self._stop.is_set():
            return
        join_ros(split(self._arguments)[1])
        # Not before: join_ros finds out whether rclpy can be imported.
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.utilities import ok, try_shutdown

        from litevlm_ros.node.lifecycle import LiteVLMNode

        executor = SingleThreadedExecutor()
        # executor.wake() would not do: spin_once() then goes on waiting for work.
        self._wake = lambda: executor.create_task(lambda: None)
        with ros_errors_in_words():
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
        while node.open_requests and time.monotonic() < deadline:
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
    """Runs the node until SIGINT, SIGTERM or SIGHUP. Returns the exit status.

    `arguments` are those of the process; None takes sys.argv. Raises SystemExit after --help, or for unknown ones.
    """
    command = sys.argv if arguments is None else arguments
    check_command_line(command[1:])
    with stop_on_signals() as stop:
        tune_process()
        status = NodeProcess(command, stop, make_node).run()
    if threading.active_count() > 1:
        # Some library call cannot be interrupted, most likely the loading of a model. Do not wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
