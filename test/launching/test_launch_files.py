"""The launch files with ROS's own launch, up to where processes would start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from package_files import ROOT

pytest.importorskip("launch_ros", reason="needs ROS's launch, which comes from apt")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.launch_context import LaunchContext
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from launch_ros.actions import ComposableNodeContainer, Node, PushRosNamespace, SetParameter, SetRemap

from litevlm_ros.errors import ConfigError
from litevlm_ros.launching import composed_cameras

pytestmark = pytest.mark.ros
BOARDS = ["orin_agx", "orin_nx", "orin_nano"]


def description(name: str) -> Any:
    return get_launch_description_from_python_launch_file(str(ROOT / "launch" / f"{name}.launch.py"))


def start(file: str, /, *before: Any, **arguments: str) -> list[Any]:
    """Returns the actions that start something, in order. Those in `before` are of a launch file that includes it."""
    return start_in(LaunchContext(), file, *before, **arguments)


def start_in(context: LaunchContext, file: str, /, *before: Any, **arguments: str) -> list[Any]:
    for action in before:
        action.execute(context)
    context.launch_configurations.update(arguments)
    started: list[Any] = []
    for entity in description(file).entities:
        if isinstance(entity, OpaqueFunction):
            started = entity.execute(context) or []
        else:
            entity.visit(context)
    return started


def nodes(started: list[Any]) -> list[Node]:
    return [entity for entity in started if type(entity) is Node]


def command(file: str, /, *before: Any, which: int = -1, **arguments: str) -> str:
    """Returns the command line of a node that is started, with the text of its files of parameters."""
    context = LaunchContext()
    found = nodes(start_in(context, file, *before, **arguments))[which]
    found._perform_substitutions(context)
    given = {"name": f"__node:={found.node_name.rpartition('/')[2]}", "ns": f"__ns:={found.expanded_node_namespace}"}
    context.extend_locals({"ros_specific_arguments": given})
    words = ["".join(part.perform(context) for part in word) for word in found.cmd[1:]]
    texts = [
        Path(word).read_text().replace(" !!python/tuple", "") if option == "--params-file" else word
        for option, word in zip(["", *words], words, strict=False)
    ]
    return " ".join([*texts, ""])


def notices(started: list[Any]) -> list[str]:
    context = LaunchContext()
    found = [entity.msg for entity in started if isinstance(entity, LogInfo)]
    return ["".join(part.perform(context) for part in message) for message in found]


@pytest.mark.parametrize("name", ["demo", *BOARDS])
def test_every_argument_is_described(name: str) -> None:
    arguments = [entity for entity in description(name).entities if isinstance(entity, DeclareLaunchArgument)]
    names = {argument.name for argument in arguments}
    assert {"namespace", "name", "cameras", "camera_topics", "transport", "engine_dir", "model", "params_file"} <= names
    assert {"use_sim_time", "autostart", "respawn", "respawn_delay", "required", "log_level"} <= names
    assert ("use_composed_cameras" in names) == (name != "demo")
    for argument in arguments:
        assert ". " in f"{argument.description} ", argument.name


def test_the_demo_starts_cameras_and_node_in_one_namespace() -> None:
    started = start("demo", namespace="robot")
    assert [entity.node_executable for entity in nodes(started)] == ["demo_cameras", "litevlm_node"]
    assert [entity.node_executable for entity in nodes(start("demo", start_cameras="false"))] == ["litevlm_node"]
    for which in (0, 1):
        assert "__ns:=/robot " in command("demo", namespace="robot", which=which)


@pytest.mark.parametrize("which", [0, 1])
def test_what_an_including_launch_file_sets_is_for_cameras_and_node(which: int) -> None:
    before = (PushRosNamespace("fleet"), PushRosNamespace("robot1"), SetRemap("front", "/cam"), SetParameter("gain", 2))
    line = command("demo", *before, which=which, use_sim_time="True")
    for part in ("__ns:=/fleet/robot1 ", "-r front:=/cam", "-p gain:=2", "use_sim_time: true"):
        assert part in line


@pytest.mark.parametrize("name", ["demo", *BOARDS])
def test_set_parameter_is_stronger_than_what_ships_but_not_than_arguments_and_own_files(
    name: str, tmp_path: Path
) -> None:
    given = SetParameter("caption_period", 7.5)
    line = command(name, given)
    assert line.rindex("caption_period: 7.5") > line.rindex("/**:")
    own = tmp_path / "own.yaml"
    own.write_text("/**: {ros__parameters: {caption_period: 3.0}}\n")
    assert "caption_period: 7.5" not in command(name, given, params_file=str(own))
    line = command(name, SetParameter("autostart", True), autostart="false")
    assert line.rindex("autostart: false") > line.rindex("autostart: true")


@pytest.mark.parametrize("name", ["demo", *BOARDS])
def test_what_is_not_said_is_left_to_others(name: str) -> None:
    line = command(name)
    assert "use_sim_time" not in line
    assert "autostart" not in line
    assert "launch_params" not in line


def test_arguments_of_the_node() -> None:
    line = command("orin_nx", namespace="robot1", name="eyes", log_level="debug", transport="raw", autostart="False")
    assert "--log-level robot1.eyes:=debug" in line
    assert "__node:=eyes" in line
    assert "/robot1/eyes:\n  ros__parameters:\n    autostart: false\n    transport:\n    - raw\n" in line


def test_topics_bring_their_own_transport() -> None:
    raw = command("demo", cameras="front", camera_topics="/front/image_raw")
    assert "transport:\n    - auto" in raw  # and not `compressed`, which demo.yaml says of its own topics
    for topic, transport in (("/front/image_raw/compressed", "raw"), ("/front/image_raw", "compressed")):
        with pytest.raises(ConfigError, match=f"transport is {transport}, but {topic} carries"):
            start("demo", cameras="front", camera_topics=topic, transport=transport)
    with pytest.raises(ConfigError, match=r"1 topics .* for 2 cameras"):
        start("orin_nano", cameras="front,back", camera_topics="/front/image_raw")


@pytest.mark.parametrize("name", ["demo", *BOARDS])
def test_parameters_for_another_node_are_no_start(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("litevlm: {ros__parameters: {cameras: [front]}}\n")
    assert nodes(start(name, params_file=str(file)))
    for arguments in ({"name": "eyes"}, {"namespace": "robot1"}):
        with pytest.raises(ConfigError, match=r"sections for /litevlm, and none for /(eyes|robot1/litevlm)\."):
            start(name, params_file=str(file), **arguments)


def test_files_may_be_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.yaml").write_text("/**: {ros__parameters: {cameras: [front]}}\n")
    assert "cameras: [front]" in command("demo", params_file="~/a.yaml")
    assert f"--video={tmp_path}/a.yaml" in command("demo", which=0, video="~/a.yaml")


def test_a_video_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"video is /none\.mp4, and there is no such file"):
        start("demo", video="/none.mp4")


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


def test_a_camera_that_is_not_plugged_in_stops_only_who_requires_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed_cameras, "get_package_share_directory", lambda package: "/")
    arguments = {"use_composed_cameras": "true", "cameras": ",".join(f"camera{number}" for number in range(99))}
    started = start("orin_nano", **arguments)
    assert "no camera driver is started: cameras names camera0, " in notices(started)[-1]
    assert [type(entity) for entity in started if isinstance(entity, Node)] == [Node]
    with pytest.raises(ConfigError, match="cameras names camera0, "):
        start("orin_nano", **arguments, required="true")


def test_drivers_publish_raw_images_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed_cameras, "get_package_share_directory", lambda package: "/")
    arguments = {"use_composed_cameras": "true", "cameras": "front", "camera_devices": "/dev/a"}
    assert "transport:\n    - raw" in command("orin_nano", **arguments)
    assert "transport:\n    - compressed" in command("orin_nano", **arguments, transport="compressed")


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
