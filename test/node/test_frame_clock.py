from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from builtin_interfaces.msg import Time

from litevlm_ros.node.frame_clock import FrameClock, Instant

pytestmark = pytest.mark.ros


class Clock:
    """A node's clock that shows what a test sets."""

    def __init__(self, seconds: float, simulated: bool = False) -> None:
        self.seconds = seconds
        self.ros_time_is_active = simulated

    def now(self) -> Any:
        return SimpleNamespace(nanoseconds=int(self.seconds * 1e9))


@pytest.mark.parametrize(
    ("counts_from", "since_stamp", "delay"),
    [
        ("auto", 0.25, 0.25),
        ("auto", 59.0, 59.0),
        ("auto", -0.5, 0.0),  # a clock slightly ahead
        ("auto", 61.0, 0.0),
        ("auto", -1.5, 0.0),
        ("auto", math.nan, 0.0),
        ("stamp", 61.0, 61.0),
        ("stamp", -5.0, 0.0),
        ("stamp", math.nan, 0.0),
        ("arrival", 0.25, 0.0),
    ],
)
def test_how_much_of_an_age_a_stamp_tells(counts_from: str, since_stamp: float, delay: float) -> None:
    assert FrameClock(Clock(100.0), counts_from).delay(since_stamp) == delay


def test_stamps_are_compared_with_the_nodes_clock() -> None:
    clock = FrameClock(Clock(100.0))
    assert clock.since(Time(sec=98, nanosec=500_000_000)) == pytest.approx(1.5)
    assert clock.since(Time(sec=101)) == pytest.approx(-1.0)
    assert math.isnan(clock.since(Time()))


def test_simulated_time_counts_where_there_is_one() -> None:
    assert FrameClock(Clock(100.0)).now().simulated is None
    assert FrameClock(Clock(0.0, simulated=True)).now().simulated is None, "/clock has not begun"
    assert FrameClock(Clock(7.0, simulated=True)).now().simulated == 7.0


def test_seconds_between_two_instants() -> None:
    assert Instant(10.0, None).seconds_until(Instant(12.0, None)) == 2.0
    assert Instant(10.0, 5.0).seconds_until(Instant(99.0, 5.5)) == 0.5
    assert Instant(10.0, None).seconds_until(Instant(12.0, 5.0)) == 2.0
    assert Instant(10.0, 5.0).seconds_until(Instant(11.0, 4.0)) == math.inf
