"""The node's ROS parameters: declared with descriptions, read into settings and checked.

Parameters are declared without fixed types, because rclpy ends a node whose launch file says `1` where `1.0` is
declared. The values are checked when the node is configured, where a mistake has a message and can be corrected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.validate_topic_name import validate_topic_name

from litevlm_ros.cameras import CameraSource
from litevlm_ros.errors import ConfigError

DEMO_CAMERAS = ("front", "front_left", "front_right", "back", "back_left", "back_right")
TRANSPORTS = ("auto", "raw", "compressed")


@dataclass(frozen=True)
class Parameter:
    """One ROS parameter."""

    default: Any
    description: str


PARAMETERS: Mapping[str, Parameter] = {
    "autostart": Parameter(True, "Configure and activate at start. false leaves both to a lifecycle manager."),
    # --- cameras
    "cameras": Parameter(list(DEMO_CAMERAS), "Names of the cameras, as captions and queries call them."),
    "camera_topics": Parameter(
        [""], "Image topic of each camera, in the order of `cameras`. Empty: /NAME/image_raw, or with transport "
        "`compressed` /NAME/image_raw/compressed."
    ),
    "transport": Parameter(
        "auto", "`raw` subscribes to sensor_msgs/Image, `compressed` to sensor_msgs/CompressedImage (JPEG or PNG). "
        "`auto`: compressed where the topic ends in /compressed, else raw."
    ),
    "max_frame_age": Parameter(2.0, "Seconds since its arrival after which a frame is never used. Above 0."),
    "max_image_pixels": Parameter(
        64_000_000, "Larger images are refused, from cameras and in queries alike. At least 1."
    ),
    # --- captions
    "caption_period": Parameter(1.0, "Seconds from one caption of a camera to its next. 0: no captions."),
    "caption_prompt": Parameter("Describe the scene.", "Instruction that captions follow."),
    "caption_cameras": Parameter([""], "Cameras to caption, by name. Empty: all."),
    "caption_change_threshold": Parameter(
        0.0, "Leaves out captions of views that changed less than this since their last one, in levels from 0 to 255 "
        "of a small part's colour. 12 overlooks the noise of most sensors. 0: every view is captioned."
    ),
    "caption_max_hold": Parameter(30.0, "Seconds after which an unchanged view is captioned anyway. Above 0."),
    # --- queries
    "max_question_chars": Parameter(2000, "Longer questions are refused. At least 1."),
    "max_query_images": Parameter(8, "Most images that may come with one query. At least 1."),
}  # fmt: skip


@dataclass(frozen=True)
class NodeSettings:
    """What the node itself needs to know; the model's settings are in config.py."""

    sources: tuple[CameraSource, ...]
    max_frame_age: float
    max_image_pixels: int
    caption_period: float
    caption_prompt: str
    caption_cameras: frozenset[str]
    caption_change_threshold: float
    caption_max_hold: float
    max_question_chars: int
    max_query_images: int


def declare(node: Node, parameters: Mapping[str, Parameter]) -> None:
    """Declares parameters that take any type."""
    for name, parameter in parameters.items():
        descriptor = ParameterDescriptor(description=parameter.description, dynamic_typing=True)
        node.declare_parameter(name, parameter.default, descriptor)


