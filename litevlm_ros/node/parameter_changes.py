"""Changes of the node's parameters: which are accepted, in which state, and when they take effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.node.parameter_types import Values, declare, describe, unknown_parameters
from litevlm_ros.node.parameters import PARAMETERS
from litevlm_ros.node.settings import NodeSettings, read_node_settings, read_pipeline_config


class NodeParameters:
    """Declares a node's parameters, reads them, and accepts or refuses changes.

    Changes that come together are checked together, and with all other parameters. Either all are accepted or none.
    """

    def __init__(self, node: Node, in_use: Callable[[], bool], apply: Callable[[], None]) -> None:
        """`in_use` returns True while a model is loaded, or being loaded, with these parameters. Then only live ones
        can be set. `apply` is called in the executor after each change."""
        self._node = node
        self._in_use = in_use
        self._apply = apply
        declare(node, PARAMETERS)
        # rclpy has no public access to the names that the command line and the launch file set.
        for warning in unknown_parameters(getattr(node, "_parameter_overrides", {}), PARAMETERS):
            node.get_logger().warning(warning)
        node.add_on_set_parameters_callback(self._on_set)

    def autostart(self) -> bool:
        """Returns True if the node configures and activates itself. Raises ConfigError."""
        return Values(self._node, PARAMETERS).flag("autostart")

    def read(self, changes: Mapping[str, Any] | None = None) -> tuple[NodeSettings, PipelineConfig]:
        """Returns the settings, with `changes` that are not set yet. Raises ConfigError if a parameter is wrong."""
        values = Values(self._node, PARAMETERS, changes)
        settings, config = read_node_settings(values), read_pipeline_config(values)
        if not changes:
            describe(self._node, PARAMETERS)
        return settings, config

    def _on_set(self, parameters: list[RosParameter]) -> SetParametersResult:
        changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in PARAMETERS}
        try:
            self._check(changes)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        executor = self._node.executor
        if changes and executor is not None:
            # rclpy stores the values after this callback, unless another one refuses them.
            executor.create_task(self._apply)
        return SetParametersResult(successful=True)

    def _check(self, changes: Mapping[str, Any]) -> None:
        for name, value in changes.items():
            if value is None:
                raise ConfigError(f"parameter {name} cannot be without a value; an empty list is written ['']")
            PARAMETERS[name].read(name, value)
        if not self._in_use():
            return  # parameters that contradict each other may be corrected one after the other
        fixed = [
            name
            for name, value in changes.items()
            if not PARAMETERS[name].live and value != self._node.get_parameter(name).value
        ]
        if fixed:
            command = f"ros2 lifecycle set {self._node.get_fully_qualified_name()}"
            raise ConfigError(
                f"{', '.join(fixed)} can only be set while the node is unconfigured: {command} deactivate, then "
                "cleanup; afterwards configure and activate"
            )
        self.read(changes)
