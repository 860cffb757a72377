"""The node's process, from outside: what signals do to it in each phase."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from action_msgs.msg import GoalStatus
from asking_client import AskingClient
from ros_domains import next_domain
from ros_process import ROOT, Client, image, process, slowdown, wait_for

from litevlm_ros.node.process import NodeProcess, log_to_ros
from litevlm_ros.processes import StopRequest

pytestmark = pytest.mark.ros

SUPPORT = ROOT / "test" / "support"
SCRIPTED = str(SUPPORT / "scripted_node.py")
CAMERA = ["--ros-args", "-p", "cameras:=[front]", "-p", "caption_period:=0.0"]


@pytest.fixture
def domain() -> int:
    return next_domain()


@pytest.fixture
def client(domain: int) -> Iterator[Client]:
    client = Client(domain)
    yield client
    client.close()


def end(child: subprocess.Popen[bytes], number: signal.Signals) -> tuple[int, float]:
    """Exit status after a signal, and the seconds that it would have taken on a quiet machine."""
    started = time.monotonic()
    child.send_signal(number)
    status, seconds = child.wait(20), time.monotonic() - started
    return status, seconds if seconds < 2 else seconds / slowdown()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_an_active_node(handlers: None, tmp_path: Path, domain: int, number: signal.Signals) -> None:
    log = tmp_path / "log"
    with process([SCRIPTED, *CAMERA], log, domain) as child:
        wait_for(lambda: "Ready" in log.read_text())
        status, seconds = end(child, number)
    assert (status, seconds < 2) == (0, True)
    assert "Traceback" not in log.read_text()
    assert "Camera front: 0 images received" in log.read_text()


@pytest.mark.parametrize("delay", [0.15, 0.3, 0.45, 0.6, 0.8])
def test_a_signal_ends_a_starting_node(tmp_path: Path, domain: int, delay: float) -> None:
    log = tmp_path / "log"
    # Signals are the node's from main() on, before it imports ROS.
    code = "import sys; from litevlm_ros.node.process import main; print('begun', flush=True); sys.exit(main())"
    with process(["-c", code, *CAMERA], log, domain) as child:
        wait_for(lambda: "begun" in log.read_text())
        time.sleep(delay)
        status, seconds = end(child, signal.SIGINT)
    assert "Traceback" not in log.read_text()
    assert (status, seconds < 2) == (0, True)


READY = "node/lifecycle.py:on_activate"
PHASES = {
    "import": "rclpy/__init__.py:<module>",
    "init": "rclpy/__init__.py:init",
    "node": "node/lifecycle.py:__init__",
    "start": "node/lifecycle.py:on_configure",
    "activation": READY,
    "close": f"{READY},node/lifecycle.py:close",
    "destruction": f"{READY},node/lifecycle.py:destroy_node",
    "shutdown": f"{READY},rclpy/utilities.py:try_shutdown",
}


@pytest.mark.parametrize("places", PHASES.values(), ids=PHASES)
def test_a_signal_in_any_phase_ends_the_node(tmp_path: Path, domain: int, places: str) -> None:
    log = tmp_path / "log"
    with process([str(SUPPORT / "signalled.py"), "scripted_node", places, *CAMERA], log, domain) as child:
        status = child.wait(60)
    output = log.read_text()
    assert status == 0, output
    assert "Traceback" not in output
    assert output.count("signalled at") == len(places.split(","))


def test_a_signal_ends_a_node_that_loads_a_model_and_cannot_be_interrupted(tmp_path: Path, domain: int) -> None:
    log = tmp_path / "log"
    with process([SCRIPTED, "--load-seconds", "30", *CAMERA], log, domain) as child:
        wait_for(lambda: "loading" in log.read_text())
        status, seconds = end(child, signal.SIGINT)
    assert (status, seconds < 2) == (0, True)
    assert "Traceback" not in log.read_text()


def test_a_signal_in_the_middle_of_an_answer_tells_the_client(tmp_path: Path, domain: int, client: Client) -> None:
    log = tmp_path / "log"
    with process([SCRIPTED, "--seconds", "30", *CAMERA], log, domain) as child:
        wait_for(lambda: "Ready" in log.read_text())
        future = client.start_query("What?", images=[image()])
        later = client.start_query("And then?", images=[image()])
        assert "empty" in client.ask("").error  # it is told at once, so the questions before it have arrived
        status, seconds = end(child, signal.SIGINT)
        answers = [client.result(future), client.result(later)]
    assert (status, seconds < 2) == (0, True)
    assert [answer.success for answer in answers] == [False, False]
    assert answers[0].error == "the node stopped before the answer was complete"


def test_a_signal_in_the_middle_of_a_streamed_answer_gives_what_there_was(tmp_path: Path, domain: int) -> None:
    log = tmp_path / "log"
    client = AskingClient(domain)
    with process([SCRIPTED, "--seconds", "30", *CAMERA], log, domain) as child:
        wait_for(lambda: "Ready" in log.read_text())
        running = client.send(" ".join(map(str, range(200))), images=[image()])
        waiting = client.send("And then?", images=[image()])
        client.wait_for(lambda: len(running.feedback) > 2)
        status, seconds = end(child, signal.SIGINT)
        goal_status, result = client.outcome(running)
        assert client.outcome(waiting)[1].error == "the node stopped before the answer was complete"
    client.close()
    assert (status, seconds < 2) == (0, True)
    assert (goal_status, result.success) == (GoalStatus.STATUS_ABORTED, False)
    assert result.answer.text.startswith("image_0=0 0 1")
    assert "Traceback" not in log.read_text()


def test_a_client_that_is_killed_during_its_answer_does_not_hold_up_others(
    tmp_path: Path, domain: int, client: Client
) -> None:
    log, heard = tmp_path / "log", tmp_path / "heard"
    with process([SCRIPTED, "--seconds", "1.5", *CAMERA], log, domain) as child:
        wait_for(lambda: "Ready" in log.read_text())
        with process([str(SUPPORT / "asking_client.py"), "one two three four five"], heard, domain) as asking:
            wait_for(lambda: "two" in heard.read_text())
            asking.kill()
            asking.wait()
        assert client.ask("What?", images=[image(3)]).answer.text == "image_0=3 What?"
        assert end(child, signal.SIGINT)[0] == 0
    assert "five" not in heard.read_text()
    assert "Traceback" not in log.read_text()


def test_signals_until_the_end_do_no_harm(tmp_path: Path, domain: int) -> None:
    """A terminal's Ctrl-C reaches launch and node, and launch passes it on."""
    log = tmp_path / "log"
    with process([SCRIPTED, *CAMERA], log, domain) as child:
        wait_for(lambda: "Ready" in log.read_text())
        while child.poll() is None:
            child.send_signal(signal.SIGINT)
            time.sleep(0.002)
    assert child.returncode == 0
    assert "Traceback" not in log.read_text()


