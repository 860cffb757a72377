"""The launch description that the boards' launch files share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launch.actions import LogInfo, OpaqueFunction
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.launch_description_entity import LaunchDescriptionEntity

from litevlm_ros.errors import ConfigError
from litevlm_ros.launching.arguments import CAMERA_ARGUMENTS, NODE_ARGUMENTS, is_true, params_file, values
from litevlm_ros.launching.composed_cameras import composed_cameras
from litevlm_ros.launching.node import (
    effective_parameters,
    litevlm_node,
    parameter_overrides,
    shared_file,
    shared_memory_profile,
)
from litevlm_ros.launching.preflight import Board, MissingCameraError, assign_devices, camera_names, missing_engines


def board_description(board: Board) -> LaunchDescription:
    """Starts the node and, if asked for, camera drivers, and tells which engines are missing."""
    arguments = (params_file(str(shared_file(f"config/{board.parameters}"))), *NODE_ARGUMENTS, *CAMERA_ARGUMENTS)

    def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        given = values(context, arguments)
        overrides = parameter_overrides(given)
        drivers: list[LaunchDescriptionEntity] = []
        if is_true(given["use_composed_cameras"]):
            if given["camera_topics"]:
                raise ConfigError("use_composed_cameras publishes NAME/image_raw; leave out camera_topics")
            # The drivers publish under these names, whatever the file of parameters says.
            overrides |= {"camera_topics": [""], "transport": overrides.get("transport", ["raw"])}
            drivers = _drivers(context, given, effective_parameters(context, given, overrides).get("cameras"))
        notice = missing_engines(effective_parameters(context, given, overrides), board)
        notices = [LogInfo(msg=notice)] if notice else []
        return [*notices, *shared_memory_profile(), *drivers, litevlm_node(context, given, overrides)]

    return LaunchDescription([*(argument.declare() for argument in arguments), OpaqueFunction(function=start)])


def _drivers(context: LaunchContext, given: Mapping[str, str], names: Any) -> list[LaunchDescriptionEntity]:
    cameras = camera_names(names)
    if not cameras:
        raise ConfigError(f"{given['params_file']} names no cameras; say cameras:=front,back")
    try:
        devices = assign_devices(cameras, camera_names(given["camera_devices"]))
    except MissingCameraError as error:
        if is_true(given["required"]):
            raise
        # A camera that is not plugged in must not keep the rest of a robot from starting.
        return [LogInfo(msg=f"ERROR: no camera driver is started: {error}")]
    return composed_cameras(context, given, devices)
