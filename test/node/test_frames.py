from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from builtin_interfaces.msg import Time

from litevlm_ros.node.frame_clock import FrameClock
from litevlm_ros.node.frames import Frame

pytestmark = pytest.mark.ros


class Node:
    """A node whose clock a test sets."""

    ros_time_is_active = True

    def __init__(self) -> None:
        self.time = 100.0

    def get_clock(self) -> Any:
        return self

    def now(self) -> Any:
        return SimpleNamespace(nanoseconds=round(self.time * 1e9))


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The steady time, which tests change."""
    time = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: time[0])
    return time


def frame(node: Node, stamp: float, **options: Any) -> Frame:
    seconds, nanoseconds = divmod(round(stamp * 1e9), 10**9)
    message = SimpleNamespace(header=SimpleNamespace(stamp=Time(sec=seconds, nanosec=nanoseconds)))
    return Frame(message, FrameClock(node), lambda message, encodings: None, **options)  # type: ignore[arg-type,return-value]


def test_a_frame_ages_by_the_clock_that_runs_faster(steady: list[float]) -> None:
    node = Node()
    made = frame(node, 99.5)
    steady[0] += 3.0
    assert made.age() == pytest.approx(3.5), "the simulation stands still"
    node.time += 10.0
    assert made.age() == pytest.approx(10.5), "and jumps on"
    assert made.describe_age(2.0) == "is 10.5 s old, max_frame_age is 2 s"


def test_a_slow_simulation_is_named(steady: list[float]) -> None:
    node = Node()
    made = frame(node, 100.0)
    steady[0] += 10.0
    node.time += 1.0
    assert made.describe_age(2.0) == (
        "is 10.0 s old, max_frame_age is 2 s in real time too; the simulation runs at 0.10 times real time, so raise "
        "max_frame_age"
    )


def test_a_clock_that_was_set_back_is_named(steady: list[float]) -> None:
    node = Node()
    made = frame(node, 100.0)
    node.time = 5.0
    assert math.isinf(made.age())
    assert made.describe_age(2.0) == "is from before /clock was set back by 95.0 s, as when a bag begins again"


def test_a_late_frame_and_a_latched_one(steady: list[float]) -> None:
    node = Node()
    assert "by its stamp it was 3.0 s old when it came: frames wait" in frame(node, 97.0).describe_age(2.0)
    assert frame(node, 10.0).age() == 0.0, "by another clock"
    made = frame(node, 10.0, latched=True)
    assert made.age() == 90.0
    assert made.describe_age(2.0).endswith("(latched), so raise max_frame_age to use it longer")
