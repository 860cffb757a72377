"""The common parts of tests over DDS: a client in this process, image messages, and waiting."""

from __future__ import annotations

import array
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def image(value: int = 0, stamp: tuple[int, int] = (0, 0), **changes: Any) -> Any:
    """A sensor_msgs/Image of 8x6 grey pixels."""
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    header = Header(stamp=Time(sec=stamp[0], nanosec=stamp[1]), frame_id="optical")
    fields: dict[str, Any] = {
        "header": header, "encoding": "mono8", "width": 8, "height": 6, "step": 8,
        "data": array.array("B", bytes([value]) * 48),
    }  # fmt: skip
    return Image(**{**fields, **changes})


def compressed(value: int = 0, stamp: tuple[int, int] = (0, 0)) -> Any:
    """The same as a sensor_msgs/CompressedImage."""
    import cv2
    from sensor_msgs.msg import CompressedImage

    png = cv2.imencode(".png", np.full((6, 8), value, np.uint8))[1].tobytes()
    return CompressedImage(header=image(stamp=stamp).header, format="png", data=png)


def wait_for(condition: Callable[[], Any], seconds: float = 30.0, step: Callable[[], Any] | None = None) -> Any:
    """The first true value of `condition`, between whose calls `step` runs."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        step() if step else time.sleep(0.01)
    return value


def slowdown() -> float:
    """Measures how many times as long as alone on a core a thread takes now: 1 on a quiet machine.

    A time limit that is a promise about a quiet machine is multiplied by it.
    """
    started, used = time.monotonic(), time.thread_time()
    while time.thread_time() - used < 0.1:
        pass
    return max(1.0, (time.monotonic() - started) / 0.1)


@contextmanager
def process(arguments: list[str], log: Path, domain: int) -> Iterator[subprocess.Popen[bytes]]:
    """`python arguments` in a domain, killed on leaving if it still runs."""
    paths = [str(ROOT), str(ROOT / "test" / "support"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(domain), "PYTHONPATH": os.pathsep.join(paths)}
    with log.open("wb") as output:
        child = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


class Client:
    """A node of another process, as far as the one under test can tell."""

    def __init__(self, domain: int) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from litevlm_ros.srv import Query

        self._rclpy = rclpy
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("client", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._query = self.node.create_client(Query, "/litevlm/query")

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._rclpy.try_shutdown(context=self.context)

    def spin(self, seconds: float = 0.02) -> None:
        self._executor.spin_once(timeout_sec=seconds)

    def wait_for(self, condition: Callable[[], Any], seconds: float = 30.0) -> Any:
        return wait_for(condition, seconds, self.spin)

    def listen(self, kind: Any, topic: str, qos: Any = 50) -> list[Any]:
        """A list to which every message is added."""
        messages: list[Any] = []
        self.node.create_subscription(kind, topic, messages.append, qos)
        return messages

    def publisher(self, kind: Any, topic: str) -> Any:
        """A publisher that a subscription has found already."""
        publisher = self.node.create_publisher(kind, topic, 5)
        self.wait_for(publisher.get_subscription_count)
        return publisher

    def call(self, kind: Any, service: str, request: Any) -> Any:
        """The response of a service."""
        return self.result(self._start_call(kind, service, request))

    def try_call(self, kind: Any, service: str, request: Any, seconds: float = 3.0) -> Any:
        """The response of a service, or None if none has come in time.

        A service may know a new client later than that knows it, and a response that is sent meanwhile is lost.
        """
        future = self._start_call(kind, service, request)
        deadline = time.monotonic() + seconds
        self.wait_for(lambda: future.done() or time.monotonic() > deadline)
        return future.result() if future.done() else None

    def _start_call(self, kind: Any, service: str, request: Any) -> Any:
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        self.wait_for(self._clients[service].service_is_ready)
        return self._clients[service].call_async(request)

    def ask(self, question: str, **fields: Any) -> Any:
        """The response to a query."""
        return self.result(self.start_query(question, **fields))

    def start_query(self, question: str, **fields: Any) -> Any:
        """The future response to a query."""
        from litevlm_ros.srv import Query

        self.wait_for(self._query.service_is_ready)
        return self._query.call_async(Query.Request(question=question, **fields))

    def result(self, future: Any) -> Any:
        self.wait_for(future.done)
        return future.result()

    def change_state(self, label: str) -> bool:
        """Asks for a transition of the node, as `ros2 lifecycle set` does. Returns True if it succeeded."""
        return bool(self.result(self.start_change(label)).success)

    def start_change(self, label: str = "", number: int = 0) -> Any:
        """The future response to a request for a transition, by its label or as nav2 asks for it, by its number."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request(transition=Transition(label=label, id=number))
        return self._start_call(ChangeState, "/litevlm/change_state", request)

    def state(self) -> str:
        from lifecycle_msgs.srv import GetState

        return str(self.call(GetState, "/litevlm/get_state", GetState.Request()).current_state.label)
