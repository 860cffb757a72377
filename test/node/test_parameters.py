from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from litevlm_ros.errors import ConfigError
from litevlm_ros.node.cameras import CameraSource
from litevlm_ros.node.parameter_types import Values
from litevlm_ros.node.parameters import DEMO_CAMERAS, PARAMETERS, NodeSettings, read_node_settings

pytestmark = pytest.mark.ros


def values(**changes: Any) -> Values:
    known = {name: parameter.default for name, parameter in PARAMETERS.items()}
    assert set(changes) <= set(known)
    node: Any = SimpleNamespace(get_parameter=lambda name: SimpleNamespace(value={**known, **changes}[name]))
    return Values(node, PARAMETERS)


def settings(**changes: Any) -> NodeSettings:
    return read_node_settings(values(**changes))


def test_defaults_are_the_demonstrations_cameras() -> None:
    sources = settings().sources
    assert [source.name for source in sources] == list(DEMO_CAMERAS)
    assert sources[1] == CameraSource("front_left", "front_left/image_raw", False)
    assert settings().caption_cameras == set(DEMO_CAMERAS)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"transport": "compressed"}, [("a/image_raw/compressed", True), ("b/image_raw/compressed", True)]),
        ({"camera_topics": ["x", "y/compressed"]}, [("x", False), ("y/compressed", True)]),
        ({"camera_topics": ["x", "y/compressed"], "transport": "raw"}, [("x", False), ("y/compressed", False)]),
        ({"camera_topics": ["x", "y"], "transport": "compressed"}, [("x", True), ("y", True)]),
        ({"transport": "compressed, raw"}, [("a/image_raw/compressed", True), ("b/image_raw", False)]),
        ({"camera_topics": ["x", "y"], "transport": ["auto", "compressed"]}, [("x", False), ("y", True)]),
        ({"camera_topics": []}, [("a/image_raw", False), ("b/image_raw", False)]),
        ({"camera_topics": None}, [("a/image_raw", False), ("b/image_raw", False)]),
        ({"cameras": "a, b"}, [("a/image_raw", False), ("b/image_raw", False)]),
    ],
)
def test_topics_and_transport(changes: dict[str, Any], expected: list[tuple[str, bool]]) -> None:
    sources = settings(**{"cameras": ["a", "b"], **changes}).sources
    assert [source.name for source in sources] == ["a", "b"]
    assert [(source.topic, source.compressed) for source in sources] == expected


def test_numbers_may_be_written_either_way() -> None:
    chosen = settings(caption_period=2, max_frame_age=1, max_query_images=3.0)
    assert (chosen.caption_period, chosen.max_frame_age, chosen.max_query_images) == (2.0, 1.0, 3)
    assert isinstance(chosen.max_query_images, int)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": [""]}, "parameter cameras is empty; name at least one"),
        ({"cameras": [1, 2]}, r"parameter cameras must be a list of texts, not \[1, 2\]"),
        ({"cameras": ["a", "a"]}, "parameter cameras has a name twice: a, a"),
        ({"camera_topics": ["x"]}, "camera_topics has 1 topics for 6 cameras"),
        ({"cameras": ["a"], "camera_topics": ["no spaces"]}, "topic of camera a is not a valid name"),
        ({"cameras": ["front left"]}, "topic of camera front left is not a valid name"),
        ({"transport": "theora"}, "transport is 'theora'; allowed: auto, raw, compressed"),
        ({"max_frame_age": 0}, "max_frame_age is 0; allowed: numbers from 0.001 to 86400"),
        ({"max_frame_age": float("nan")}, "max_frame_age must be a number, not nan"),
        ({"max_frame_age": True}, "max_frame_age must be a number, not True"),
        ({"caption_period": -1.0}, "caption_period is -1; allowed: numbers from 0 to 86400"),
        ({"caption_period": "often"}, "caption_period must be a number, not 'often'"),
        ({"caption_prompt": " "}, "caption_prompt is empty"),
        ({"caption_prompt": 7}, "caption_prompt must be a text, not 7"),
        ({"caption_change_threshold": -1}, "caption_change_threshold is -1; allowed: numbers from 0 to 255"),
        ({"caption_change_threshold": 256.0}, "caption_change_threshold is 256; allowed"),
        ({"caption_max_hold": 0.0}, "caption_max_hold is 0; allowed"),
        ({"caption_cameras": ["top"]}, "caption_cameras names top; cameras has front, "),
        ({"max_query_images": 0}, "max_query_images is 0; allowed: whole numbers from 1 to 100"),
        ({"max_question_chars": 1.5}, "max_question_chars must be a whole number, not 1.5"),
    ],
)
def test_mistakes_name_the_parameter(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_captions_may_be_off_without_a_prompt() -> None:
    assert settings(caption_period=0, caption_prompt="").caption_period == 0


def test_flags() -> None:
    assert values(autostart=False).flag("autostart") is False
    with pytest.raises(ConfigError, match="parameter autostart must be true or false, not 'yes'"):
        values(autostart="yes").flag("autostart")
