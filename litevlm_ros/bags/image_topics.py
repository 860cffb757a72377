"""The image topics of a recording: which of them show the same pictures, and which one is captioned.

image_transport publishes the pictures of a camera on a raw topic, such as /front/image_raw, and under it in other
forms, such as /front/image_raw/compressed.
"""

from __future__ import annotations

from collections.abc import Mapping

_TRANSPORTS = ("compressed", "compressedDepth", "zstd")
"""The last parts of the names of topics on which image_transport publishes sensor_msgs/CompressedImage."""


def camera_name(topic: str) -> str:
    """Returns the camera's name in an image topic: 'front' for /front/image_raw/compressed."""
    name = raw_topic(topic).strip("/")
    return name.rpartition("/")[0] or name


def raw_topic(topic: str) -> str:
    """Returns the topic of the raw pictures: /front/image_raw for itself and for /front/image_raw/compressed."""
    base, _, last = topic.rpartition("/")
    return base if base and last in _TRANSPORTS else topic


def one_for_each_camera(counts: Mapping[str, int]) -> list[str]:
    """Returns, of the topics that show the same pictures, the one with the most images.

    `counts` gives the number of images of each topic. Of equal ones the raw topic is taken, which has lost nothing by
    compression. Topics without images are left out.
    """
    best: dict[str, str] = {}
    for topic in counts:
        other = best.get(raw_topic(topic))
        if counts[topic] and (other is None or _rank(topic, counts) > _rank(other, counts)):
            best[raw_topic(topic)] = topic
    return [topic for topic in counts if topic in best.values()]


def _rank(topic: str, counts: Mapping[str, int]) -> tuple[bool, int, bool]:
    return not topic.endswith("/compressedDepth"), counts[topic], topic == raw_topic(topic)
