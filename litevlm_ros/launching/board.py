"""The launch description of one board."""

from __future__ import annotations

from launch.actions import LogInfo, OpaqueFunction
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.launch_description_entity import LaunchDescriptionEntity

from litevlm_ros.errors import ConfigError
from litevlm_ros.launching.arguments import CAMERA_ARGUMENTS, NODE_ARGUMENTS, is_true, params_file, values
from litevlm_ros.launching.camera_devices import assign_devices
from litevlm_ros.launching.composed_cameras import composed_cameras
from litevlm_ros.launching.node import (
    effective_parameters,
    litevlm_node,
    parameter_overrides,
    shared_file,
    shared_memory_profile,
)
from litevlm_ros.launching.presets import Preset, camera_names, missing_engines


def board_description(preset: Preset, parameters: str) -> LaunchDescription:
    """Node and, if wanted, camera drivers, with config/`parameters` as the default of the node's parameters."""
    arguments = (params_file(str(shared_file(f"config/{parameters}"))), *NODE_ARGUMENTS, *CAMERA_ARGUMENTS)

    def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        given = values(context, arguments)
        overrides = parameter_overrides(given)
        drivers = []
        if is_true(given["use_composed_cameras"]):
            if given["camera_topics"]:
                raise ConfigError("use_composed_cameras publishes NAME/image_raw; leave out camera_topics")
            # The drivers publish under these names, whatever the file says.
            overrides |= {"camera_topics": [""], "transport": "raw"}
            cameras = camera_names(effective_parameters(given, overrides).get("cameras"))
            if not cameras:
                raise ConfigError(f"{given['params_file']} names no cameras; say cameras:=front,back")
            devices = assign_devices(cameras, camera_names(given["camera_devices"]))
            drivers = [composed_cameras(devices, given["camera_driver"], given["namespace"])]
        notice = missing_engines(effective_parameters(given, overrides), preset)
        notices = [LogInfo(msg=notice)] if notice else []
        return [*notices, *shared_memory_profile(), *drivers, litevlm_node(given, overrides)]

    return LaunchDescription([*(argument.declare() for argument in arguments), OpaqueFunction(function=start)])
