"""The node beside cameras that show it a rendered street, or a video:

ros2 launch litevlm_ros demo.launch.py
ros2 launch litevlm_ros demo.launch.py video:=/path/to/drive.mp4 cameras:=front
"""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

PARAMS_FILE = Path(get_package_share_directory("litevlm_ros")) / "config" / "demo.yaml"
ARGUMENTS = (
    ("params_file", str(PARAMS_FILE), "YAML file with the node's parameters."),
    ("cameras", "", "Names of the cameras, with commas. Empty: those of params_file."),
    ("start_cameras", "true", "Start demo_cameras, which publishes the images. false: your own drivers do."),
    ("video", "", "Video file for demo_cameras to show. Empty: a rendered street."),
    ("rate", "10", "Images a second of each of demo_cameras' cameras."),
    ("namespace", "", "Namespace of the node: /NAMESPACE/litevlm/query and so on."),
    ("log_level", "info", "Least severity that the node logs: debug, info, warn, error or fatal."),
)


def generate_launch_description() -> LaunchDescription:
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=_start)])


def _start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    values = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    overrides = [{"cameras": values["cameras"]}] if values["cameras"] else []
    node = Node(
        package="litevlm_ros",
        executable="litevlm_node",
        name="litevlm",
        namespace=values["namespace"],
        parameters=[values["params_file"], *overrides],
        arguments=["--ros-args", "--log-level", values["log_level"]],
        output="screen",
        emulate_tty=True,
        on_exit=Shutdown(),
    )
    if values["start_cameras"].lower() not in ("true", "1", "yes"):
        return [node]
    options = [f"--{name}={values[name]}" for name in ("cameras", "video", "rate") if values[name]]
    executable = ExecutableInPackage("demo_cameras", "litevlm_ros")
    cameras = ExecuteProcess(cmd=[executable, *options], name="demo_cameras", output="screen", on_exit=Shutdown())
    return [cameras, node]