def test_a_signal_answers_who_waits_for_a_transition(tmp_path: Path, domain: int, client: Client) -> None:
    log = tmp_path / "log"
    with process([SCRIPTED, "--load-seconds", "30", *CAMERA, "-p", "autostart:=false"], log, domain) as child:
        configured = client.start_change("configure")
        client.wait_for(lambda: "loading" in log.read_text())
        activated = client.start_change("activate")
        assert client.state() == "configuring"  # it is told at once, so the request before it has arrived
        status, seconds = end(child, signal.SIGINT)
        assert not client.result(configured).success
        assert not client.result(activated).success
    assert (status, seconds < 2) == (0, True)
    assert "Traceback" not in log.read_text()


def test_a_second_signal_does_no_harm(tmp_path: Path, domain: int) -> None:
    log = tmp_path / "log"
    with process([SCRIPTED, "--load-seconds", "30", *CAMERA], log, domain) as child:
        wait_for(lambda: "loading" in log.read_text())
        child.send_signal(signal.SIGINT)
        status, _ = end(child, signal.SIGINT)
    assert status == 0
    assert "Traceback" not in log.read_text()


def test_the_real_node_explains_a_missing_model_and_lives_on(tmp_path: Path, domain: int, client: Client) -> None:
    log = tmp_path / "log"
    command = ["-m", "litevlm_ros.node.process", *CAMERA, "-p", "model_dir:=/nowhere"]
    with process(command, log, domain) as child:
        response = wait_for(lambda: "Not ready" in log.read_text()) and client.ask("What?")
        assert not response.success
        assert response.error.startswith("/litevlm could not be configured: ")
        assert "/nowhere" in response.error
        status, _ = end(child, signal.SIGINT)
    assert status == 0
    assert "ros2 lifecycle set /litevlm configure" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_failing_callback_does_not_end_the_node(tmp_path: Path, domain: int, client: Client) -> None:
    from litevlm_ros.srv import Query

    log = tmp_path / "log"
    with process([SCRIPTED, "--failing-service", *CAMERA], log, domain) as child:
        wait_for(lambda: "Ready" in log.read_text())
        fail = client.node.create_client(Query, "/litevlm/fail")
        client.wait_for(fail.service_is_ready)
        sent = [-math.inf]

        def has_failed() -> bool:
            if time.monotonic() > sent[-1] + 2:  # DDS may lose a request that comes right behind the discovery
                fail.call_async(Query.Request())
                sent.append(time.monotonic())
            return "A callback failed; the node goes on" in log.read_text()

        client.wait_for(has_failed)
        assert client.ask("What?", images=[image(3)]).answer.text == "image_0=3 What?"
        assert end(child, signal.SIGINT)[0] == 0


