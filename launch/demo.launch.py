"""Starts the node, and cameras that show it a rendered street or a video:

ros2 launch litevlm_ros demo.launch.py
ros2 launch litevlm_ros demo.launch.py video:=/path/to/drive.mp4 cameras:=front
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from launch.actions import OpaqueFunction
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from litevlm_ros.errors import ConfigError
from litevlm_ros.launching.arguments import FLAGS, NODE_ARGUMENTS, Argument, is_true, params_file, values
from litevlm_ros.launching.names import namespace
from litevlm_ros.launching.node import (
    clock_parameters,
    litevlm_node,
    parameter_overrides,
    shared_file,
    shared_memory_profile,
)
from litevlm_ros.launching.preflight import camera_names
from litevlm_ros.launching.supervision import Supervision

ARGUMENTS = (
    params_file(str(shared_file("config/demo.yaml"))),
    *NODE_ARGUMENTS,
    Argument("start_cameras", "true", "Start demo_cameras, which publishes the images. false: your drivers do.", FLAGS),
    Argument("video", "", "Video file for demo_cameras to show. Empty: a rendered street.", file=True),
    Argument("rate", "10", "Images a second of each of demo_cameras' cameras."),
)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*(argument.declare() for argument in ARGUMENTS), OpaqueFunction(function=_start)])


def _start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = values(context, ARGUMENTS)
    cameras = [_demo_cameras(context, given)] if is_true(given["start_cameras"]) else []
    return [*shared_memory_profile(), *cameras, litevlm_node(context, given, parameter_overrides(given))]


def _demo_cameras(context: LaunchContext, given: Mapping[str, str]) -> Node:
    if given["video"] and not Path(given["video"]).is_file():
        raise ConfigError(f"video is {given['video']}, and there is no such file; correct it, or leave video out")
    cameras = ",".join(camera_names(given["cameras"]))
    options = {"cameras": cameras, "video": given["video"], "rate": given["rate"]}
    return Node(
        package="litevlm_ros",
        executable="demo_cameras",
        name="demo_cameras",
        namespace=namespace(context, given),
        arguments=[f"--{name}={value}" for name, value in options.items() if value],
        parameters=clock_parameters(given),
        output="screen",
        **Supervision.of_arguments(given).options(),
    )
