"""The node's process: signals, the executor and the exit. The node itself is in lifecycle.py.

The main thread only waits for a signal; everything else happens in other threads. So Ctrl-C ends the process in every
phase, also while a library is being imported or a model loaded.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from litevlm_ros.node.process_tuning import tune_process

SIGNAL_SECONDS = 0.1
"""How long a signal may go unnoticed."""

SHUTDOWN_SECONDS = 1.5
"""How long the node may take to end before the process ends without it."""

START_STOP_SECONDS = 0.5
"""Of these, how long a start that is under way may take to notice."""

LAST_RESPONSES_SECONDS = 0.2
"""And how long the last responses and results may take."""

MakeNode = Callable[[threading.Event], Any]
"""Takes the event that is set on stopping and returns a LiteVLMNode."""


class NodeProcess:
    """One node, spinning in a thread of its own until it is told to stop."""

    def __init__(self, arguments: Sequence[str] | None, make_node: MakeNode | None = None) -> None:
        """`arguments` are the process's own, ROS's among them; None takes sys.argv."""
        self._arguments = arguments
        self._make_node = make_node
        self._stop = threading.Event()
        self._wake: Callable[[], object] = lambda: None
        self._failed = False

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Asks the process to end. Also a signal handler."""
        self._stop.set()

    def run(self) -> int:
        """Runs until stop() is called. Returns the exit status: 0, or 1 after an internal error."""
        spinner = threading.Thread(target=self._spin, name="executor", daemon=True)
        spinner.start()
        # In steps: the kernel may hand a signal to any thread, which leaves this one asleep, and only here Python calls
        # the handler.
        while not self._stop.wait(SIGNAL_SECONDS):
            pass
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
        from litevlm_ros.node.ros_logging import log_to_ros

        if self._stop.is_set():
            return
        rclpy.init(
            args=None if self._arguments is None else list(self._arguments),
            signal_handler_options=SignalHandlerOptions.NO,
        )
        executor = SingleThreadedExecutor()
        # Not executor.wake(), after which spin_once() would go on waiting for work.
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
                # rclpy raises here what a callback did, for example on a service request that it cannot handle.
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
        """A client that is not told about the end would wait forever."""
        deadline = time.monotonic() + LAST_RESPONSES_SECONDS
        while node.questions.has_open_questions and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.02)


def main(arguments: Sequence[str] | None = None, make_node: MakeNode | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM. Returns the exit status."""
    process = NodeProcess(arguments, make_node)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, process.stop)
    tune_process()
    status = process.run()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Python's own end would bring back the default, and a signal that launch repeats then kills the process.
        signal.signal(number, signal.SIG_IGN)
    if threading.active_count() > 1:
        # A library call that cannot be interrupted, most likely the loading of a model: do not wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