def test_an_error_while_starting_is_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    def make_node(stop: StopRequest) -> Any:
        raise RuntimeError("no node today")

    assert NodeProcess([], StopRequest(), make_node).run() == 1
    assert "no node today" in capsys.readouterr().err


def test_an_early_stop_ends_before_ros_is_loaded() -> None:
    code = (
        "import sys; from litevlm_ros.node.process import NodeProcess; from litevlm_ros.processes import StopRequest\n"
        "stop = StopRequest(); stop.set(); assert NodeProcess([], stop).run() == 0\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=30).returncode == 0


def test_levels_of_loggers_can_be_set_while_it_runs(tmp_path: Path, domain: int, client: Client) -> None:
    from rcl_interfaces.msg import LoggerLevel

    interfaces = pytest.importorskip("rcl_interfaces.srv", reason="needs the services of Iron and later")
    kind = getattr(interfaces, "SetLoggerLevels", None)
    if kind is None:
        pytest.skip("needs the services of Iron and later")
    log = tmp_path / "log"
    command = ["-m", "litevlm_ros.node.process", *CAMERA, "--log-level", "litevlm:=warn", "-p", "autostart:=false"]
    with process(command, log, domain) as child:
        request = kind.Request(levels=[LoggerLevel(name="litevlm", level=LoggerLevel.LOG_LEVEL_DEBUG)])
        (result,) = client.call(kind, "/litevlm/set_logger_levels", request).results
        assert result.successful
        assert end(child, signal.SIGTERM)[0] == 0


# --- the log


class Recorder:
    """Stands for a ROS logger."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, severity: str) -> Any:
        return lambda text: self.lines.append((severity, text))


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    loggers = [logging.getLogger(name) for name in ("litevlm_ros", "litevlm_ros.tensorrt")]
    before = [(logger.handlers, logger.level) for logger in loggers]
    recorder = Recorder()
    log_to_ros(recorder)
    yield recorder
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers = handlers
        logger.setLevel(level)


def test_severities_are_ros_severities(recorder: Recorder) -> None:
    log = logging.getLogger("litevlm_ros.somewhere")
    log.debug("a %d", 1)
    log.info("b")
    log.warning("c")
    log.critical("d")
    assert recorder.lines == [("debug", "a 1"), ("info", "b"), ("warning", "c"), ("error", "d")]


def test_a_log_line_does_not_steer_a_terminal(recorder: Recorder) -> None:
    logging.getLogger("litevlm_ros.somewhere").warning("%s\n%s", "\x1b[2J", "next line")
    assert recorder.lines == [("warning", "\\x1b[2J\nnext line")]


def test_tensorrt_does_not_chat(recorder: Recorder) -> None:
    log = logging.getLogger("litevlm_ros.tensorrt")
    log.info("Loaded engine size: 5 MiB")
    log.warning("no such profile")
    assert recorder.lines == [("warning", "no such profile")]


def test_a_wrong_record_does_not_reach_the_caller(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = logging.getLogger("litevlm_ros")
    monkeypatch.setattr(package, "propagate", False)  # pytest's own handler raises
    package.info("%d", "no number")
    assert recorder.lines == []
    assert "no number" in capsys.readouterr().err
