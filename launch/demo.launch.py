"""Starts the node, and cameras that show it a rendered street or a video:

ros2 launch litevlm_ros demo.launch.py
ros2 launch litevlm_ros demo.launch.py video:=/path/to/drive.mp4 cameras:=front
"""

from __future__ import annotations

from launch.actions import ExecuteProcess, OpaqueFunction
from launch_ros.substitutions import ExecutableInPackage

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from litevlm_ros.launching.arguments import FLAGS, NODE_ARGUMENTS, Argument, is_true, params_file, values
from litevlm_ros.launching.node import end_all, litevlm_node, parameter_overrides, shared_file, shared_memory_profile

ARGUMENTS = (
    params_file(str(shared_file("config/demo.yaml"))),
    *NODE_ARGUMENTS,
    Argument("start_cameras", "true", "Start demo_cameras, which publishes the images. false: your drivers do.", FLAGS),
    Argument("video", "", "Video file for demo_cameras to show. Empty: a rendered street."),
    Argument("rate", "10", "Images a second of each of demo_cameras' cameras."),
)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*(argument.declare() for argument in ARGUMENTS), OpaqueFunction(function=_start)])


def _start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = values(context, ARGUMENTS)
    cameras = []
    if is_true(given["start_cameras"]):
        options = [f"--{name}={given[name]}" for name in ("cameras", "video", "rate") if given[name]]
        command = [ExecutableInPackage("demo_cameras", "litevlm_ros"), *options]
        if given["namespace"]:
            command += ["--ros-args", "-r", f"__ns:=/{given['namespace'].strip('/')}"]
        cameras = [ExecuteProcess(cmd=command, name="demo_cameras", output="screen", on_exit=end_all)]
    return [*shared_memory_profile(), *cameras, litevlm_node(given, parameter_overrides(given))]
