"""A client of a node's questions, for tools: it finds the node, asks, and says in words why there is no answer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.action.client import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.utilities import try_shutdown

from litevlm_ros.action import Ask
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.msg import ErrorCode
from litevlm_ros.node.ros_start import join_ros, ros_errors_in_words
from litevlm_ros.processes import StopRequest
from litevlm_ros.srv import Query

_DISCOVERY_SECONDS = 5.0
"""Seconds in which a node that runs is found, even on a busy machine."""

_SETTLE_SECONDS = 0.5
"""Seconds after the first node was found, in which others are."""

_CANCEL_SECONDS = 3.0
"""Seconds that the node has to cancel a question."""

_DEEP = QoSProfile(depth=4000)
"""As deep as the node's. The responses to all clients come on one topic, so that those to others take room as well."""

_GOAL_SERVICE = "/ask/_action/send_goal"
_GOAL_TYPE = "litevlm_ros/action/Ask_SendGoal"


class QuestionClient:
    """A ROS node that asks one question and waits for the answer, until a signal or a time."""

    def __init__(self, for_ros: Sequence[str], stop: StopRequest, deadline: float) -> None:
        """Joins ROS with the arguments behind --ros-args. `deadline` is on the monotonic clock.

        Raises ConfigError if ROS does not start.
        """
        join_ros(for_ros)
        self._stop, self._deadline = stop, deadline
        with ros_errors_in_words():
            self._node = rclpy.create_node(f"litevlm_ask_{os.getpid()}", start_parameter_services=False)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._sent: Any = None

    def close(self) -> None:
        """Cancels a question that is still open, and leaves ROS."""
        if self._sent is not None:
            self._cancel()
        self._executor.shutdown()
        self._node.destroy_node()
        try_shutdown()

    def ask(self, goal: Any, name: str | None, on_text: Callable[[str], object]) -> Any:
        """Sends a litevlm_ros/Ask goal to a node, and returns the litevlm_ros/Answer.

        `name` may be left out if one node alone answers questions. `on_text` gets the answer so far, again and again.

        Raises LiteVLMError if there is no answer, with the reason and the fix, and KeyboardInterrupt after a signal.
        """
        node = self._find(name)
        client: Any = ActionClient(
            self._node, Ask, f"{node}/ask", goal_service_qos_profile=_DEEP, result_service_qos_profile=_DEEP
        )
        if not self._wait_for(client.server_is_ready, _DISCOVERY_SECONDS):
            raise LiteVLMError(f"{node} was found but cannot be reached; check its log and the network, then ask again")
        self._sent = client.send_goal_async(goal, lambda message: on_text(message.feedback.text))
        self._wait_for_node(self._sent.done, client, node)
        handle = self._sent.result()
        if not handle.accepted:
            self._sent = None
            raise LiteVLMError(f"{node} rejected the question: {self._why_rejected(node)}")
        fetched = handle.get_result_async()
        self._wait_for_node(fetched.done, client, node)
        self._sent = None
        result = fetched.result().result
        if not result.success:
            raise LiteVLMError(result.error or "the node has dropped the result; ask again")
        return result.answer

    def _find(self, name: str | None) -> str:
        """Returns the full name of the node to ask. Raises LiteVLMError if it is not there, or if there are several."""
        wanted = name and f"/{name.strip('/')}"
        self._wait_for(lambda: wanted in self._nodes() if wanted else self._nodes(), _DISCOVERY_SECONDS)
        if not wanted:
            self._wait_for(lambda: False, _SETTLE_SECONDS)
        nodes = self._nodes()
        if wanted in nodes:
            return str(wanted)
        if len(nodes) == 1 and not wanted:
            return nodes[0]
        if nodes:
            what = f"no node {wanted} answers questions" if wanted else "several nodes answer questions"
            raise LiteVLMError(f"{what}; choose with --node: {', '.join(nodes)}")
        who = f"no node {wanted}" if wanted else "no node that answers questions"
        raise LiteVLMError(
            f"{who} was found in ROS domain {os.environ.get('ROS_DOMAIN_ID') or 0}. Start one with ros2 launch "
            "litevlm_ros demo.launch.py, or ros2 run litevlm_ros litevlm_node. If one runs, ROS_DOMAIN_ID and "
            "ROS_AUTOMATIC_DISCOVERY_RANGE have to be the same here as there"
        )

    def _nodes(self) -> list[str]:
        services = dict(self._node.get_service_names_and_types())
        return sorted(
            service.removesuffix(_GOAL_SERVICE)
            for service, types in services.items()
            if service.endswith(_GOAL_SERVICE) and _GOAL_TYPE in types
        )

    def _why_rejected(self, node: str) -> str:
        """Returns the reason, for which the response to a goal has no field: the service has one."""
        client = self._node.create_client(Query, f"{node}/query", qos_profile=_DEEP)
        if self._wait_for(client.service_is_ready, _DISCOVERY_SECONDS):
            asked = client.call_async(Query.Request())
            if self._wait_for(asked.done, _DISCOVERY_SECONDS):
                response: Any = asked.result()
                # An active node finds that this question is empty. So it had no room for the one before.
                busy = response.error_code == ErrorCode.BAD_REQUEST
                return "busy: too many questions wait already; ask again later" if busy else str(response.error)
        return "its log has the reason"

    def _cancel(self) -> None:
        """Cancels the question, also one of which the node has not said yet whether it accepts it."""
        end = time.monotonic() + _CANCEL_SECONDS
        self._spin_until(self._sent.done, end)
        if self._sent.done() and self._sent.result().accepted:
            self._spin_until(self._sent.result().cancel_goal_async().done, end)

    def _wait_for_node(self, condition: Callable[[], bool], client: Any, node: str) -> None:
        """Waits until the time is over. Raises LiteVLMError then, or if the node goes away."""
        while not self._wait_for(condition, 1.0):
            if not client.server_is_ready():
                self._sent = None
                raise LiteVLMError(f"{node} has ended before the answer was complete; its log has the reason")

    def _wait_for(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Returns False if the condition is not met within `seconds`.

        Raises KeyboardInterrupt after a signal, and LiteVLMError if the time for the answer is over.
        """
        end = time.monotonic() + seconds
        while not self._spin_until(condition, min(end, time.monotonic() + 0.1)):
            if self._stop.is_set():
                raise KeyboardInterrupt
            if time.monotonic() >= self._deadline:
                raise LiteVLMError("no answer in the time that --timeout allows; give it more, or ask for fewer tokens")
            if time.monotonic() >= end:
                return False
        return True

    def _spin_until(self, condition: Callable[[], Any], end: float) -> bool:
        while not condition():
            if time.monotonic() >= end:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True
