"""The fields of a question, which a litevlm_ros/Query request and a litevlm_ros/Ask goal have in common.

All of them are read here and nowhere else, with the errors for a client that set them wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sensor_msgs.msg import CompressedImage, Image

from litevlm_ros.config import SamplingConfig
from litevlm_ros.errors import ConfigError, ImageError, printable
from litevlm_ros.node.camera_views import NO_CAMERAS
from litevlm_ros.node.messages import check_image
from litevlm_ros.node.settings import NodeSettings


@dataclass(frozen=True)
class QuestionRequest:
    """One question, checked as far as that needs no camera and no decoding."""

    question: str
    names: tuple[str, ...]
    """Names of cameras, or of `images` if there are some. Empty: all cameras."""
    images: tuple[Image | CompressedImage, ...]
    """Images to ask about instead of the cameras'."""
    text_only: bool
    """True for a question that is about no image."""
    sampling: SamplingConfig
    priority: int
    deadline: float
    """Seconds within which the answer must begin; infinite if there is no limit."""


def read_request(request: Any, settings: NodeSettings, defaults: SamplingConfig) -> QuestionRequest:
    """Reads a litevlm_ros/Query request or a litevlm_ros/Ask goal. `defaults` are those of the node's parameters.

    Raises ConfigError for a field that cannot be what it is, and ImageError for an image that its header shows to be
    malformed.
    """
    question = _question(request.question.strip(), settings.max_question_chars)
    images = (*request.images, *request.compressed_images)
    if len(images) > settings.max_query_images:
        raise ConfigError(f"the query has {len(images)} images; max_query_images allows {settings.max_query_images}")
    names: tuple[str, ...] = tuple(dict.fromkeys(request.cameras))
    text_only = NO_CAMERAS in names
    if text_only:
        _check_none(names, len(images))
    elif images:
        names = tuple(image_names(request.cameras, len(images)))
        _check_images(names, images, settings.max_image_pixels)
    return QuestionRequest(
        question=question,
        names=names,
        images=images,
        text_only=text_only,
        sampling=_sampling(request, defaults),
        # A query has neither of these.
        priority=getattr(request, "priority", 0),
        deadline=_deadline(getattr(request, "deadline", 0.0)),
    )


def forget_images(request: Any) -> None:
    """Lets go of the images of a request that has been read, or refused: rclpy keeps it until its response is sent."""
    request.images = []
    request.compressed_images = []


def image_names(cameras: Sequence[str], count: int) -> list[str]:
    """Returns the names of a question's images: the names in `cameras`, or else image_0, image_1, ...

    Raises ConfigError if there are names, but not a different one for each image.
    """
    if not cameras:
        return [f"image_{index}" for index in range(count)]
    if len(cameras) != count:
        raise ConfigError(f"the query has {count} images but {len(cameras)} names in cameras; give one each, or none")
    if len(set(cameras)) != count:
        raise ConfigError(f"two images have the same name in cameras ({printable(', '.join(cameras))})")
    return list(cameras)


def _question(question: str, most: int) -> str:
    if not question:
        raise ConfigError("the question is empty")
    if len(question) > most:
        raise ConfigError(f"the question has {len(question)} characters; max_question_chars allows {most}")
    return question


def _check_none(names: Sequence[str], images: int) -> None:
    """Raises ConfigError unless a question that is about no image says just that."""
    if images:
        raise ConfigError(f"cameras names an image {NO_CAMERAS}, which stands for no image; give it another name")
    if len(names) > 1:
        others = printable(", ".join(name for name in names if name != NO_CAMERAS))
        raise ConfigError(
            f"cameras has {NO_CAMERAS}, which stands for no camera, beside {others}; leave one of them out"
        )


def _check_images(names: Sequence[str], images: Sequence[Image | CompressedImage], max_pixels: int) -> None:
    """Raises ImageError, with the name of the image, for what can be found out without decoding."""
    for name, image in zip(names, images, strict=True):
        try:
            check_image(image, max_pixels=max_pixels)
        except ImageError as error:
            raise ImageError(f"{printable(name)}: {error}") from None


def _sampling(request: Any, defaults: SamplingConfig) -> SamplingConfig:
    """Returns the sampling that a request asks for, whose zeros stand for defaults. Raises ConfigError."""
    return replace(
        defaults,
        max_new_tokens=request.max_new_tokens or defaults.max_new_tokens,
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p or 1.0,
        seed=request.seed or None,
    )


def _deadline(seconds: float) -> float:
    if not seconds >= 0:
        raise ConfigError(f"deadline is {seconds:g}; allowed: seconds from 0, which stands for none")
    return seconds or math.inf
