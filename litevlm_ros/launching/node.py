"""The actions by which launch files start the node."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import SetEnvironmentVariable, Shutdown
from launch.events.process import ProcessExited
from launch.launch_context import LaunchContext
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import Node

from litevlm_ros.launching.preflight import DEMO_MODEL, camera_names, read_parameters

_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""The environment variables in which Fast DDS 2 and Fast DDS 3 look for a profile."""


def shared_file(name: str) -> Path:
    """Returns the path of a file in the share directory of the installed package, such as config/demo.yaml."""
    return Path(get_package_share_directory("litevlm_ros")) / name


def shared_memory_profile() -> list[LaunchDescriptionEntity]:
    """Returns actions that make Fast DDS's shared memory large enough for several cameras.

    They affect all processes that are launched after them, and no other middleware. Returns none if the environment
    names a profile already.
    """
    if any(variable in os.environ for variable in _PROFILE_VARIABLES):
        return []
    profile = str(shared_file("config/fastdds.xml"))
    return [SetEnvironmentVariable(variable, profile) for variable in _PROFILE_VARIABLES]


def parameter_overrides(arguments: Mapping[str, str]) -> dict[str, Any]:
    """Returns the node parameters that NODE_ARGUMENTS set. Empty arguments leave the parameter to the file."""
    overrides: dict[str, Any] = {}
    for argument in ("cameras", "camera_topics"):
        if arguments[argument]:
            overrides[argument] = camera_names(arguments[argument])
    for argument, parameter in (("model", "model_dir"), ("engine_dir", "engine_dir")):
        if arguments[argument]:
            overrides[parameter] = str(Path(arguments[argument]).expanduser().absolute())
    if arguments["model"] == DEMO_MODEL:
        # The demo model has one kind of graph and a context of its own, whatever the file says.
        demo = {"vision_precision": "auto", "text_precision": "auto", "max_context": 0}
        overrides |= {"model_dir": str(shared_file("models/demo")), **demo}
    return overrides


def effective_parameters(arguments: Mapping[str, str], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters that the node will read: its file with `overrides` on top. Raises ConfigError."""
    return {**read_parameters(Path(arguments["params_file"])), **overrides}


def end_all(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """Shuts the launch down, unless it is shutting down already. Meant for `on_exit` of an action."""
    return None if context.is_shutdown else Shutdown(reason=f"{event.process_name} has ended")


def litevlm_node(arguments: Mapping[str, str], overrides: Mapping[str, Any]) -> Node:
    """Returns the action that runs the node. When the node exits, the launch shuts down.

    Raises ConfigError if the file of parameters cannot be read; ROS's launch would start the node without it.
    """
    read_parameters(Path(arguments["params_file"]))
    return Node(
        package="litevlm_ros",
        executable="litevlm_node",
        name="litevlm",
        namespace=arguments["namespace"],
        parameters=[arguments["params_file"], *([dict(overrides)] if overrides else [])],
        arguments=["--ros-args", "--log-level", arguments["log_level"]],
        output="screen",
        emulate_tty=True,
        on_exit=end_all,
    )
