"""The ROS side of demo_cameras: publishes the shots of a source as raw and compressed images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.exceptions import InvalidTopicNameException
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.demo.ground_truth import TOPIC, announcement
from litevlm_ros.lab.demo.sources import Shot, Source
from litevlm_ros.node.ros_start import join_ros, ros_errors_in_words
from litevlm_ros.processes import StopRequest

_JPEG_QUALITY = 90


def publish(source: Source, rate: float, for_ros: Sequence[str], stop: StopRequest) -> None:
    """Publishes `rate` shots a second until `stop` is made. `for_ros` are the arguments behind --ros-args.

    Raises ConfigError if ROS does not start, or for a camera that makes no topic.
    """
    join_ros(for_ros)
    with ros_errors_in_words():
        node = rclpy.create_node("demo_cameras")
    try:
        publishers = _Publishers(node, source.cameras)
        node.get_logger().info(f"{rate:g} images a second from each of {', '.join(source.cameras)}")
        start = time.monotonic()
        tick = 0
        while not stop.wait(max(0.0, start + tick / rate - time.monotonic())):
            rclpy.spin_once(node, timeout_sec=0.0)  # with use_sim_time, the clock moves by this alone
            publishers.publish(source.next(time.monotonic() - start))
            # A tick that was missed is missed: frames must not pile up.
            tick = max(tick + 1, int((time.monotonic() - start) * rate))
    except InvalidTopicNameException as error:
        raise ConfigError(f"--cameras: a name does not make a topic: {error}") from None
    finally:
        node.destroy_node()
        try_shutdown()


class _Publishers:
    """The publishers of all cameras and of the ground truth."""

    def __init__(self, node: Any, cameras: Sequence[str]) -> None:
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        # A node that starts later still gets the ground truth of the scene that shows.
        kept = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._clock = node.get_clock()
        self._raw = {name: node.create_publisher(Image, f"{name}/image_raw", newest) for name in cameras}
        self._compressed = {
            name: node.create_publisher(CompressedImage, f"{name}/image_raw/compressed", newest) for name in cameras
        }
        self._truth = node.create_publisher(String, TOPIC.lstrip("/"), kept)

    def publish(self, shot: Shot) -> None:
        """Publishes a shot under one stamp, on those topics that have subscriptions."""
        stamp = self._clock.now().to_msg()
        if shot.facts is not None:
            self._truth.publish(String(data=announcement(shot.facts, stamp.sec, stamp.nanosec)))
        for name, image in shot.images.items():
            header = Header(stamp=stamp, frame_id=name)
            height, width = image.shape[:2]
            if self._raw[name].get_subscription_count():
                message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
                # rclpy takes an array as it is, and checks bytes one by one.
                message.data.frombytes(np.ascontiguousarray(image).data)
                self._raw[name].publish(message)
            if self._compressed[name].get_subscription_count():
                quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
                _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
                jpeg = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
                jpeg.data.frombytes(data.tobytes())
                self._compressed[name].publish(jpeg)
