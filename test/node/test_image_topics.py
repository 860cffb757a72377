from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from litevlm_ros.images.message import COMPRESSED_TYPE, RAW_TYPE
from litevlm_ros.node.image_topics import suggest_topics

pytestmark = pytest.mark.ros


class Node:
    """The graph of a node. Topics whose names begin with /silent have subscriptions only."""

    context = SimpleNamespace(get_domain_id=lambda: 7)

    def __init__(self, **topics: str) -> None:
        self.topics = topics

    def get_fully_qualified_name(self) -> str:
        return "/litevlm"

    def get_topic_names_and_types(self) -> list[tuple[str, list[str]]]:
        return [("/" + name.replace("__", "/"), [kind]) for name, kind in self.topics.items()]

    def count_publishers(self, topic: str) -> int:
        return int(not topic.startswith("/silent"))


def test_the_nearest_names_come_first_and_few_are_shown() -> None:
    kinds: dict[str, Any] = {
        "zed__left__image": RAW_TYPE,
        "front__image_rect": RAW_TYPE,
        "front_cam__image_raw__compressed": COMPRESSED_TYPE,
        "front_cam__image_raw": RAW_TYPE,
        "front__camera_info": "sensor_msgs/msg/CameraInfo",
        "silent__image_raw": RAW_TYPE,
        "litevlm__overlay__compressed": COMPRESSED_TYPE,
        "other": RAW_TYPE,
    }
    assert suggest_topics(Node(**kinds), "/front/image_raw") == (
        "image topics that there are: /front_cam/image_raw (raw), /front/image_rect (raw), "
        "/front_cam/image_raw/compressed (compressed) and 2 more; set camera_topics, or start the driver"
    )


def test_without_any_image_topic_the_domain_is_named() -> None:
    assert suggest_topics(Node(chatter="std_msgs/msg/String"), "/front/image_raw") == (
        "there is no image topic in ROS domain 7; start the driver, in the same domain (ROS_DOMAIN_ID)"
    )
