from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from ros_process import compressed, image

from litevlm_ros.action import Ask
from litevlm_ros.config import SamplingConfig
from litevlm_ros.errors import ConfigError, ImageError
from litevlm_ros.node.question_request import forget_images, image_names, read_request
from litevlm_ros.node.settings import NodeSettings
from litevlm_ros.srv import Query

pytestmark = pytest.mark.ros

SETTINGS = NodeSettings.__new__(NodeSettings)
for name, value in {"max_image_pixels": 100, "max_question_chars": 20, "max_query_images": 2}.items():
    object.__setattr__(SETTINGS, name, value)
DEFAULTS = SamplingConfig(max_new_tokens=33, temperature=0.7, top_k=4, repetition_penalty=1.3)


@pytest.mark.parametrize("kind", [Query.Request, Ask.Goal])
def test_an_empty_request_asks_all_cameras_with_the_defaults(kind: Any) -> None:
    asked = read_request(kind(question=" Well? "), SETTINGS, DEFAULTS)
    assert (asked.question, asked.names, asked.images, asked.text_only) == ("Well?", (), (), False)
    assert asked.sampling == replace(DEFAULTS, temperature=0.0, top_k=0)
    assert (asked.priority, asked.deadline) == (0, math.inf)


def test_a_goal_has_a_priority_and_a_deadline() -> None:
    asked = read_request(Ask.Goal(question="?", priority=-3, deadline=1.5), SETTINGS, DEFAULTS)
    assert (asked.priority, asked.deadline) == (-3, 1.5)


def test_both_kinds_of_images_and_their_names() -> None:
    raw, packed = image(1), compressed(2)
    asked = read_request(Query.Request(question="?", images=[raw], compressed_images=[packed]), SETTINGS, DEFAULTS)
    assert asked.images == (raw, packed)
    assert asked.names == ("image_0", "image_1")
    named = Query.Request(question="?", cameras=["a", "b"], images=[raw], compressed_images=[packed])
    assert read_request(named, SETTINGS, DEFAULTS).names == ("a", "b")
    forget_images(named)
    assert (list(named.images), list(named.compressed_images)) == ([], [])


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"images": [image()], "compressed_images": [compressed()] * 2}, ConfigError, "3 images; max_query_images"),
        ({"compressed_images": [compressed()] * 3}, ConfigError, "3 images; max_query_images allows 2"),
        ({"compressed_images": [compressed()] * 2, "cameras": ["a"]}, ConfigError, "2 images but 1 names"),
        ({"images": [image()], "compressed_images": [compressed()], "cameras": ["a"] * 2}, ConfigError, "same name"),
        ({"compressed_images": [compressed()], "cameras": ["none"]}, ConfigError, "names an image none"),
        ({"images": [image()], "compressed_images": [type(compressed())()]}, ImageError, "image_1: .*no data"),
        ({"compressed_images": [compressed()], "cameras": ["\n"], "images": []}, None, ""),
        ({"images": [image(width=20, height=6)]}, ImageError, "image_0: .*allowed 100 pixels"),
    ],
)
def test_wrong_images_are_told_before_they_wait(
    fields: dict[str, Any], error: type[Exception] | None, message: str
) -> None:
    request = Query.Request(question="?", **fields)
    if error is None:
        read_request(request, SETTINGS, DEFAULTS)
        return
    with pytest.raises(error, match=message):
        read_request(request, SETTINGS, DEFAULTS)


def test_images_of_a_query_are_named() -> None:
    assert image_names([], 2) == ["image_0", "image_1"]
    assert image_names(["a", "b"], 2) == ["a", "b"]
    with pytest.raises(ValueError, match="2 images but 1 names"):
        image_names(["a"], 2)
    with pytest.raises(ValueError, match=re.escape("same name in cameras (a, a)")):
        image_names(["a", "a"], 2)
