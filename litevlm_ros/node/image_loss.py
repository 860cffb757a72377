"""Images that the middleware loses: their number, when it is worth a warning, and the fix."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier

from litevlm_ros.images.message import COMPRESSED_TYPE
from litevlm_ros.node.image_topics import image_topics

_TOLERATED = 0.1
"""Share of images that may be lost without a warning."""

_LOOKS = 6
"""Number of looks at the counters over which losses are compared with arrivals."""

_FAST_DDS_2 = ("humble", "iron", "jazzy")


def lost_count(reported: int) -> int:
    """Returns the number of lost messages in a count as rclpy reports it.

    The middlewares count in signed numbers of 32 bits and rclpy hands on 64, whose upper half can hold anything.
    """
    count = reported & 0xFFFFFFFF
    return count if count < 1 << 31 else 0


class Losses:
    """The losses of one camera over its last looks."""

    def __init__(self) -> None:
        self._looks: deque[tuple[int, int]] = deque([(0, 0)], maxlen=_LOOKS)

    def look(self, received: int, lost: int) -> None:
        """Takes the camera's counters."""
        self._looks.append((received, lost))

    def warning(self) -> str:
        """Returns how many images were lost, if that is more than normal; else ''."""
        (received_before, lost_before), (received, lost) = self._looks[0], self._looks[-1]
        lost -= lost_before
        sent = received - received_before + lost
        if lost <= _TOLERATED * sent or lost == 1 < sent:
            return ""
        return f"{lost} of {sent} images were lost on their way"


def loss_fix(node: Any, topic: str, compressed: bool, requested: QoSProfile) -> str:
    """Returns what to do so that images on `topic` are lost no longer. Asks the middleware.

    `compressed` tells whether they are, and `requested` is the subscription's QoS.
    """
    fixes = []
    if profile := large_images_fix(compressed):
        fixes.append(profile)
    best_effort = requested.reliability is ReliabilityPolicy.BEST_EFFORT
    publishers = node.get_publishers_info_by_topic(topic)
    if best_effort and any(each.qos_profile.reliability is ReliabilityPolicy.RELIABLE for each in publishers):
        fixes.append("set image_reliability to reliable, as its publisher is")
    if compressed:
        fixes.append("publish fewer or smaller images, or raise the kernel's net.core.rmem_max")
    else:
        other = f"{topic}/compressed"
        there = image_topics(node).get(other) == COMPRESSED_TYPE
        fixes.append(f"set camera_topics to {other}" if there else "use compressed images (transport: compressed)")
    return "; or ".join(fixes)


def large_images_fix(compressed: bool) -> str:
    """Returns what a driver needs so that Fast DDS carries large raw images; '' for other images or middlewares."""
    if compressed or "fastrtps" not in get_rmw_implementation_identifier():
        return ""
    return (
        f"start the driver with {_shared_memory_profile()}: Fast DDS has shared memory for 512 KB of images without it"
    )


def _shared_memory_profile() -> str:
    """Returns the variable of the environment, with its value, that gives Fast DDS memory for large images."""
    second = os.environ.get("ROS_DISTRO", "jazzy") in _FAST_DDS_2
    variable = "FASTRTPS_DEFAULT_PROFILES_FILE" if second else "FASTDDS_DEFAULT_PROFILES_FILE"
    try:
        share = Path(get_package_share_directory("litevlm_ros"))
    except PackageNotFoundError:
        share = Path(__file__).resolve().parents[2]
    return f"{variable}={share / 'config' / 'fastdds.xml'}"
