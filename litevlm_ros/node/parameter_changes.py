"""The parameters of a running node: what is wrong with those that it was given, which changes it accepts, and when."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.node.command_line import parameter_files
from litevlm_ros.node.parameter_declaration import canonical, declare, describe
from litevlm_ros.node.parameter_types import Values, mistakes, told_together
from litevlm_ros.node.parameters import PARAMETERS
from litevlm_ros.node.params_files import unused_files
from litevlm_ros.node.qos_overrides import PREFIX, check_overrides
from litevlm_ros.node.settings import (
    NodeSettings,
    contradictions,
    read_node_settings,
    read_pipeline_config,
    read_sources,
)

_ROS_PARAMETERS = ("use_sim_time", "start_type_description_service", PREFIX)
"""Names, or beginnings of names, of the parameters that rclpy declares for every node."""


class _UnknownParameters(ParameterNotDeclaredException):
    """Parameters that do not exist were set. rclpy returns the text of this exception to whoever did it."""

    def __init__(self, text: str) -> None:
        Exception.__init__(self, text)


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
        self._told: set[str] = set()
        declare(node, PARAMETERS)
        if hasattr(node, "add_pre_set_parameters_callback"):  # Humble stores what was set, in the type that it has
            node.add_pre_set_parameters_callback(self._before_set)
        node.add_on_set_parameters_callback(self._on_set)

    def autostart(self) -> bool:
        """Returns True if the node configures and activates itself. Raises ConfigError."""
        return Values(self._node, PARAMETERS).flag("autostart")

    def read(self) -> tuple[NodeSettings, PipelineConfig]:
        """Returns the settings. Raises ConfigError, which names everything that is wrong.

        What was given and has no effect is named along with it, or in a warning, each only once.
        """
        values = Values(self._node, PARAMETERS)
        overrides = check_overrides(self._given, self._topics(values))
        wrong = [*_wrong(values), *overrides.wrong]
        useless = [
            *unused_files(parameter_files(sys.argv), self._node.get_fully_qualified_name()),
            *unknown_parameters(self._given, PARAMETERS),
            *overrides.useless,
        ]
        new = [sentence for sentence in useless if sentence not in self._told]
        self._told.update(new)
        if wrong:
            raise ConfigError(told_together([*wrong, *new]))
        if new:
            self._node.get_logger().warning(told_together(new))
        describe(self._node, PARAMETERS)
        return read_node_settings(values), read_pipeline_config(values)

    @property
    def _given(self) -> Mapping[str, Any]:
        """The parameters that the command line, files and launch files gave to this node, by their names."""
        # rclpy has no public access to them.
        overrides: Mapping[str, RosParameter] = getattr(self._node, "_parameter_overrides", {})
        return {name: parameter.value for name, parameter in overrides.items()}

    def _topics(self, values: Values) -> list[str] | None:
        try:
            return [self._node.resolve_topic_name(source.topic) for source in read_sources(values)]
        except ConfigError:
            return None

    def _before_set(self, parameters: list[RosParameter]) -> list[RosParameter]:
        unknown = [parameter.name for parameter in parameters if not self._node.has_parameter(parameter.name)]
        if unknown:
            told = unknown_parameters(unknown, PARAMETERS)
            raise _UnknownParameters(told_together(told or [f"{', '.join(unknown)} can only be given at the start"]))
        return canonical(parameters, PARAMETERS)

    def _on_set(self, parameters: list[RosParameter]) -> SetParametersResult:
        changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in PARAMETERS}
        wrong = self._mistakes(changes)
        if wrong:
            return SetParametersResult(successful=False, reason=told_together(wrong))
        executor = self._node.executor
        if changes and executor is not None:
            # rclpy stores the values after this callback, unless another one refuses them.
            executor.create_task(self._apply)
        return SetParametersResult(successful=True)

    def _mistakes(self, changes: Mapping[str, Any]) -> list[str]:
        """Returns one sentence for each reason to refuse the changes."""
        wrong = [
            f"parameter {name} cannot be without a value; an empty list is written ['']"
            for name, value in changes.items()
            if value is None
        ]
        wrong += mistakes(
            *(partial(PARAMETERS[name].read, name, value) for name, value in changes.items() if value is not None)
        )
        if wrong or not self._in_use():
            return wrong  # parameters that contradict each other may be corrected one after the other
        current = Values(self._node, PARAMETERS)
        new = Values(self._node, PARAMETERS, changes)
        fixed = [name for name in changes if not PARAMETERS[name].live and new.any(name) != current.any(name)]
        if fixed:
            command = f"ros2 lifecycle set {self._node.get_fully_qualified_name()}"
            return [
                f"{', '.join(fixed)} can only be set while the node is unconfigured: {command} deactivate, then "
                "cleanup; afterwards configure and activate"
            ]
        return _wrong(new)


def unknown_parameters(given: Iterable[str], parameters: Iterable[str]) -> list[str]:
    """Returns a warning for each of the `given` names that is no parameter, with the closest name that is one."""
    known = list(parameters)
    warnings = []
    for name in sorted(set(given) - set(known)):
        if not name.startswith(_ROS_PARAMETERS):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "ros2 param list shows those that there are"
            warnings.append(f"Parameter {name} is unknown and ignored; {hint}")
    return warnings


def _wrong(values: Values) -> list[str]:
    """Returns one sentence for each parameter that is wrong by itself, and for each that contradicts another."""
    # Those that are wrong by themselves are met again where they are compared with others.
    return list(dict.fromkeys([*values.mistakes(), *contradictions(values)]))
