"""The parameters of one node: what they mean together, and what happens when somebody sets some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.node.model_parameters import MODEL_PARAMETERS, read_pipeline_config
from litevlm_ros.node.parameter_types import Parameter, Values, declare, describe, unknown_parameters
from litevlm_ros.node.parameters import PARAMETERS, NodeSettings, read_node_settings

ALL_PARAMETERS: Mapping[str, Parameter] = {**PARAMETERS, **MODEL_PARAMETERS}


class NodeParameters:
    """Declares a node's parameters, reads them, and decides about changes.

    Changes that come together are checked together, and with all other parameters: either all are taken over or none.
    """

    def __init__(self, node: Node, in_use: Callable[[], bool], apply: Callable[[], None]) -> None:
        """`in_use` tells whether a model is loaded or being loaded for these parameters. Then only live ones change,
        and `apply` is called in the executor after each change."""
        self._node = node
        self._in_use = in_use
        self._apply = apply
        declare(node, ALL_PARAMETERS)
        # rclpy offers no public way to what the command line and the launch file set.
        for warning in unknown_parameters(getattr(node, "_parameter_overrides", {}), ALL_PARAMETERS):
            node.get_logger().warning(warning)
        node.add_on_set_parameters_callback(self._on_set)

    def autostart(self) -> bool:
        """Whether the node configures and activates itself. Raises ConfigError."""
        return Values(self._node, ALL_PARAMETERS).flag("autostart")

    def read(self, changes: Mapping[str, Any] | None = None) -> tuple[NodeSettings, PipelineConfig]:
        """The settings that the parameters amount to, with `changes` that are not set yet. Raises ConfigError."""
        values = Values(self._node, ALL_PARAMETERS, changes)
        settings, config = read_node_settings(values), read_pipeline_config(values)
        if not changes:
            describe(self._node, ALL_PARAMETERS)
        return settings, config

    def _on_set(self, parameters: list[RosParameter]) -> SetParametersResult:
        changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in ALL_PARAMETERS}
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
            ALL_PARAMETERS[name].read(name, value)
        if not self._in_use():
            return  # the others may be about to change too
        fixed = [
            name
            for name, value in changes.items()
            if not ALL_PARAMETERS[name].live and value != self._node.get_parameter(name).value
        ]
        if fixed:
            command = f"ros2 lifecycle set {self._node.get_fully_qualified_name()}"
            raise ConfigError(
                f"{', '.join(fixed)} can only be set while the node is unconfigured: {command} deactivate, then "
                "cleanup; afterwards configure and activate"
            )
        self.read(changes)
