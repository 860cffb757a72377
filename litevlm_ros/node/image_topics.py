"""The image topics that are published, for messages about one that is not."""

from __future__ import annotations

import difflib
from typing import Any

from litevlm_ros.images.message import COMPRESSED_TYPE, RAW_TYPE

_SHOWN = 3
"""Number of topics that a message names. More make it hard to read, as each camera has one."""


def image_topics(node: Any) -> dict[str, str]:
    """Returns the type of each image topic that another node publishes, by its full name. Asks the middleware."""
    own = node.get_fully_qualified_name() + "/"
    return {
        topic: next(kind for kind in kinds if kind in (RAW_TYPE, COMPRESSED_TYPE))
        for topic, kinds in node.get_topic_names_and_types()
        if {RAW_TYPE, COMPRESSED_TYPE}.intersection(kinds)
        if not topic.startswith(own) and node.count_publishers(topic)
    }


def suggest_topics(node: Any, topic: str) -> str:
    """Returns in words which image topics there are instead of `topic`, those with the nearest names first."""
    found = image_topics(node)
    if not found:
        return (
            f"there is no image topic in ROS domain {node.context.get_domain_id()}; start the driver, in the same "
            "domain (ROS_DOMAIN_ID)"
        )

    def likeness(name: str) -> tuple[float, str]:
        return (-difflib.SequenceMatcher(None, name, topic, autojunk=False).ratio(), name)

    nearest = sorted(found, key=likeness)
    shown = ", ".join(f"{name} ({_transport(found[name])})" for name in nearest[:_SHOWN])
    more = f" and {len(nearest) - _SHOWN} more" if len(nearest) > _SHOWN else ""
    return f"image topics that there are: {shown}{more}; set camera_topics, or start the driver"


def _transport(kind: str) -> str:
    """Returns the value of the parameter `transport` for a message type."""
    return "raw" if kind == RAW_TYPE else "compressed"
