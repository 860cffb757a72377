from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from litevlm_ros.node.simulated_clock import ClockState, SimulatedClock

pytestmark = pytest.mark.ros


class Node:
    """A node whose simulated time and whose publishers of /clock a test sets."""

    def __init__(self) -> None:
        self.time, self.publishers, self.ros_time_is_active = 0.0, 0, True

    def get_clock(self) -> Any:
        return self

    def now(self) -> Any:
        return SimpleNamespace(nanoseconds=int(self.time * 1e9))

    def resolve_topic_name(self, name: str) -> str:
        return f"/sim{name}"

    def count_publishers(self, topic: str) -> int:
        return self.publishers


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The steady time, which tests change."""
    time = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: time[0])
    return time


def test_a_node_without_simulated_time_has_no_trouble(steady: list[float]) -> None:
    node = Node()
    node.ros_time_is_active = False
    clock = SimulatedClock(node)
    steady[0] += 100.0
    assert (clock.state(), clock.seconds(), clock.trouble(), clock.standstill()) == (ClockState.UNUSED, None, "", 0.0)


def test_a_clock_that_never_came(steady: list[float]) -> None:
    node = Node()
    clock = SimulatedClock(node)
    assert clock.state() is ClockState.NEVER_CAME
    assert clock.trouble().startswith("the parameter use_sim_time is true, but nobody publishes /sim/clock; start the")
    node.publishers = 1
    assert "but /sim/clock has brought no time above 0 yet" in clock.trouble()


def test_a_clock_that_runs_stands_still_and_runs_again(steady: list[float]) -> None:
    node = Node()
    clock = SimulatedClock(node)
    node.time, node.publishers = 12.5, 1
    assert (clock.state(), clock.seconds(), clock.trouble()) == (ClockState.RUNS, 12.5, "")
    steady[0] += 20.0
    assert clock.state() is ClockState.STANDS
    assert clock.state(patience=30.0) is ClockState.RUNS
    assert clock.trouble().startswith(
        "/sim/clock has stood still at 12.50 s for 20.0 s: the simulation or bag is paused"
    )
    node.publishers = 0
    assert clock.trouble().endswith("its publisher is gone; start the simulation or bag again")
    node.time = 3.0  # set back, as by a bag that begins again
    assert (clock.state(), clock.trouble()) == (ClockState.RUNS, "")
