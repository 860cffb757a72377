"""The launch files within a robot's launch file that really runs, with the real node and the demo model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="needs ROS's launch, which comes from apt")
pytest.importorskip("launch_xml", reason="needs ROS's launch, which comes from apt")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from ros_domains import next_domain
from ros_process import ROOT, Client, process, wait_for

pytestmark = pytest.mark.ros

RUN = str(ROOT / "test" / "support" / "launch_run.py")
DRIVER = f"""<executable cmd="{sys.executable} -c 'import signal; signal.pause()'" name="driver"/>"""
NANO = """<include file="$(find-pkg-share litevlm_ros)/launch/orin_nano.launch.py">
    <arg name="model" value="demo"/> <arg name="cameras" value="front"/> <arg name="respawn_delay" value="1"/> {}
</include>"""
CONTAINER = """
import sys, rclpy
from composition_interfaces.srv import LoadNode
rclpy.init(args=sys.argv)
node = rclpy.create_node("container")
def load(request, response):
    print("LOAD", request.node_namespace, request.node_name, *request.remap_rules, flush=True)
    response.success, response.full_node_name = True, f"{request.node_namespace}/{request.node_name}"
    return response
node.create_service(LoadNode, "~/_container/load_node", load)
try:
    rclpy.spin(node)
except BaseException:
    pass
"""
"""A container of components that only tells what it is to load."""


class Running:
    """A launch that runs."""

    def __init__(self, child: subprocess.Popen[bytes], log: Path) -> None:
        self.child = child
        self._log = log

    def wait_for(self, pattern: str, times: int = 1) -> None:
        """Waits until the launch or one of its processes has logged a pattern so many times."""
        wait_for(lambda: len(re.findall(pattern, self._log.read_text(errors="replace"))) >= times, 60)

    def pid(self, name: str) -> int:
        """Returns the number of the process that was started last under a name such as litevlm_node."""
        started = rf"\[{name}-\d+\]: process started with pid \[(\d+)\]"
        return int(re.findall(started, self._log.read_text(errors="replace"))[-1])

    def end(self) -> int:
        """Ends it as Ctrl-C does. SIGKILL would leave its processes behind."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
        return self.child.wait(30)


@contextmanager
def launched(content: str, directory: Path) -> Iterator[Running]:
    """Runs a launch file in XML with this content."""
    file, log = directory / "robot.launch.xml", directory / "log"
    file.write_text(f"<launch>{content}</launch>")
    with process([RUN, str(file)], log, int(os.environ["ROS_DOMAIN_ID"])) as child:
        running = Running(child, log)
        try:
            yield running
        finally:
            running.end()


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "ros_log"))
    monkeypatch.setenv("ROS_DOMAIN_ID", str(next_domain()))


def test_a_robot_outlives_the_node_which_comes_back(tmp_path: Path) -> None:
    with launched(DRIVER + NANO.format(""), tmp_path) as running:
        running.wait_for("Ready: captions")
        os.kill(running.pid("litevlm_node"), signal.SIGKILL)
        running.wait_for("litevlm_node-[0-9] is started again in 1 s")
        running.wait_for("Ready: captions", 2)
        os.kill(running.pid("litevlm_node"), signal.SIGTERM)
        running.wait_for("litevlm_node-[0-9] is not started again: it was asked to end")
        os.kill(running.pid("driver"), 0)
        assert running.end() == 0


def test_a_node_that_is_required_ends_the_launch(tmp_path: Path) -> None:
    with launched(DRIVER + NANO.format('<arg name="required" value="true"/>'), tmp_path) as running:
        running.wait_for("Ready: captions")
        os.kill(running.pid("litevlm_node"), signal.SIGKILL)
        running.child.wait(30)


def test_two_robots_with_cameras_of_their_own(tmp_path: Path) -> None:
    robots = "".join(
        f"""<group> <push_ros_namespace namespace="{robot}"/> <set_remap from="front/image_raw" to="/{robot}/cam"/>
        <include file="$(find-pkg-share litevlm_ros)/launch/demo.launch.py">
            <arg name="namespace" value="{namespace}"/> <arg name="name" value="eyes"/>
            <arg name="cameras" value="front"/> <arg name="transport" value="raw"/>
        </include> </group>"""
        for robot, namespace in (("robot1", ""), ("robot2", "robot2"))
    )
    with launched(robots, tmp_path) as running:
        for robot in ("robot1", "robot2"):
            running.wait_for(rf"\[{robot}\.eyes\]: Ready: captions on /{robot}/eyes/caption,")
            running.wait_for(rf"\[{robot}\.eyes\]: Camera front: images arrive on /{robot}/cam")
        client = Client(int(os.environ["ROS_DOMAIN_ID"]))
        try:
            publishers = partial(client.node.get_publishers_info_by_topic, "/robot2/cam")
            client.wait_for(lambda: [one.node_namespace for one in publishers()] == ["/robot2"])
            assert [one.node_name for one in publishers()] == ["demo_cameras"]
        finally:
            client.close()


def test_drivers_are_loaded_again_into_a_container_that_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("composition_interfaces", reason="needs composition_interfaces")
    for package in ("rclcpp_components", "v4l2_camera"):
        index = tmp_path / "share/ament_index/resource_index/packages"
        for directory in (index, tmp_path / "share" / package):
            directory.mkdir(parents=True, exist_ok=True)
        (index / package).touch()
    container = tmp_path / "lib/rclcpp_components/component_container_isolated"
    container.parent.mkdir(parents=True)
    container.write_text(f"#!{sys.executable}\n{CONTAINER}")
    container.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path}:{os.environ['AMENT_PREFIX_PATH']}")
    drivers = NANO.format('<arg name="use_composed_cameras" value="true"/> <arg name="camera_devices" value="/dev/a"/>')
    remapped = '<set_remap from="camera_info" to="/info"/>'
    content = f'<group> <push_ros_namespace namespace="robot1"/> {remapped} {drivers} </group>'
    with launched(content, tmp_path) as running:
        running.wait_for("LOAD /robot1/front driver camera_info:=/info\n")
        os.kill(running.pid("component_container_isolated"), signal.SIGKILL)
        running.wait_for("LOAD /robot1/front driver camera_info:=/info\n", 2)
        os.kill(running.pid("litevlm_node"), 0)
