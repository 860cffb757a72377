"""Declares, describes, reads and checks ROS parameters. The node's own are listed in parameters.py.

Parameters are declared without fixed types, because rclpy ends a node whose launch file says `1` where `1.0` is
declared, or whose file has a value out of range. Instead, such a mistake is reported when the node is configured, and
can be corrected while it runs.
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node

from litevlm_ros.errors import ConfigError

_ROS_PARAMETERS = ("use_sim_time", "start_type_description_service", "qos_overrides.")
"""Names, or beginnings of names, of the parameters that rclpy declares for every node."""


@dataclass(frozen=True)
class Parameter:
    """One ROS parameter. It has the type of its `default`; lists are lists of texts.

    A number lies between `low` and `high`, both included; a text is one of `choices`. A `live` parameter can be set
    while the node runs, a `read_only` one never, and all others only while no model is loaded.
    """

    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    read_only: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """Returns the description that ROS tools show."""
        constraints = [f"One of: {', '.join(self.choices)}."] if self.choices else []
        if not self.live and not self.read_only:
            constraints.append("Can be set only while the node is unconfigured.")
        descriptor = ParameterDescriptor(
            description=self.description,
            additional_constraints=" ".join(constraints),
            read_only=self.read_only,
            dynamic_typing=True,
        )
        if self.low is not None and self.high is not None:
            if isinstance(self.default, int):
                descriptor.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high))]
            else:
                limits = FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
                descriptor.floating_point_range = [limits]
        return descriptor

    def read(self, name: str, value: Any) -> Any:
        """Returns `value` in the parameter's own type. Raises ConfigError, which names the parameter."""
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise _wrong(name, value, "true or false")
            return value
        if isinstance(self.default, (int, float)):
            return self._number(name, value)
        if isinstance(self.default, list):
            return tuple(self._chosen(name, item) for item in _names(name, value))
        if not isinstance(value, str):
            raise _wrong(name, value, "a text")
        return self._chosen(name, value)

    def _chosen(self, name: str, text: str) -> str:
        if self.choices and text not in self.choices:
            raise ConfigError(f"parameter {name} is {text!r}; allowed: {', '.join(self.choices)}")
        return text

    def _number(self, name: str, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise _wrong(name, value, "a number")
        whole = isinstance(self.default, int)
        if whole and value != int(value):
            raise _wrong(name, value, "a whole number")
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            kind = "whole numbers" if whole else "numbers"
            raise ConfigError(f"parameter {name} is {value:g}; allowed: {kind} from {self.low:g} to {self.high:g}")
        return int(value) if whole else float(value)


class Values:
    """The values of a node's parameters in the types they are meant to have. Raises ConfigError for a wrong one."""

    def __init__(
        self, node: Node, parameters: Mapping[str, Parameter], changes: Mapping[str, Any] | None = None
    ) -> None:
        """`changes` are new values that the node does not have yet."""
        self._node = node
        self._parameters = parameters
        self._changes = changes or {}

    def text(self, name: str) -> str:
        """Returns a text."""
        return self._get(name)

    def flag(self, name: str) -> bool:
        """Returns a boolean."""
        return self._get(name)

    def number(self, name: str) -> float:
        """Returns a finite number, which may have been set as an integer."""
        return self._get(name)

    def integer(self, name: str) -> int:
        """Returns a whole number, which may have been set as a float such as 2.0."""
        return self._get(name)

    def names(self, name: str) -> tuple[str, ...]:
        """Returns a list of non-empty texts, which may have been set as one text with commas."""
        return self._get(name)

    def _get(self, name: str) -> Any:
        value = self._changes[name] if name in self._changes else self._node.get_parameter(name).value
        return self._parameters[name].read(name, value)


def declare(node: Node, parameters: Mapping[str, Parameter]) -> None:
    """Declares parameters that accept every type and value, and describes those whose values are right."""
    for name, parameter in parameters.items():
        loose = ParameterDescriptor(description=parameter.description, dynamic_typing=True)
        node.declare_parameter(name, parameter.default, parameter.descriptor() if parameter.read_only else loose)
    describe(node, parameters)


def describe(node: Node, parameters: Mapping[str, Parameter]) -> None:
    """Tells ROS the ranges of all parameters whose values are in range. From then on rclpy refuses other values."""
    for name, parameter in parameters.items():
        if not parameter.read_only:
            with contextlib.suppress(InvalidParameterValueException):
                node.set_descriptor(name, parameter.descriptor())


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


def _names(name: str, value: Any) -> tuple[str, ...]:
    if value is None:  # an empty list in YAML has no type
        return ()
    items = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, Sequence) else [value]
    if not all(isinstance(item, str) for item in items):
        raise _wrong(name, value, "a list of texts")
    # An empty text is how launch files say "no items".
    return tuple(item.strip() for item in items if item.strip())


def _wrong(name: str, value: object, kind: str) -> ConfigError:
    return ConfigError(f"parameter {name} must be {kind}, not {value!r}")
