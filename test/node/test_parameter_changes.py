"""The parameters of a running node, over DDS."""

# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

from typing import Any

import pytest
import yaml

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from lifecycle_bench import Bench
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros_process import Client, image, wait_for

from litevlm_ros.config import SamplingConfig
from litevlm_ros.msg import Caption
from litevlm_ros.node.parameter_changes import unknown_parameters
from litevlm_ros.node.parameters import PARAMETERS

pytestmark = pytest.mark.ros


def set_parameter(client: Client, name: str, value: Any) -> Any:
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return client.call(SetParameters, "/litevlm/set_parameters", request).results[0]


def set_together(client: Client, changes: dict[str, Any]) -> Any:
    parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in changes.items()]
    request = SetParametersAtomically.Request(parameters=parameters)
    return client.call(SetParametersAtomically, "/litevlm/set_parameters_atomically", request).result


def test_a_bad_parameter_is_explained_and_can_be_corrected(bench: Bench) -> None:
    bench.start(max_frame_age=-1.0)
    client = bench.client
    assert client.state() == "unconfigured"
    assert client.ask("?").error == (
        "/litevlm could not be configured: parameter max_frame_age is -1; allowed: numbers from 0.001 to 86400"
    )
    assert set_parameter(client, "max_frame_age", 2.0).successful
    assert client.change_state("configure")
    refused = set_parameter(client, "max_tiles", 2)
    assert not refused.successful
    assert refused.reason == (
        "max_tiles can only be set while the node is unconfigured: ros2 lifecycle set /litevlm deactivate, then "
        "cleanup; afterwards configure and activate"
    )
    assert set_parameter(client, "max_tiles", 1).successful, "it has this value"
    assert client.change_state("cleanup")
    assert set_parameter(client, "max_tiles", 2).successful


def test_live_parameters_change_while_it_runs(bench: Bench) -> None:
    bench.start(caption_period=0.01, temperature=0.5)
    captions = bench.client.listen(Caption, "/litevlm/caption")
    publisher = bench.publish("front", image(7))

    def captioned(prompt: str) -> bool:
        publisher.publish(image(7))
        bench.client.spin(0.02)
        return bool(captions) and captions[-1].prompt == prompt

    wait_for(lambda: captioned("Describe the scene."))
    assert set_parameter(bench.client, "caption_prompt", "What moves?").successful
    wait_for(lambda: captioned("What moves?"))
    assert set_parameter(bench.client, "max_new_tokens", 7).successful
    assert bench.client.ask("?", images=[image()]).success
    sampled = [sampling for *_, sampling in bench.pipeline.calls if sampling is not None]
    assert sampled[-1].max_new_tokens == 7, "the question's; captions go on meanwhile"
    assert bench.pipeline.config.sampling == SamplingConfig(max_new_tokens=7, temperature=0.5)
    assert set_parameter(bench.client, "max_question_chars", 3).successful
    assert "max_question_chars allows 3" in bench.client.ask("What?").error


def test_a_set_of_parameters_is_taken_over_whole_or_not_at_all(bench: Bench) -> None:
    bench.start()
    for changes, reason in (
        ({"caption_period": 2.0, "max_frame_age": -1.0}, "max_frame_age"),
        ({"caption_period": 2, "caption_prompt": ""}, "parameter caption_prompt is empty; give an instruction, or set"),
        ({"caption_period": 2.0, "caption_cameras": ["top"]}, "parameter caption_cameras names top; cameras has front"),
        ({"caption_period": 2.0, "view_selection_phrases": ["hand"]}, "view_selection_phrases has 'hand'"),
        ({"caption_period": 2.0, "top_k": "many"}, "parameter top_k must be a number, not 'many'"),
        ({"caption_period": 2.0, "threads": 3}, "threads can only be set while the node is unconfigured"),
        ({"caption_period": 2.0, "autostart": False}, "read-only"),
    ):
        result = set_together(bench.client, changes)
        assert not result.successful
        assert reason in result.reason
        assert bench.node.get_parameter("caption_period").value == 0.0
    assert set_together(bench.client, {"caption_period": 2, "caption_prompt": "Go.", "top_p": 1}).successful
    bench.client.wait_for(lambda: bench.node._activity.captioner.settings.caption_period == 2.0)
    assert bench.node._activity.captioner.settings.caption_prompt == "Go."