class Values:
    """Reads a node's parameters as the types they are meant to have. Raises ConfigError where they have another."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def text(self, name: str) -> str:
        """A string."""
        value = self._get(name)
        if not isinstance(value, str):
            raise self._wrong(name, value, "a text")
        return value

    def flag(self, name: str) -> bool:
        """A boolean."""
        value = self._get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def number(self, name: str) -> float:
        """A finite float; integers are fine too."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._wrong(name, value, "a number")
        return float(value)

    def integer(self, name: str) -> int:
        """An integer; floats without a fraction are fine too."""
        value = self.number(name)
        if value != int(value):
            raise self._wrong(name, value, "a whole number")
        return int(value)

    def names(self, name: str) -> tuple[str, ...]:
        """A list of non-empty strings, or one string with commas."""
        value = self._get(name)
        if value is None:  # an empty list in YAML has no type
            return ()
        items = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, Sequence) else [value]
        if not all(isinstance(item, str) for item in items):
            raise self._wrong(name, value, "a list of texts")
        # An empty text is how launch files say "no items".
        return tuple(item.strip() for item in items if item.strip())

    def _get(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _wrong(self, name: str, value: object, kind: str) -> ConfigError:
        return ConfigError(f"parameter {name} must be {kind}, not {value!r}")


def read_node_settings(values: Values) -> NodeSettings:
    """Reads and checks the node's own parameters. Raises ConfigError."""
    sources = _sources(values.names("cameras"), values.names("camera_topics"), values.text("transport"))
    known = [source.name for source in sources]
    caption_cameras = values.names("caption_cameras") or tuple(known)
    unknown = sorted(set(caption_cameras) - set(known))
    if unknown:
        raise ConfigError(f"parameter caption_cameras names {', '.join(unknown)}; cameras has {', '.join(known)}")
    settings = NodeSettings(
        sources=sources,
        max_frame_age=values.number("max_frame_age"),
        max_image_pixels=values.integer("max_image_pixels"),
        caption_period=values.number("caption_period"),
        caption_prompt=values.text("caption_prompt").strip(),
        caption_cameras=frozenset(caption_cameras),
        caption_change_threshold=values.number("caption_change_threshold"),
        caption_max_hold=values.number("caption_max_hold"),
        max_question_chars=values.integer("max_question_chars"),
        max_query_images=values.integer("max_query_images"),
    )
    if settings.max_frame_age <= 0:
        raise ConfigError(f"parameter max_frame_age must be above 0 seconds, not {settings.max_frame_age:g}")
    if settings.caption_period < 0:
        raise ConfigError(f"parameter caption_period must be 0 (no captions) or more, not {settings.caption_period:g}")
    if settings.caption_period and not settings.caption_prompt:
        raise ConfigError("parameter caption_prompt is empty; give an instruction, or set caption_period to 0")
    if not 0 <= settings.caption_change_threshold <= 255:
        raise ConfigError("parameter caption_change_threshold must be 0 (off) to 255, not "
                          f"{settings.caption_change_threshold:g}; try 12")  # fmt: skip
    if settings.caption_max_hold <= 0:
        raise ConfigError(f"parameter caption_max_hold must be above 0 seconds, not {settings.caption_max_hold:g}")
    for name in ("max_image_pixels", "max_question_chars", "max_query_images"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"parameter {name} must be at least 1, not {getattr(settings, name)}")
    return settings


def _sources(names: Sequence[str], topics: Sequence[str], transport: str) -> tuple[CameraSource, ...]:
    if transport not in TRANSPORTS:
        raise ConfigError(f"parameter transport must be one of {', '.join(TRANSPORTS)}, not {transport!r}")
    if not names:
        raise ConfigError("parameter cameras is empty; name at least one camera")
    if len(set(names)) != len(names):
        raise ConfigError(f"parameter cameras has a name twice: {', '.join(names)}")
    if topics and len(topics) != len(names):
        raise ConfigError(
            f"parameter camera_topics has {len(topics)} topics for {len(names)} cameras; give one each, or none"
        )
    if not topics:
        suffix = "/compressed" if transport == "compressed" else ""
        topics = [f"/{name}/image_raw{suffix}" for name in names]
    for name, topic in zip(names, topics, strict=True):
        try:
            validate_topic_name(topic)
        except InvalidTopicNameException as error:
            raise ConfigError(f"the topic of camera {name} is not a valid name: {error}") from None
    compressed = {"raw": False, "compressed": True}
    return tuple(
        CameraSource(name, topic, compressed.get(transport, topic.endswith("/compressed")))
        for name, topic in zip(names, topics, strict=True)
    )
