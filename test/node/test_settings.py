from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from litevlm_ros import model_directory
from litevlm_ros.config import (
    DEMO_CAMERAS,
    SETTINGS,
    PipelineConfig,
    ReuseConfig,
    SamplingConfig,
    SpeculationConfig,
    TokenSelectionConfig,
    ViewSelectionConfig,
)
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.node.cameras import CameraSource
from litevlm_ros.node.parameter_types import Values
from litevlm_ros.node.parameters import PARAMETERS
from litevlm_ros.node.settings import NodeSettings, contradictions, read_node_settings, read_pipeline_config

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
        ({"cameras": []}, "parameter cameras is empty; name at least one"),
        (
            {"cameras": [1, 2]},
            "the topic of camera 1 is not a valid name: '1/image_raw', but topic name token must not start with a "
            "number. Correct camera_topics, or rename the camera",
        ),
        ({"cameras": [1.5]}, r"parameter cameras is the number 1\.5; if a text is meant, put it in quotes"),
        ({"cameras": ["a", "a"]}, "parameter cameras has a name twice: a, a"),
        ({"cameras": ["a", "none"]}, "parameter cameras has the name none, by which a question says .*; rename it"),
        ({"camera_topics": ["x"]}, "camera_topics has 1 topics for 6 cameras"),
        ({"cameras": ["a"], "camera_topics": ["no spaces"]}, "topic of camera a is not a valid name"),
        ({"cameras": ["front left"]}, "topic of camera front left is not a valid name"),
        ({"transport": "theora"}, "transport is 'theora'; allowed: auto, raw, compressed"),
        ({"max_frame_age": 0}, "max_frame_age is 0; allowed: numbers from 0.001 to 86400"),
        ({"max_frame_age": float("nan")}, "max_frame_age must be a number, not nan"),
        ({"max_frame_age": True}, "max_frame_age must be a number, not true"),
        ({"caption_period": -1.0}, "caption_period is -1; allowed: numbers from 0 to 86400"),
        ({"caption_period": "often"}, "caption_period must be a number, not 'often'"),
        ({"caption_prompt": " "}, "caption_prompt is empty"),
        ({"caption_prompt": 7.5}, "caption_prompt is the number 7.5"),
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


def test_all_contradictions_are_told() -> None:
    found = contradictions(
        values(
            cameras=["a", "b"], camera_topics=["x"], transport=["raw"] * 3, image_reliability=["reliable"] * 4,
            caption_cameras=["c"], caption_prompt="", view_selection_phrases=["hand"],
        )
    )  # fmt: skip
    told = " ".join(sentence.split()[1] for sentence in found)
    assert told == "camera_topics transport image_reliability caption_cameras caption_prompt view_selection_phrases"
    assert contradictions(values(cameras=[], camera_topics=["x"])) == [
        "parameter cameras is empty; name at least one camera"
    ]
    assert contradictions(values()) == []


def test_captions_may_be_off_without_a_prompt() -> None:
    assert settings(caption_period=0, caption_prompt="").caption_period == 0


def test_flags() -> None:
    assert values(autostart=False).flag("autostart") is False
    with pytest.raises(ConfigError, match="parameter autostart must be true or false, not 'yes'"):
        values(autostart="yes").flag("autostart")


# --- the model


def config(**changes: Any) -> PipelineConfig:
    return read_pipeline_config(values(**changes))


def test_defaults_are_those_of_the_pipeline() -> None:
    directory = demo_model_directory()
    assert (directory / "text_decoder" / "config.json").exists()
    assert config() == PipelineConfig(model_dir=directory)


def test_every_parameter_arrives() -> None:
    assert config(
        model_dir="/some/where", engine_dir="/else/where", vision_precision="int8", text_precision="int4",
        memory_budget_mb=3000, backend="onnxruntime", threads=3, max_tiles=4.0, max_context=900, system_prompt="Be.",
        decode="engine", view_label="{camera}: ", stitch_views=True,
        max_new_tokens=9, temperature=1, top_k=5, top_p=0.5, repetition_penalty=1.2,
        speculation="ngram", speculation_tokens=7, reuse_frames=3,
        view_selection="lexical", view_selection_threshold=0.3, view_selection_phrases=["hand: gripper, tool"],
        token_selection="diversity", token_selection_keep=0.25,
    ) == PipelineConfig(
        model_dir=Path("/some/where"), engine_dir=Path("/else/where"), vision_precision="int8", text_precision="int4",
        memory_budget_mb=3000, backend="onnxruntime", threads=3, max_tiles=4, max_context=900,
        decode="engine", system_prompt="Be.", view_label="{camera}: ", stitch_views=True,
        sampling=SamplingConfig(9, 1.0, 5, 0.5, 1.2),
        speculation=SpeculationConfig("ngram", 7), reuse=ReuseConfig(3),
        view_selection=ViewSelectionConfig("lexical", 0.3, {"hand": ("gripper", "tool")}),
        token_selection=TokenSelectionConfig("diversity", 0.25),
    )  # fmt: skip


def test_the_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/robot")
    assert config(model_dir="~/models").model_dir == Path("/home/robot/models")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "magic"}, "^parameter backend is 'magic'; allowed: auto"),
        ({"max_tiles": 0}, "^parameter max_tiles is 0"),
        ({"top_p": 2.0}, "^parameter top_p is 2; allowed: numbers from 0.001 to 1"),
        ({"reuse_frames": -1}, "^parameter reuse_frames is -1"),
        ({"speculation": "magic"}, "^parameter speculation is 'magic'; allowed: off, ngram"),
        ({"speculation_tokens": 16}, "^parameter speculation_tokens is 16; allowed: whole numbers from 1 to 15"),
        ({"view_selection": "magic"}, "^parameter view_selection is 'magic'; allowed: off, lexical, learned"),
        ({"view_selection_phrases": ["hand"]}, "^parameter view_selection_phrases has 'hand'; allowed: CAMERA: PHRASE"),
        ({"view_selection_phrases": ["hand: a,,b"]}, "^parameter view_selection_phrases of hand is "),
        ({"token_selection": "magic"}, "^parameter token_selection is 'magic'; allowed: off, random, diversity"),
        ({"token_selection_keep": 1.5}, "^parameter token_selection_keep is 1.5; allowed: numbers from 0.001 to 1"),
        ({"threads": 1.5}, "^parameter threads must be a whole number, not 1.5"),
        (
            {"system_prompt": True},
            "^parameter system_prompt is true, as YAML reads words such as on and yes; if a text",
        ),
        (
            {"view_label": "{name}: "},
            "^parameter view_label is '{name}: '; allowed: a text without braces but those of",
        ),
        ({"stitch_views": "yes"}, "^parameter stitch_views must be true or false, not 'yes'"),
    ],
)
def test_mistakes_in_the_model_name_the_parameter(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


@pytest.mark.parametrize("name", [name for name in SETTINGS if PARAMETERS[name].low is not None])
def test_the_pipeline_takes_all_of_a_range(name: str) -> None:
    parameter = PARAMETERS[name]
    config(**{name: parameter.low})
    config(**{name: parameter.high})


def test_a_missing_demo_model_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_directory, "_DEMO_MODEL", Path("models") / "nothing")
    with pytest.raises(
        ConfigError, match=r"model_dir is empty, but the demo model is not installed: .*looked in .*nothing"
    ):
        config()
