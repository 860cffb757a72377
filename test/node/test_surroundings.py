from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from litevlm_ros.node.surroundings import Surroundings

pytestmark = pytest.mark.ros


class Node:
    """A node whose clock and graph a test sets."""

    def __init__(self) -> None:
        self.time, self.ros_time_is_active, self.clocks = 0.0, True, 1
        self.names = [("litevlm", "/robot")]
        self.lines: list[str] = []

    def get_clock(self) -> Any:
        return self

    def now(self) -> Any:
        return SimpleNamespace(nanoseconds=int(self.time * 1e9))

    def resolve_topic_name(self, name: str) -> str:
        return name

    def count_publishers(self, topic: str) -> int:
        return self.clocks

    def get_name(self) -> str:
        return "litevlm"

    def get_namespace(self) -> str:
        return "/robot"

    def get_fully_qualified_name(self) -> str:
        return "/robot/litevlm"

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        return self.names

    def get_logger(self) -> Any:
        return SimpleNamespace(info=self.lines.append, warning=self.lines.append)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The steady time, which tests change."""
    time = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: time[0])
    return time


def test_a_clock_is_told_once_for_each_of_its_states(steady: list[float]) -> None:
    node = Node()
    surroundings = Surroundings(node)
    assert surroundings.look() == [], "a simulation starts slowly"
    steady[0] += 6.0
    for _ in range(3):
        assert "has brought no time above 0 yet" in surroundings.look()[0]
    assert len(node.lines) == 1
    assert node.lines[0].startswith("The parameter use_sim_time is true, but /clock")
    node.time = 5.0
    assert surroundings.look() == []
    assert node.lines[1:] == ["The time on /clock runs"]
    steady[0] += 3.0
    for _ in range(3):
        assert surroundings.look()[0].startswith("/clock has stood still at 5.00 s for 3.0 s")
    assert len(node.lines) == 3


def test_several_publishers_of_the_clock(steady: list[float]) -> None:
    node = Node()
    node.clocks, node.time = 2, 1.0
    surroundings = Surroundings(node)
    surroundings.look()
    steady[0] += 6.0
    node.time = 2.0
    assert surroundings.look() == [
        "2 publishers send times to /clock, so the time may jump to and fro; stop all but one"
    ]
    node.ros_time_is_active = False
    assert surroundings.look() == []


def test_another_node_of_the_same_name(steady: list[float]) -> None:
    node = Node()
    node.ros_time_is_active = False
    node.names = [("litevlm", "/robot"), ("litevlm", "/other"), ("litevlm", "/robot")]
    surroundings = Surroundings(node)
    assert surroundings.look() == []
    steady[0] += 6.0
    assert surroundings.look()[0].startswith("2 nodes are named /robot/litevlm: questions and parameters may reach")
    surroundings.look()
    node.names.pop()
    surroundings.look()
    assert len(node.lines) == 2
    assert node.lines[1] == "No other node is named /robot/litevlm any longer"