def test_a_parameter_cannot_be_deleted(bench: Bench) -> None:
    bench.start()
    reason = set_parameter(bench.client, "caption_prompt", None).reason
    assert reason == "parameter caption_prompt cannot be without a value; an empty list is written ['']"
    assert set_parameter(bench.client, "use_sim_time", True).successful
    assert bench.client.ask("?", images=[image(1)]).success


PRE_SET = pytest.mark.skipif(not hasattr(Node, "add_pre_set_parameters_callback"), reason="Humble stores what was set")


def test_values_are_stored_in_their_types(bench: Bench) -> None:
    bench.start(
        view_selection=False, speculation=False, caption_period=2, max_tiles=1.0, cameras="a, b", model_dir=2024,
        camera_topics=[], caption_cameras=None,
    )  # fmt: skip
    stored = {name: bench.node.get_parameter(name).value for name in PARAMETERS}
    assert stored["view_selection"] == stored["speculation"] == "off"
    assert stored["cameras"] == ["a", "b"]
    assert stored["camera_topics"] == stored["caption_cameras"] == [""]
    assert stored["model_dir"] == "2024"
    assert {name: type(value) for name, value in stored.items()} == {
        name: type(parameter.default) for name, parameter in PARAMETERS.items()
    }
    assert bench.client.state() == "active"


@PRE_SET
def test_what_is_set_is_stored_in_its_type(bench: Bench) -> None:
    bench.start(autostart=False)
    for name, value, stored in (
        ("token_selection", False, "off"),
        ("caption_period", 3, 3.0),
        ("max_tiles", 2.0, 2),
        ("caption_cameras", [], [""]),
        ("caption_cameras", [7], ["7"]),
        ("caption_cameras", "front", ["front"]),
        ("system_prompt", 7, "7"),
    ):
        assert set_parameter(bench.client, name, value).successful
        assert bench.node.get_parameter(name).value == stored
        assert type(bench.node.get_parameter(name).value) is type(stored)
    refused = set_parameter(bench.client, "token_selection", True)
    assert refused.reason.startswith(
        "parameter token_selection is true, as YAML reads on, yes and true; allowed: off, "
    )


def test_what_is_dumped_can_be_loaded(bench: Bench) -> None:
    """`ros2 param load` reads each value a second time as YAML, so that 'off' arrives as false and '7' as 7."""
    bench.start(cameras=["front", "7"], camera_topics=["x", "w"])
    dumped = {name: bench.node.get_parameter(name).value for name in PARAMETERS if not PARAMETERS[name].read_only}
    for name, value in dumped.items():
        loaded = yaml.safe_load(str(value)) if value != "" else ""
        result = set_parameter(bench.client, name, loaded)
        assert result.successful, result.reason
    assert {name: bench.node.get_parameter(name).value for name in dumped} == dumped


@PRE_SET
def test_a_misspelt_name_is_set_in_vain_and_told(bench: Bench) -> None:
    bench.start(autostart=False)
    reason = set_parameter(bench.client, "max_frame_agee", 2.0).reason
    assert reason == "Parameter max_frame_agee is unknown and ignored; did you mean max_frame_age?"
    assert "did you mean max_tiles?" in set_together(bench.client, {"max_tile": 2, "max_tiles": 2}).reason
    reason = set_parameter(bench.client, "qos_overrides./x.subscription.depth", 2).reason
    assert reason == "qos_overrides./x.subscription.depth can only be given at the start"


