"""Transitions that a lifecycle manager asks for, and what the node answers meanwhile."""

# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_bench import Bench
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros_process import image, wait_for

from litevlm_ros.errors import EngineError

pytestmark = pytest.mark.ros
LOADING = "/litevlm is loading the model; ask again in a moment"


class SlowLoad:
    """Loads the bench's pipeline when it is let."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.begun, self.go = threading.Event(), threading.Event()
        bench.load = self

    def __call__(self, config: Any) -> Any:
        self.begun.set()
        assert self.go.wait(30)
        return self._bench.pipeline


@pytest.fixture
def load(bench: Bench) -> Iterator[SlowLoad]:
    load = SlowLoad(bench)
    yield load
    load.go.set()


def set_parameter(bench: Bench, name: str, value: Any) -> Any:
    message: ParameterMessage = Parameter(name, value=value).to_parameter_msg()
    request = SetParameters.Request(parameters=[message])
    return bench.client.call(SetParameters, "/litevlm/set_parameters", request).results[0]


def test_everything_is_answered_while_a_manager_configures(bench: Bench, load: SlowLoad) -> None:
    bench.start(autostart=False)
    client = bench.client
    diagnoses = client.listen(DiagnosticArray, "/diagnostics")
    configured = client.start_change("configure")
    client.wait_for(load.begun.is_set)
    assert client.state() == "configuring"
    assert client.ask("?").error == LOADING
    assert set_parameter(bench, "caption_period", 2.0).successful
    assert "can only be set while the node is unconfigured" in set_parameter(bench, "max_tiles", 2).reason
    client.wait_for(lambda: any(LOADING in status.message for each in diagnoses for status in each.status))
    assert not configured.done()
    load.go.set()
    assert client.result(configured).success
    assert client.state() == "inactive"


def test_what_is_asked_for_meanwhile_waits_its_turn(bench: Bench, load: SlowLoad) -> None:
    bench.start(autostart=False)
    client = bench.client
    # By their numbers, as nav2's manager asks.
    asked = [client.start_change(number=Transition.TRANSITION_CONFIGURE)]
    client.wait_for(load.begun.is_set)
    asked += [
        client.start_change(number=number)
        for number in (
            Transition.TRANSITION_CONFIGURE,  # not possible any more when its turn comes
            Transition.TRANSITION_ACTIVATE,
            Transition.TRANSITION_DEACTIVATE,
            Transition.TRANSITION_CLEANUP,
        )
    ]
    assert client.state() == "configuring"
    assert [each.done() for each in asked] == [False] * 5
    load.go.set()
    assert [client.result(each).success for each in asked] == [True, False, True, True, True]
    assert client.state() == "unconfigured"
    wait_for(lambda: not any(thread.name in ("inference", "transitions") for thread in threading.enumerate()))


def test_a_manager_beside_autostart_waits_for_it(bench: Bench, load: SlowLoad) -> None:
    starting = threading.Thread(target=bench.start, daemon=True)
    starting.start()
    assert load.begun.wait(30)
    configured = bench.client.start_change("configure")
    deactivated = bench.client.start_change("deactivate")
    assert bench.client.state() == "configuring"
    load.go.set()
    starting.join(30)
    assert not bench.client.result(configured).success
    assert bench.client.result(deactivated).success
    assert bench.client.state() == "inactive"


@pytest.mark.parametrize("number", [0, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN])
def test_a_shutdown_does_not_wait_for_a_model_to_load(bench: Bench, load: SlowLoad, number: int) -> None:
    bench.start(autostart=False)
    client = bench.client
    configured = client.start_change("configure")
    client.wait_for(load.begun.is_set)
    ended = client.start_change("" if number else "shutdown", number)
    assert not client.result(configured).success
    assert client.result(ended).success
    assert client.state() == "finalized"
    assert not bench.pipeline.closed
    load.go.set()
    wait_for(lambda: bench.pipeline.closed)


def test_the_end_of_the_node_does_not_wait_for_a_model_to_load(bench: Bench, load: SlowLoad) -> None:
    bench.start(autostart=False)
    configured = bench.client.start_change("configure")
    bench.client.wait_for(load.begun.is_set)
    activated = bench.client.start_change("activate")
    assert bench.client.state() == "configuring"
    bench.executor.create_task(bench.node.close)
    assert not bench.client.result(configured).success
    assert not bench.client.result(activated).success
    bench.client.wait_for(lambda: bench.node.open_requests == 0)


def test_a_load_that_fails_is_the_response_and_the_next_one_may_work(bench: Bench, load: SlowLoad) -> None:
    def fail(config: Any) -> Any:
        load(config)
        raise EngineError("no graph in /x; run export")

    bench.load = fail
    bench.start(autostart=False)
    configured = bench.client.start_change("configure")
    bench.client.wait_for(load.begun.is_set)
    again = bench.client.start_change("configure")
    activated = bench.client.start_change("activate")
    assert bench.client.ask("?").error == LOADING
    load.go.set()
    assert not bench.client.result(configured).success
    assert not bench.client.result(again).success
    assert not bench.client.result(activated).success
    assert "no graph in /x; run export" in bench.client.ask("?").error
    bench.load = load
    assert bench.client.change_state("configure")


def test_cleanup_that_waits_for_an_answer_holds_up_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go = threading.Event(), threading.Event()

    def deaf(*arguments: Any, **settings: Any) -> Any:
        began.set()
        assert go.wait(30)
        raise EngineError("at last")

    monkeypatch.setattr(bench.pipeline, "generate", deaf)
    bench.start()
    client = bench.client
    asked = client.start_query("?", images=[image(1)])
    client.wait_for(began.is_set)
    deactivated, cleaned = client.start_change("deactivate"), client.start_change("cleanup")
    assert client.result(deactivated).success
    client.wait_for(lambda: client.state() == "cleaningup")
    assert "waits for the end of an answer" in client.ask("?").error
    assert not cleaned.done()
    go.set()
    assert client.result(cleaned).success
    assert bench.pipeline.closed
    assert client.result(asked).error == "at last"


def test_a_transition_that_is_not_possible_is_refused_in_words(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.start()
    for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, 99):
        assert not bench.client.result(bench.client.start_change(number=number)).success
        # From Kilted on, rclpy says it itself.
        told = (f"The transition number {number} was refused: the node is active",
                f"Unable to start transition {number} from current state")  # fmt: skip
        wait_for(lambda told=told: any(each in said(capfd) for each in told))
    assert not bench.client.change_state("no such transition")
    assert bench.client.state() == "active"
    assert bench.client.ask("?", images=[image(1)]).success


_said: list[str] = []


def said(capfd: pytest.CaptureFixture[str]) -> str:
    _said.append(capfd.readouterr().err)
    return "".join(_said)
