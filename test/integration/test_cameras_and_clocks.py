"""Simulators that die, drivers that lose images, and what else is wrong around a node, with each in its own process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from package_files import ROOT
from rclpy.utilities import get_rmw_implementation_identifier
from ros_domains import next_domain
from ros_process import Client, process, wait_for

from litevlm_ros.srv import Query

pytestmark = pytest.mark.ros
TOPIC = "/front/image_raw"


class Scene:
    """A node in a process of its own, the processes around it, and a client."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._processes = folder, ExitStack()
        self.domain = next_domain()
        self.client = Client(self.domain)
        self._arrays = self.client.listen(DiagnosticArray, "/diagnostics")

    def start(self, script: str, *arguments: str, log: str) -> Any:
        path = str(ROOT / "test" / "support" / script)
        return self._processes.enter_context(process([path, *arguments], self._folder / log, self.domain))

    def start_node(self, log: str = "node", **parameters: Any) -> None:
        chosen = {"cameras": "[front]", "caption_period": "0.2", **parameters}
        overrides = [word for name, value in chosen.items() for word in ("-p", f"{name}:={value}")]
        self.start("scripted_node.py", "--ros-args", *overrides, log=log)
        self.wait_for(lambda: "Ready: captions" in self.log(log))

    def wait_for(self, condition: Any) -> Any:
        return self.client.wait_for(condition, 60.0)

    def log(self, name: str = "node") -> str:
        return (self._folder / name).read_text(encoding="utf-8")

    def error(self) -> str:
        """Returns what a question about the camera is told; '' if it is answered."""
        request = Query.Request(question="Is the way clear?", cameras=["front"])
        response = self.wait_for(lambda: self.client.try_call(Query, "/litevlm/query", request))
        assert response.success == (not response.error)
        return str(response.error)

    def status(self, name: str) -> DiagnosticStatus:
        """The newest status of this name; an empty one if there is none yet."""
        statuses = self._arrays[-1].status if self._arrays else ()
        return next((item for item in statuses if item.name == f"litevlm: {name}"), DiagnosticStatus())

    def close(self) -> None:
        self._processes.close()
        self.client.close()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(variable, raising=False)
    scene = Scene(tmp_path)
    yield scene
    scene.close()


def test_a_simulator_that_hangs_gets_no_answer_until_it_goes_on(scene: Scene) -> None:
    simulator = scene.start("simulator_process.py", TOPIC, log="simulator")
    scene.start_node(use_sim_time="true", max_frame_age="1.0")
    scene.wait_for(lambda: not scene.error())
    os.kill(simulator.pid, signal.SIGSTOP)
    scene.wait_for(scene.error)
    error = scene.wait_for(lambda: (error := scene.error()) and "/clock has stood still at 1" in error and error)
    assert "s old, max_frame_age is 1 s; /clock has stood still" in error
    scene.wait_for(lambda: scene.status("camera front").level == DiagnosticStatus.ERROR)
    assert "/clock has stood still" in scene.status("camera front").message
    scene.wait_for(lambda: scene.status("node").level == DiagnosticStatus.WARN)
    assert "the simulation or bag is paused or hangs" in scene.status("node").message
    os.kill(simulator.pid, signal.SIGCONT)
    scene.wait_for(lambda: not scene.error())
    scene.wait_for(lambda: scene.status("node").level == DiagnosticStatus.OK)
    assert scene.log().count("has stood still") == 1
    assert "The time on /clock runs" in scene.log()


def test_images_that_come_while_the_clock_stands_still_are_not_used(scene: Scene) -> None:
    scene.start("simulator_process.py", TOPIC, "--clock-seconds=8", log="simulator")
    scene.start_node(use_sim_time="true")
    scene.wait_for(lambda: not scene.error())
    error = scene.wait_for(scene.error)
    assert f"frames arrive on {TOPIC}, but nobody can tell their age: /clock has stood still" in error


def test_without_a_clock_the_answer_says_so(scene: Scene) -> None:
    scene.start("camera_process.py", f"raw:{TOPIC}", log="camera")
    scene.start_node(use_sim_time="true")
    scene.wait_for(lambda: "use_sim_time is true, but nobody publishes /clock" in scene.error())
    response = scene.client.ask("What is a street?", cameras=["none"])
    assert response.success, "a question about no image needs no clock"
    assert response.answer.header.stamp.sec == 0, "as ROS has it where no time is known"
    scene.wait_for(lambda: scene.status("node").level == DiagnosticStatus.WARN)
    assert "nobody publishes /clock" in scene.status("node").message
    assert scene.log().count("nobody publishes /clock") == 1
    assert "ahead of" not in scene.log()


@pytest.mark.skipif("fastrtps" not in get_rmw_implementation_identifier(), reason="tells of Fast DDS's shared memory")
def test_images_that_do_not_fit_into_shared_memory_are_told_with_the_fix(scene: Scene) -> None:
    scene.start_node()
    scene.start("camera_process.py", f"raw:{TOPIC}", "--large", "--rate=30", log="camera")
    scene.wait_for(lambda: "images were lost on their way; start the driver with FAST" in scene.log())
    scene.wait_for(lambda: "config/fastdds.xml: Fast DDS has" in scene.status("camera front").message)
    values = {item.key: item.value for item in scene.status("camera front").values}
    assert 1 < int(values["lost by the middleware"]) < 10_000
    assert scene.log().count("lost on their way") == 1


@pytest.mark.parametrize(("transport", "topic"), [("raw", TOPIC), ("compressed", f"{TOPIC}/compressed")])
def test_an_image_that_was_latched_before_the_node_came_is_received(scene: Scene, transport: str, topic: str) -> None:
    scene.start("camera_process.py", f"{transport}:{topic}", "--once", log="camera")
    scene.wait_for(lambda: scene.client.node.count_publishers(topic))
    scene.start_node(max_frame_age="3600.0", transport=f"[{transport}]")
    scene.wait_for(lambda: not scene.error())
    scene.wait_for(lambda: scene.status("camera front").message == "images arrive")
    counts = {item.key: item.value for item in scene.status("camera front").values}
    assert counts["received"] == "1"


def test_a_topic_that_nobody_publishes_is_told_with_those_that_there_are(scene: Scene) -> None:
    scene.start("camera_process.py", "raw:/front_camera/image_raw", "compressed:/back/compressed", log="camera")
    scene.start_node()
    scene.wait_for(lambda: "/front_camera/image_raw (raw), /back/compressed (compressed); set" in scene.error())


def test_two_drivers_of_one_camera_and_two_nodes_of_one_name_are_told_once(scene: Scene) -> None:
    for log in ("camera", "other_camera"):
        scene.start("camera_process.py", f"raw:{TOPIC}", log=log)
    scene.start_node()
    scene.start_node("other_node")
    for log in ("node", "other_node"):
        wait_for(lambda log=log: "2 nodes are named /litevlm" in scene.log(log))  # type: ignore[misc]
        wait_for(lambda log=log: f"2 publishers send images to {TOPIC}: /cameras, /cameras" in scene.log(log))  # type: ignore[misc]
    scene.wait_for(lambda: "2 publishers send images" in scene.status("camera front").message)
    scene.wait_for(lambda: "2 nodes are named" in scene.status("node").message)
    assert scene.log().count("2 nodes are named") == 1
    assert scene.log().count("publishers send images") == 1