def test_everything_that_is_wrong_is_told_at_once(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    front = "qos_overrides./front/image_raw.subscription"
    bench.start(
        max_frame_age=-1.0, view_selection=True, max_tile=2, camera_topics=["/a", "/b", "/c"],
        **{f"{front}.reliability": "best", f"{front}.depht": 1},
    )  # fmt: skip
    told = (
        "6 things about the parameters are wrong:\n"
        "- parameter max_frame_age is -1; allowed: numbers from 0.001 to 86400\n"
        "- parameter view_selection is true, as YAML reads on, yes and true; allowed: off, lexical, learned\n"
        "- parameter camera_topics has 3 topics for 2 cameras; give one each, or none\n"
        f"- parameter {front}.reliability is 'best'; allowed: system_default, reliable, best_effort"
    )
    answer = bench.client.ask("?").error
    assert answer.startswith(f"/litevlm could not be configured: {told}")
    assert "\n- Parameter max_tile is unknown and ignored; did you mean max_tiles?\n" in answer
    assert f"\n- Parameter {front}.depht has no effect: the policies that can be overridden are history, " in answer
    assert capfd.readouterr().err.count("max_tile is unknown") == 1
    set_parameter(bench.client, "max_frame_age", 2.0)
    assert bench.client.change_state("configure") is False
    assert "max_tile is unknown" not in bench.client.ask("?").error, "it has been told"
    result = set_together(bench.client, {"max_frame_age": -1.0, "caption_period": "x", "caption_prompt": None})
    assert result.reason.count("\n- parameter ") == 3


def test_unknown_parameters_come_with_the_closest_known_one() -> None:
    given = ["max_frame_agee", "zzz", "max_frame_age", "use_sim_time", "qos_overrides./x.subscription.depth"]
    assert unknown_parameters(given, ["max_frame_age", "cameras"]) == [
        "Parameter max_frame_agee is unknown and ignored; did you mean max_frame_age?",
        "Parameter zzz is unknown and ignored; ros2 param list shows those that there are",
    ]


def test_unknown_parameters_are_reported(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.start(max_frame_agee=2.0, use_sim_time=False, **{"qos_overrides./front/image_raw.subscription.depth": 2})
    assert bench.client.state() == "active"
    log = capfd.readouterr().err
    assert "Parameter max_frame_agee is unknown and ignored; did you mean max_frame_age?" in log
    assert log.count("is unknown") == 1


def test_every_parameter_is_described_with_its_range(bench: Bench) -> None:
    bench.start(autostart=False, caption_period=-2.0, top_p=3.0)
    names = list(PARAMETERS)
    request = DescribeParameters.Request(names=names)
    described = bench.client.call(DescribeParameters, "/litevlm/describe_parameters", request).descriptors
    assert [descriptor.name for descriptor in described] == names
    assert all(descriptor.description for descriptor in described)
    by_name = {descriptor.name: descriptor for descriptor in described}
    tokens = by_name["max_new_tokens"].integer_range[0]
    assert (tokens.from_value, tokens.to_value) == (1, 2**20)
    age = by_name["max_frame_age"].floating_point_range[0]
    assert (age.from_value, age.to_value) == (0.001, 86400.0)
    assert by_name["transport"].additional_constraints == (
        "One of: auto, raw, compressed. Can be set only while the node is unconfigured."
    )
    assert by_name["caption_prompt"].additional_constraints == ""
    assert by_name["autostart"].read_only
    types = {
        bool: ParameterType.PARAMETER_BOOL,
        int: ParameterType.PARAMETER_INTEGER,
        float: ParameterType.PARAMETER_DOUBLE,
        str: ParameterType.PARAMETER_STRING,
        list: ParameterType.PARAMETER_STRING_ARRAY,
    }
    expected = {name: types[type(parameter.default)] for name, parameter in PARAMETERS.items()}
    assert {name: descriptor.type for name, descriptor in by_name.items()} == expected
    # Values out of range neither end the node nor stay unnoticed, and can be corrected.
    assert bench.client.change_state("configure") is False
    assert "parameter caption_period is -2; allowed: numbers from 0 to 86400" in bench.client.ask("?").error
    assert set_parameter(bench.client, "caption_period", 1).successful
    assert bench.client.change_state("configure") is False
    assert "parameter top_p is 3" in bench.client.ask("?").error
    assert not set_parameter(bench.client, "top_p", 2.0).successful
    assert set_parameter(bench.client, "top_p", 1.0).successful
    assert bench.client.change_state("configure")
