from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from litevlm_ros.node.qos_overrides import check_overrides

pytestmark = pytest.mark.ros

TOPICS = ["/front/image_raw", "/back/image_raw"]
FRONT = "qos_overrides./front/image_raw.subscription"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tiles", "many"),
        (f"{FRONT}.reliability", "reliable"),
        (f"{FRONT}.reliability", "BEST_EFFORT"),
        (f"{FRONT}.history", "keep_all"),
        (f"{FRONT}.depth", 5),
    ],
)
def test_right_ones_are_not_mentioned(name: str, value: Any) -> None:
    findings = check_overrides({name: value}, TOPICS)
    assert (findings.wrong, findings.useless) == ([], [])


@pytest.mark.parametrize(
    ("policy", "value", "allowed"),
    [
        ("reliability", "besteffort", "system_default, reliable, best_effort"),
        ("reliability", False, "system_default, reliable, best_effort"),
        ("history", "all", "system_default, keep_last, keep_all"),
        ("depth", 0, "whole numbers from 1"),
        ("depth", 2.0, "whole numbers from 1"),
        ("depth", True, "whole numbers from 1"),
    ],
)
def test_a_wrong_value_is_told_with_those_that_are_allowed(policy: str, value: Any, allowed: str) -> None:
    (told,) = check_overrides({f"{FRONT}.{policy}": value}, TOPICS).wrong
    assert told.startswith(f"parameter {FRONT}.{policy} is {value!r}; allowed: {allowed}")
    assert told.endswith(". Correct it and start the node again")


def test_without_known_topics_only_values_are_checked() -> None:
    findings = check_overrides({f"{FRONT}.depth": 0, f"{FRONT}.history": "keep_all"}, None)
    assert (len(findings.wrong), findings.useless) == (1, [])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "qos_overrides./frnt/image_raw.subscription.depth",
            "/frnt/image_raw is the topic of no camera; did you mean /front/",
        ),
        (
            "qos_overrides./lidar.subscription.depth",
            "/lidar is the topic of no camera; they have /front/image_raw, /back/",
        ),
        ("qos_overrides./front/image_raw.publisher.depth", "written qos_overrides.TOPIC.subscription.POLICY"),
        ("qos_overrides.depth", "written qos_overrides.TOPIC.subscription.POLICY"),
        (f"{FRONT}.reliabilty", "the policies that can be overridden are history, depth, reliability"),
    ],
)
def test_one_without_effect_is_told_with_the_reason(name: str, reason: str) -> None:
    findings = check_overrides({name: "anything"}, TOPICS)
    assert findings.wrong == []
    (told,) = findings.useless
    assert told.startswith(f"Parameter {name} has no effect: ")
    assert reason in told
