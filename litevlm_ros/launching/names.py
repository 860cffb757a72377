"""The full name of the node, also in namespaces that including launch files have pushed."""

from __future__ import annotations

from collections.abc import Mapping

from launch.launch_context import LaunchContext
from launch_ros.utilities import make_namespace_absolute, prefix_namespace
from rclpy.exceptions import InvalidNamespaceException, InvalidNodeNameException
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name

from litevlm_ros.errors import ConfigError, first_line


def namespace(context: LaunchContext, arguments: Mapping[str, str]) -> str:
    """Returns the namespace of everything that is started, such as /robot1, or / where there is none.

    It is the argument `namespace` inside the one of PushRosNamespace, as launch_ros joins them. If the pushed one ends
    with it already, it is not added again: arguments of an including launch file reach this one, and one that pushes
    its own `namespace` would give it twice. Raises ConfigError if it is no namespace.
    """
    given = arguments["namespace"]
    pushed = context.launch_configurations.get("ros_namespace") or ""
    if given and not given.startswith("/") and f"{pushed}/".endswith(f"/{given.rstrip('/')}/"):
        given = ""
    joined = make_namespace_absolute(prefix_namespace(pushed, given)) or "/"
    try:
        validate_namespace(joined)
    except InvalidNamespaceException as error:
        raise ConfigError(f"namespace:={given} gives no namespace of ROS: {first_line(error).rstrip(':')}") from None
    return joined


def full_name(context: LaunchContext, arguments: Mapping[str, str]) -> str:
    """Returns the full name of the node, such as /robot1/litevlm. Raises ConfigError if it is no name."""
    try:
        validate_node_name(arguments["name"])
    except InvalidNodeNameException as error:
        raise ConfigError(f"name:={arguments['name']} is no name of a node: {first_line(error).rstrip(':')}") from None
    return f"{namespace(context, arguments).rstrip('/')}/{arguments['name']}"


def logger_name(name: str) -> str:
    """Returns the name of the logger of the node with the full name `name`: robot1.litevlm for /robot1/litevlm."""
    return name.strip("/").replace("/", ".")
