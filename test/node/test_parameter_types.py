from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from litevlm_ros.errors import ConfigError
from litevlm_ros.node.parameter_types import Parameter, unknown_parameters

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("default", "value", "read"),
    [
        (True, False, False),
        (1, 2.0, 2),
        (1.0, 2, 2.0),
        ("a", "b", "b"),
        (["a"], "x, y", ("x", "y")),
        (["a"], ["x", " "], ("x",)),
        (["a"], None, ()),
    ],
)
def test_values_become_the_parameters_type(default: Any, value: Any, read: Any) -> None:
    result = Parameter(default, "").read("x", value)
    assert result == read
    assert type(result) is type(read)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        (Parameter(True, ""), 1, "parameter x must be true or false, not 1"),
        (Parameter(1, ""), True, "must be a number, not True"),
        (Parameter(1, ""), 1.5, "must be a whole number, not 1.5"),
        (Parameter(1, "", 1, 5), 6, "is 6; allowed: whole numbers from 1 to 5"),
        (Parameter(1.0, "", 0.5, 5), 0, "is 0; allowed: numbers from 0.5 to 5"),
        (Parameter(1.0, ""), float("inf"), "must be a number, not inf"),
        (Parameter(1.0, ""), None, "must be a number, not None"),
        (Parameter("a", "", choices=("a", "b")), "c", "is 'c'; allowed: a, b"),
        (Parameter("a", ""), ["a"], r"must be a text, not \['a'\]"),
        (Parameter(["a"], ""), [1], r"must be a list of texts, not \[1\]"),
    ],
)
def test_others_are_refused(parameter: Parameter, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parameter.read("x", value)


def test_descriptors_say_when_a_parameter_may_change() -> None:
    assert Parameter(1, "").descriptor().additional_constraints == "Can be set only while the node is unconfigured."
    assert Parameter(1, "", live=True).descriptor().additional_constraints == ""
    assert Parameter(1, "", read_only=True).descriptor().read_only


def test_unknown_parameters_come_with_the_closest_known_one() -> None:
    given = ["max_frame_agee", "zzz", "max_frame_age", "use_sim_time", "qos_overrides./x.subscription.depth"]
    assert unknown_parameters(given, ["max_frame_age", "cameras"]) == [
        "Parameter max_frame_agee is unknown and ignored; did you mean max_frame_age?",
        "Parameter zzz is unknown and ignored; ros2 param list shows those that there are",
    ]
