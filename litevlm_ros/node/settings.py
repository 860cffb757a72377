"""The settings that the ROS parameters amount to: NodeSettings for the node itself, PipelineConfig for the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_topic_name import validate_topic_name

from litevlm_ros.config import (
    PipelineConfig,
    ReuseConfig,
    SamplingConfig,
    SpeculationConfig,
    TokenSelectionConfig,
    ViewSelectionConfig,
)
from litevlm_ros.errors import ConfigError, first_line
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.node.camera_views import NO_CAMERAS
from litevlm_ros.node.cameras import CameraSource
from litevlm_ros.node.parameter_types import Values, mistakes
from litevlm_ros.node.parameters import PARAMETERS


@dataclass(frozen=True)
class NodeSettings:
    """The parameters of bond, cameras, captions and questions, of the same names. `sources` has one entry for each
    camera."""

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
    bond_heartbeat_period: float = 0.0


def read_node_settings(values: Values) -> NodeSettings:
    """Reads the parameters of the node itself. Raises ConfigError if one is wrong or they contradict each other."""
    return NodeSettings(
        bond_heartbeat_period=values.number("bond_heartbeat_period"),
        sources=read_sources(values),
        max_frame_age=values.number("max_frame_age"),
        frame_clock=values.text("frame_clock"),
        max_image_pixels=values.integer("max_image_pixels"),
        caption_period=values.number("caption_period"),
        caption_prompt=_caption_prompt(values),
        caption_cameras=_caption_cameras(values),
        caption_change_threshold=values.number("caption_change_threshold"),
        caption_max_hold=values.number("caption_max_hold"),
        overlay_width=values.integer("overlay_width"),
        max_queued_questions=values.integer("max_queued_questions"),
        max_question_chars=values.integer("max_question_chars"),
        max_query_images=values.integer("max_query_images"),
    )


def read_pipeline_config(values: Values) -> PipelineConfig:
    """Reads the parameters of the model. Raises ConfigError if one is wrong."""
    engine_dir = values.text("engine_dir")
    try:
        return PipelineConfig(
            model_dir=_model_directory(values.text("model_dir")),
            engine_dir=Path(engine_dir).expanduser() if engine_dir else None,
            backend=values.text("backend"),
            vision_precision=values.text("vision_precision"),
            text_precision=values.text("text_precision"),
            decode=values.text("decode"),
            memory_budget_mb=values.integer("memory_budget_mb"),
            max_context=values.integer("max_context"),
            max_tiles=values.integer("max_tiles"),
            threads=values.integer("threads"),
            system_prompt=values.text("system_prompt") or None,
            view_label=values.text("view_label"),
            stitch_views=values.flag("stitch_views"),
            sampling=SamplingConfig(
                max_new_tokens=values.integer("max_new_tokens"),
                temperature=values.number("temperature"),
                top_k=values.integer("top_k"),
                top_p=values.number("top_p"),
                repetition_penalty=values.number("repetition_penalty"),
            ),
            speculation=SpeculationConfig(values.text("speculation"), values.integer("speculation_tokens")),
            reuse=ReuseConfig(values.integer("reuse_frames")),
            view_selection=ViewSelectionConfig(
                method=values.text("view_selection"),
                threshold=values.number("view_selection_threshold"),
                phrases=_phrases(values.names("view_selection_phrases")),
            ),
            token_selection=TokenSelectionConfig(values.text("token_selection"), values.number("token_selection_keep")),
        )
    except ConfigError as error:
        raise ConfigError(f"parameter {str(error).removeprefix('parameter ')}") from None


def read_sources(values: Values) -> tuple[CameraSource, ...]:
    """Reads the parameters of the cameras. Raises ConfigError if one is wrong or they contradict each other."""
    names = _camera_names(values)
    topics = _camera_topics(values)
    transports = _one_each("transport", values)
    reliabilities = _one_each("image_reliability", values)
    if not topics:
        suffixes = ["/compressed" if transport == "compressed" else "" for transport in transports]
        topics = tuple(f"{name}/image_raw{suffix}" for name, suffix in zip(names, suffixes, strict=True))
    for name, topic in zip(names, topics, strict=True):
        try:
            validate_topic_name(topic)
        except InvalidTopicNameException as error:
            reason = first_line(error).removeprefix("Invalid topic name: ").rstrip(":")
            raise ConfigError(
                f"the topic of camera {name} is not a valid name: {topic!r}, but {reason}. Correct camera_topics, or "
                "rename the camera"
            ) from None
    compressed = {"raw": False, "compressed": True}
    depth = values.integer("image_depth")
    return tuple(
        CameraSource(name, topic, compressed.get(transport, topic.endswith("/compressed")), reliability, depth)
        for name, topic, transport, reliability in zip(names, topics, transports, reliabilities, strict=True)
    )


def contradictions(values: Values) -> list[str]:
    """Returns one sentence for each parameter that does not fit the others, though it is right by itself."""
    wrong = mistakes(partial(_camera_names, values))
    if not wrong:
        each = (partial(_one_each, name, values) for name in ("transport", "image_reliability"))
        wrong = mistakes(partial(_camera_topics, values), *each) or mistakes(partial(read_sources, values))
        wrong += mistakes(partial(_caption_cameras, values))
    return wrong + mistakes(partial(_caption_prompt, values), partial(read_pipeline_config, values))


def _camera_names(values: Values) -> tuple[str, ...]:
    names = values.names("cameras")
    if not names:
        raise ConfigError("parameter cameras is empty; name at least one camera")
    if len(set(names)) != len(names):
        raise ConfigError(f"parameter cameras has a name twice: {', '.join(names)}")
    if NO_CAMERAS in names:
        raise ConfigError(
            f"parameter cameras has the name {NO_CAMERAS}, by which a question says that it needs no camera; rename it"
        )
    return names


def _camera_topics(values: Values) -> tuple[str, ...]:
    names, topics = values.names("cameras"), values.names("camera_topics")
    if topics and len(topics) != len(names):
        raise ConfigError(
            f"parameter camera_topics has {len(topics)} topics for {len(names)} cameras; give one each, or none"
        )
    return topics


def _caption_cameras(values: Values) -> frozenset[str]:
    known = values.names("cameras")
    chosen = values.names("caption_cameras") or known
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise ConfigError(f"parameter caption_cameras names {', '.join(unknown)}; cameras has {', '.join(known)}")
    return frozenset(chosen)


def _caption_prompt(values: Values) -> str:
    prompt = values.text("caption_prompt").strip()
    if values.number("caption_period") and not prompt:
        raise ConfigError("parameter caption_prompt is empty; give an instruction, or set caption_period to 0")
    return prompt


def _one_each(parameter: str, values: Values) -> Sequence[str]:
    """Returns one item of a list parameter for each camera. A single item is repeated for all."""
    cameras = len(values.names("cameras"))
    items = values.names(parameter) or tuple(PARAMETERS[parameter].default)
    if len(items) not in (1, cameras):
        raise ConfigError(f"parameter {parameter} has {len(items)} items for {cameras} cameras; give one, or one each")
    return items if len(items) == cameras else items * cameras


def _model_directory(model_dir: str) -> Path:
    if model_dir:
        return Path(model_dir).expanduser()
    try:
        return demo_model_directory()
    except ConfigError as error:
        raise ConfigError(f"model_dir is empty, but {error}") from None


def _phrases(entries: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns {'gripper': ('hand', 'tool')} for the entry `gripper: hand, tool`. Raises ConfigError."""
    phrases = {}
    for entry in entries:
        camera, colon, words = entry.partition(":")
        if not colon or not camera.strip():
            raise ConfigError(f"view_selection_phrases has {entry!r}; allowed: CAMERA: PHRASE, PHRASE. Add the colon")
        phrases[camera.strip()] = tuple(word.strip() for word in words.split(","))
    return phrases
