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
    """A node's clock that shows what a test sets, and the node."""

    def __init__(self, seconds: float, simulated: bool = False) -> None:
        self.seconds = seconds
        self.ros_time_is_active = simulated

    def now(self) -> Any:
        return SimpleNamespace(nanoseconds=int(self.seconds * 1e9))

    def get_clock(self) -> Any:
        return self

    def resolve_topic_name(self, name: str) -> str:
        return name

    def count_publishers(self, topic: str) -> int:
        return 1


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The steady time, which tests change."""
    time = [50.0]
    monkeypatch.setattr("time.monotonic", lambda: time[0])
    return time


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


@pytest.mark.parametrize(
    ("begin", "end", "seconds"),
    [
        ((10.0, None), (12.0, None), 2.0),
        ((10.0, None), (12.0, 5.0), 2.0),
        ((10.0, 5.0), (11.0, 8.5), 3.5),  # a simulation faster than real time
        ((10.0, 5.0), (99.0, 5.5), 89.0),  # one that is slow or has stopped
        ((10.0, 5.0), (11.0, 4.0), math.inf),  # a bag that began again
    ],
)
def test_seconds_between_two_instants(begin: Any, end: Any, seconds: float) -> None:
    assert Instant(*begin).seconds_until(Instant(*end)) == seconds


def test_a_latched_frame_is_as_old_as_its_stamp_however_old_that_is() -> None:
    assert FrameClock(Clock(100.0)).delay(3600.0, latched=True) == 3600.0
    assert FrameClock(Clock(100.0), "arrival").delay(3600.0, latched=True) == 0.0


def test_ages_cannot_be_told_while_the_simulated_clock_stands_still(steady: list[float]) -> None:
    clock = Clock(7.0, simulated=True)
    frames = FrameClock(clock)
    assert frames.tells_ages(2.0)
    assert frames.moves()
    steady[0] += 1.5
    assert frames.tells_ages(0.2), "slow simulations publish their clock a few times a second"
    assert not frames.moves()
    steady[0] += 2.0
    assert not frames.tells_ages(2.0)
    assert "/clock has stood still at 7.00 s for 3.5 s" in frames.trouble(2.0)
    assert frames.tells_ages(10.0), "max_frame_age allows for a pause"
    assert not frames.trouble(10.0)
    clock.seconds += 0.1
    assert frames.tells_ages(2.0)
    assert not frames.trouble(2.0)


def test_ages_cannot_be_told_before_the_simulated_clock_has_come() -> None:
    frames = FrameClock(Clock(0.0, simulated=True))
    assert not frames.tells_ages(3600.0)
    frames.counts_from = "arrival"
    assert frames.tells_ages(2.0), "the arrival needs no clock"
