"""A client of the node, which receives captions with the frames they are about, and asks questions."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from litevlm_ros.images.compressed import decode_compressed
from litevlm_ros.lab.demo.ground_truth import TOPIC, Nanoseconds, SceneHistory, parse
from litevlm_ros.lab.demo.node_state import NodeState
from litevlm_ros.msg import Caption
from litevlm_ros.node.ros_start import join_ros, ros_errors_in_words
from litevlm_ros.srv import Query
from litevlm_ros.types import RgbImage

_FRAMES_KEPT = 60
"""Frames kept of each camera, since a caption arrives a while after its frame."""


class Observer:
    """A ROS node that reaches the VLM node only over topics and the query service, as a user's would."""

    def __init__(self, cameras: Sequence[str], on_caption: Callable[[Any], None]) -> None:
        """Joins the ROS domain. `on_caption` is called with each litevlm_ros/Caption, within spin().

        Raises ConfigError if ROS does not start.
        """
        self.scenes = SceneHistory()
        self.state = NodeState()
        self._frames: dict[str, OrderedDict[Nanoseconds, Any]] = defaultdict(OrderedDict)
        self._context = Context()
        join_ros(context=self._context)
        with ros_errors_in_words():
            self._node = rclpy.create_node("litevlm_demo", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._query = self._node.create_client(Query, "/litevlm/query")
        self._node.create_subscription(Caption, "/litevlm/caption", on_caption, 50)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, 10)
        truths = QoSProfile(depth=20, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._node.create_subscription(String, TOPIC, self._announce, truths)
        newest = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        for camera in cameras:
            topic = f"/{camera}/image_raw/compressed"
            self._node.create_subscription(CompressedImage, topic, partial(self._keep, camera), newest)

    def close(self) -> None:
        """Leaves the ROS domain."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def spin(self, seconds: float) -> None:
        """Handles one message, for which it waits up to `seconds`."""
        self._executor.spin_once(timeout_sec=seconds)

    def ask(self, question: str) -> Any:
        """Returns the future litevlm_ros/Query response; None if the node does not offer the service yet."""
        return self._query.call_async(Query.Request(question=question)) if self._query.service_is_ready() else None

    def frame(self, camera: str, stamp: Nanoseconds) -> RgbImage | None:
        """Returns the image of that stamp, or the last one before it; None if no image has arrived."""
        frames = self._frames[camera]
        stamps = [known for known in frames if known <= stamp] or list(frames)[:1]
        if not stamps:
            return None
        message = frames[max(stamps)]
        return decode_compressed(message.format, message.data)

    def _diagnosed(self, message: Any) -> None:
        for status in message.status:
            self.state.take(status)

    def _announce(self, message: Any) -> None:
        self.scenes.add(parse(message.data))

    def _keep(self, camera: str, message: Any) -> None:
        frames = self._frames[camera]
        frames[nanoseconds(message.header.stamp)] = message
        while len(frames) > _FRAMES_KEPT:
            frames.popitem(last=False)


def nanoseconds(stamp: Time) -> Nanoseconds:
    """Returns a stamp as one number."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
