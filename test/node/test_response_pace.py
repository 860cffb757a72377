# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from ros_process import wait_for

from litevlm_ros.node import response_pace
from litevlm_ros.node.response_pace import AT_ONCE, ResponsePace

pytestmark = pytest.mark.ros


class Paced:
    """A pace in the executor of a node whose clock stands still."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        still = [Parameter("use_sim_time", value=True)]
        self.node = rclpy.create_node("paced", context=self.context, parameter_overrides=still)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.pace = ResponsePace(self.node, ReentrantCallbackGroup())
        self.begun: list[int] = []
        self.sent: list[tuple[int, float]] = []

    def respond(self, *numbers: int, refusal: bool = False) -> None:
        for number in numbers:
            self.executor.create_task(self._respond, number, refusal)
            # One after the other, since the executor begins with the newest task.
            wait_for(lambda number=number: number in self.begun, step=lambda: self.executor.spin_once(timeout_sec=0.01))

    async def _respond(self, number: int, refusal: bool) -> None:
        self.begun.append(number)
        await self.pace.turn(refusal=refusal)
        self.sent.append((number, time.monotonic()))

    def wait_for(self, count: int) -> list[int]:
        wait_for(lambda: len(self.sent) >= count, step=lambda: self.executor.spin_once(timeout_sec=0.01))
        return [number for number, _ in self.sent]


@pytest.fixture
def paced() -> Iterator[Paced]:
    paced = Paced()
    yield paced
    paced.executor.shutdown()
    paced.node.destroy_node()
    rclpy.try_shutdown(context=paced.context)


def test_a_few_responses_are_sent_at_once(paced: Paced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_pace, "_QUIET", 1e9)
    monkeypatch.setattr(response_pace, "_MOST_HELD", 1e9)
    paced.respond(*range(AT_ONCE + 1))
    assert paced.wait_for(AT_ONCE) == list(range(AT_ONCE))
    for _ in range(20):
        paced.executor.spin_once(timeout_sec=0.01)
    assert len(paced.sent) == AT_ONCE, "the next one waits until its client has sent all of its requests"


def test_many_come_one_by_one_in_their_order(paced: Paced) -> None:
    paced.respond(*range(40))
    assert paced.wait_for(40) == list(range(40))
    times = [moment for _, moment in paced.sent]
    assert times[-1] - times[AT_ONCE] >= 0.5 * response_pace._PERIOD * (40 - AT_ONCE)
    assert paced.pace._timer.is_canceled()


def test_refusals_come_last(paced: Paced) -> None:
    paced.respond(*range(AT_ONCE))
    paced.respond(*range(100, 110), refusal=True)
    paced.respond(*range(200, 203))
    order = paced.wait_for(AT_ONCE + 13)
    assert order.index(202) < order.index(105)
    assert [number for number in order if 100 <= number < 200] == list(range(100, 110))


def test_who_asks_without_a_pause_is_answered_all_the_same(paced: Paced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_pace, "_QUIET", 1e9)
    monkeypatch.setattr(response_pace, "_MOST_HELD", 0.1)
    paced.respond(*range(AT_ONCE + 5))
    assert paced.wait_for(AT_ONCE + 5) == list(range(AT_ONCE + 5))


def test_more_than_may_wait_do_not(paced: Paced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_pace, "_QUIET", 1e9)
    monkeypatch.setattr(response_pace, "_MOST_HELD", 1e9)
    monkeypatch.setattr(response_pace, "_MOST_WAITING", 3)
    paced.respond(*range(AT_ONCE + 5))
    assert paced.wait_for(AT_ONCE + 2) == [*range(AT_ONCE), AT_ONCE + 3, AT_ONCE + 4]
