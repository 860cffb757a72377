"""The actions by which launch files start the node."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import SetEnvironmentVariable
from launch.launch_context import LaunchContext
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import Node

from litevlm_ros.launching.arguments import is_true
from litevlm_ros.launching.names import full_name, logger_name, namespace
from litevlm_ros.launching.preflight import DEMO_MODEL, camera_names, check_cameras, read_parameters
from litevlm_ros.launching.supervision import Supervision

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
    for argument in ("cameras", "camera_topics", "transport"):
        if arguments[argument]:
            overrides[argument] = camera_names(arguments[argument])
    if arguments["camera_topics"] and not arguments["transport"]:
        # The transport in the file is that of other topics.
        overrides["transport"] = ["auto"]
    for argument, parameter in (("model", "model_dir"), ("engine_dir", "engine_dir")):
        if arguments[argument]:
            overrides[parameter] = str(Path(arguments[argument]).expanduser().absolute())
    for flag in ("autostart", "use_sim_time"):
        if arguments[flag]:
            overrides[flag] = is_true(arguments[flag])
    if arguments["model"] == DEMO_MODEL:
        # The demo model has one kind of graph and a context of its own, whatever the file says.
        demo = {"vision_precision": "auto", "text_precision": "auto", "max_context": 0}
        overrides |= {"model_dir": str(shared_file("models/demo")), **demo}
    return overrides


def effective_parameters(
    context: LaunchContext, arguments: Mapping[str, str], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the parameters that the node will read: those of its file, what was inherited, and `overrides`.

    Raises ConfigError if the file cannot be read or has none for this node; ROS's launch would start the node without.
    """
    effective: dict[str, Any] = {}
    for source in _parameter_sources(context, arguments):
        if isinstance(source, dict):
            effective |= source
        elif source == arguments["params_file"]:
            effective |= read_parameters(Path(source), full_name(context, arguments))
    return {**effective, **overrides}


def inherited_parameters(context: LaunchContext) -> list[dict[str, Any] | str]:
    """Returns what SetParameter and SetParametersFromFile of including launch files have set: values and file names."""
    items = context.launch_configurations.get("global_params") or []
    return [str(item) if isinstance(item, (str, Path)) else dict([item]) for item in items]


def _parameter_sources(context: LaunchContext, arguments: Mapping[str, str]) -> list[dict[str, Any] | str]:
    """Returns the node's parameters and files, the weaker before the stronger.

    launch_ros has a node's own file win over what is inherited. That is right for a file that somebody gave, but ours
    only holds defaults.
    """
    file = arguments["params_file"]
    return [file, *inherited_parameters(context)] if Path(file).parent == shared_file("config") else [file]


def clock_parameters(arguments: Mapping[str, str]) -> list[dict[str, Any]]:
    """Returns the parameters that everything beside the node gets: its clock, if the arguments say which."""
    return [{"use_sim_time": is_true(arguments["use_sim_time"])}] if arguments["use_sim_time"] else []


def litevlm_node(context: LaunchContext, arguments: Mapping[str, str], overrides: Mapping[str, Any]) -> Node:
    """Returns the action that runs the node. Raises ConfigError if an argument or the file of parameters is wrong."""
    name = full_name(context, arguments)
    parameters = effective_parameters(context, arguments, overrides)
    if arguments["cameras"] or arguments["camera_topics"] or arguments["transport"]:
        check_cameras(parameters)
    return Node(
        package="litevlm_ros",
        executable="litevlm_node",
        name=arguments["name"],
        namespace=namespace(context, arguments),
        parameters=[*_parameter_sources(context, arguments), *([dict(overrides)] if overrides else [])],
        arguments=["--ros-args", "--log-level", f"{logger_name(name)}:={arguments['log_level']}"],
        output="screen",
        emulate_tty=True,
        **Supervision.of_arguments(arguments).options(),
    )
