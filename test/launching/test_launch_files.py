"""The launch files with ROS's own launch, up to where processes would start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from package_files import ROOT

pytest.importorskip("launch_ros", reason="needs ROS's launch, which comes from apt")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from launch.actions import DeclareLaunchArgument, ExecuteProcess, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.launch_context import LaunchContext
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch_ros.actions import ComposableNodeContainer, Node

from litevlm_ros.errors import ConfigError
from litevlm_ros.launching import composed_cameras

pytestmark = pytest.mark.ros
BOARDS = ["orin_agx", "orin_nx", "orin_nano"]


def description(name: str) -> Any:
    return get_launch_description_from_python_launch_file(str(ROOT / "launch" / f"{name}.launch.py"))


def start(name: str, **arguments: str) -> list[Any]:
    """Returns the actions that start something, in order."""
    context = LaunchContext()
    context.launch_configurations.update(arguments)
    started: list[Any] = []
    for entity in description(name).entities:
        if isinstance(entity, OpaqueFunction):
            started = entity.execute(context) or []
        else:
            entity.visit(context)
    return started


def node(started: list[Any]) -> Node:
    [found] = [entity for entity in started if type(entity) is Node]
    return found


def notices(started: list[Any]) -> list[str]:
    context = LaunchContext()
    found = [entity.msg for entity in started if isinstance(entity, LogInfo)]
    return ["".join(part.perform(context) for part in message) for message in found]


@pytest.mark.parametrize("name", ["demo", *BOARDS])
def test_every_argument_is_described(name: str) -> None:
    arguments = [entity for entity in description(name).entities if isinstance(entity, DeclareLaunchArgument)]
    names = {argument.name for argument in arguments}
    assert {"namespace", "cameras", "camera_topics", "engine_dir", "model", "params_file", "log_level"} <= names
    assert ("use_composed_cameras" in names) == (name != "demo")
    for argument in arguments:
        assert ". " in f"{argument.description} ", argument.name


def test_the_demo_starts_cameras_and_node_in_one_namespace() -> None:
    started = start("demo", namespace="robot")
    [cameras] = [entity for entity in started if type(entity) is ExecuteProcess]
    assert "__ns:=/robot" in "".join(part.perform(LaunchContext()) for part in cameras.cmd[-1])
    assert node(started)
    assert not [entity for entity in start("demo", start_cameras="false") if type(entity) is ExecuteProcess]


@pytest.mark.parametrize("name", ["demo", *BOARDS])
def test_a_missing_parameter_file_is_no_start(name: str) -> None:
    with pytest.raises(ConfigError, match=r"params_file /none\.yaml cannot be read"):
        start(name, params_file="/none.yaml")


@pytest.mark.parametrize("board", BOARDS)
def test_boards_say_what_is_missing(board: str, tmp_path: Path) -> None:
    [notice] = notices(start(board, model=str(tmp_path)))
    assert f"build_engines --model {tmp_path} " in notice
    [notice] = notices(start(board, model=str(tmp_path / "none")))
    assert "download_models" in notice


def test_shared_memory_is_left_to_a_profile_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(variable, raising=False)
    assert len([entity for entity in start("demo") if isinstance(entity, SetEnvironmentVariable)]) == 2
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/my/own.xml")
    assert not [entity for entity in start("demo") if isinstance(entity, SetEnvironmentVariable)]


def test_drivers_are_components_of_one_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed_cameras, "get_package_share_directory", lambda package: "/")
    arguments = {"use_composed_cameras": "true", "cameras": "front,back", "camera_devices": "/dev/a,/dev/b"}
    started = start("orin_nano", **arguments)
    assert len([entity for entity in started if isinstance(entity, ComposableNodeContainer)]) == 1
    # Before the node, and with room in shared memory.
    kinds = [type(entity) for entity in started]
    assert kinds.index(SetEnvironmentVariable) < kinds.index(ComposableNodeContainer) < kinds.index(Node)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"camera_topics": "/x"}, "leave out camera_topics"),
        ({"cameras": "a,b", "camera_devices": "/dev/a"}, "1 devices for 2 cameras"),
        ({"cameras": "a", "camera_devices": "/dev/a"}, "sudo apt install ros-[$]ROS_DISTRO-v4l2-camera"),
        ({"cameras": "a", "camera_devices": "/dev/a", "camera_driver": "usb_cam"}, "ros-[$]ROS_DISTRO-usb-cam"),
    ],
)
def test_what_composed_cameras_cannot_do(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        start("orin_nano", use_composed_cameras="true", **arguments)
