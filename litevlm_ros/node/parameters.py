"""The node's own ROS parameters, and the settings they are read into. How is in ros_parameters.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_topic_name import validate_topic_name

from litevlm_ros.config import CAPTION_PROMPT, DEMO_CAMERAS
from litevlm_ros.errors import ConfigError
from litevlm_ros.node.camera_topics import RELIABILITIES
from litevlm_ros.node.cameras import CameraSource
from litevlm_ros.node.frame_clock import FRAME_CLOCKS
from litevlm_ros.node.parameter_types import Parameter, Values

TRANSPORTS = ("auto", "raw", "compressed")
_SHORTEST, _LONGEST = 0.001, 86400.0
"""Seconds: what a duration may be that is not 0."""

PARAMETERS: Mapping[str, Parameter] = {
    "autostart": Parameter(
        True, "Configure and activate at start. false leaves both to a lifecycle manager.", read_only=True
    ),
    # --- cameras
    "cameras": Parameter(list(DEMO_CAMERAS), "Names of the cameras, as captions and queries call them."),
    "camera_topics": Parameter(
        [""], "Image topic of each camera, in the order of `cameras`. Empty: NAME/image_raw in the node's "
        "namespace, or with transport `compressed` NAME/image_raw/compressed."
    ),
    "transport": Parameter(
        ["auto"], "`raw` subscribes to sensor_msgs/Image, `compressed` to sensor_msgs/CompressedImage (JPEG or PNG). "
        "`auto`: compressed where the topic ends in /compressed, else raw. One for all cameras, or one each.",
        choices=TRANSPORTS,
    ),
    "image_reliability": Parameter(
        ["best_effort"], "Quality of service of image subscriptions. `best_effort` receives from publishers of every "
        "kind, `reliable` only from reliable ones. One for all cameras, or one each; "
        "`qos_overrides.TOPIC.subscription` has the last word.", choices=RELIABILITIES,
    ),
    "image_depth": Parameter(
        1, "Images that the middleware keeps until the node looks. Only the newest is used.", 1, 1000
    ),
    "max_frame_age": Parameter(
        2.0, "Seconds since it was taken after which a frame is never used.", _SHORTEST, _LONGEST, live=True
    ),
    "frame_clock": Parameter(
        "auto", "What a frame's age counts from: the `stamp` in its header or its `arrival`. `auto`: the stamp, unless "
        "that is so far from the node's clock that another clock made it.", choices=FRAME_CLOCKS, live=True
    ),
    "max_image_pixels": Parameter(
        64_000_000, "Larger images are refused, from cameras and in queries alike.", 1, 2**30
    ),
    # --- captions
    "caption_period": Parameter(
        1.0, "Seconds from one caption of a camera to its next. 0: no captions.", 0, _LONGEST, live=True
    ),
    "caption_prompt": Parameter(CAPTION_PROMPT, "Instruction that captions follow.", live=True),
    "caption_cameras": Parameter([""], "Cameras to caption, by name. Empty: all.", live=True),
    "caption_change_threshold": Parameter(
        0.0, "Leaves out captions of views that changed less than this since their last one, in levels from 0 to 255 "
        "of a small part's colour. 12 overlooks the noise of most sensors. 0: every view is captioned.", 0, 255,
        live=True,
    ),
    "caption_max_hold": Parameter(
        30.0, "Seconds after which an unchanged view is captioned anyway.", _SHORTEST, _LONGEST, live=True
    ),
    "overlay_width": Parameter(
        960, "Most pixels across a picture on ~/overlay/CAMERA/compressed and ~/overlay/compressed.", 160, 7680,
        live=True,
    ),
    # --- questions
    "max_queued_questions": Parameter(
        16, "Questions that may wait while another one is answered; further ones are told so at once.", 1, 1000,
        live=True,
    ),
    "max_question_chars": Parameter(2000, "Longer questions are refused.", 1, 1_000_000, live=True),
    "max_query_images": Parameter(8, "Most images that may come with one query.", 1, 100, live=True),
}  # fmt: skip


@dataclass(frozen=True)
class NodeSettings:
    """What the node itself needs to know; the model's settings are in config.py."""

    sources: tuple[CameraSource, ...]
    max_frame_age: float
    frame_clock: str
    max_image_pixels: int
    caption_period: float
    caption_prompt: str
    caption_cameras: frozenset[str]
    caption_change_threshold: float
    caption_max_hold: float
    overlay_width: int
    max_queued_questions: int
    max_question_chars: int
    max_query_images: int


def read_node_settings(values: Values) -> NodeSettings:
    """Reads and checks the node's own parameters. Raises ConfigError."""
    sources = _sources(values)
    known = [source.name for source in sources]
    caption_cameras = values.names("caption_cameras") or tuple(known)
    unknown = sorted(set(caption_cameras) - set(known))
    if unknown:
        raise ConfigError(f"parameter caption_cameras names {', '.join(unknown)}; cameras has {', '.join(known)}")
    settings = NodeSettings(
        sources=sources,
        max_frame_age=values.number("max_frame_age"),
        frame_clock=values.text("frame_clock"),
        max_image_pixels=values.integer("max_image_pixels"),
        caption_period=values.number("caption_period"),
        caption_prompt=values.text("caption_prompt").strip(),
        caption_cameras=frozenset(caption_cameras),
        caption_change_threshold=values.number("caption_change_threshold"),
        caption_max_hold=values.number("caption_max_hold"),
        overlay_width=values.integer("overlay_width"),
        max_queued_questions=values.integer("max_queued_questions"),
        max_question_chars=values.integer("max_question_chars"),
        max_query_images=values.integer("max_query_images"),
    )
    if settings.caption_period and not settings.caption_prompt:
        raise ConfigError("parameter caption_prompt is empty; give an instruction, or set caption_period to 0")
    return settings


def _sources(values: Values) -> tuple[CameraSource, ...]:
    names, topics = values.names("cameras"), values.names("camera_topics")
    if not names:
        raise ConfigError("parameter cameras is empty; name at least one camera")
    if len(set(names)) != len(names):
        raise ConfigError(f"parameter cameras has a name twice: {', '.join(names)}")
    if topics and len(topics) != len(names):
        raise ConfigError(
            f"parameter camera_topics has {len(topics)} topics for {len(names)} cameras; give one each, or none"
        )
    transports = _one_each("transport", values, len(names))
    reliabilities = _one_each("image_reliability", values, len(names))
    if not topics:
        suffixes = ["/compressed" if transport == "compressed" else "" for transport in transports]
        topics = tuple(f"{name}/image_raw{suffix}" for name, suffix in zip(names, suffixes, strict=True))
    for name, topic in zip(names, topics, strict=True):
        try:
            validate_topic_name(topic)
        except InvalidTopicNameException as error:
            raise ConfigError(f"the topic of camera {name} is not a valid name: {error}") from None
    compressed = {"raw": False, "compressed": True}
    depth = values.integer("image_depth")
    return tuple(
        CameraSource(name, topic, compressed.get(transport, topic.endswith("/compressed")), reliability, depth)
        for name, topic, transport, reliability in zip(names, topics, transports, reliabilities, strict=True)
    )


def _one_each(parameter: str, values: Values, cameras: int) -> Sequence[str]:
    """A list parameter as one item for each camera; a single item is for all."""
    items = values.names(parameter) or tuple(PARAMETERS[parameter].default)
    if len(items) not in (1, cameras):
        raise ConfigError(f"parameter {parameter} has {len(items)} items for {cameras} cameras; give one, or one each")
    return items if len(items) == cameras else items * cameras
