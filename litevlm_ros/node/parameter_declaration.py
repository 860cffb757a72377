"""Declares ROS parameters and describes them to ROS tools.

Parameters are declared without fixed types, because rclpy ends a node whose launch file says `1` where `1.0` is
declared, or whose file has a value out of range. Instead, such a mistake is reported when the node is configured, and
can be corrected while it runs. rclpy tells tools the types of the values that are stored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from litevlm_ros.errors import ConfigError
from litevlm_ros.node.parameter_types import Parameter


def declare(node: Node, parameters: Mapping[str, Parameter]) -> None:
    """Declares parameters that accept every type and value, and describes those whose values are right.

    Right values are stored in the declared types from then on, whatever types the command line and the files gave.
    """
    for name, parameter in parameters.items():
        loose = ParameterDescriptor(
            description=parameter.description, dynamic_typing=True, read_only=parameter.read_only
        )
        node.declare_parameter(name, parameter.default, loose)
    given = [node.get_parameter(name) for name, parameter in parameters.items() if not parameter.read_only]
    changed = [new for old, new in zip(given, canonical(given, parameters), strict=True) if new is not old]
    # An empty list in a file has no type, and arrives as no value.
    empty = [each.name for each in given if each.value is None and isinstance(parameters[each.name].default, list)]
    changed += [RosParameter(name, value=[""]) for name in empty]
    if changed:
        node.set_parameters(changed)
    describe(node, parameters)


def describe(node: Node, parameters: Mapping[str, Parameter]) -> None:
    """Tells ROS the ranges of all parameters whose values are in range. From then on rclpy refuses other values."""
    for name, parameter in parameters.items():
        if not parameter.read_only:
            with contextlib.suppress(InvalidParameterValueException):
                node.set_descriptor(name, descriptor(parameter))


def descriptor(parameter: Parameter) -> ParameterDescriptor:
    """Returns the description that ROS tools show."""
    constraints = [f"One of: {', '.join(parameter.choices)}."] if parameter.choices else []
    if not parameter.live and not parameter.read_only:
        constraints.append("Can be set only while the node is unconfigured.")
    made = ParameterDescriptor(
        description=parameter.description,
        additional_constraints=" ".join(constraints),
        read_only=parameter.read_only,
        dynamic_typing=True,
    )
    if parameter.low is not None and parameter.high is not None:
        if isinstance(parameter.default, int):
            made.integer_range = [IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high))]
        else:
            limits = FloatingPointRange(from_value=float(parameter.low), to_value=float(parameter.high))
            made.floating_point_range = [limits]
    return made


def canonical(given: list[RosParameter], parameters: Mapping[str, Parameter]) -> list[RosParameter]:
    """Returns what is given with right values in their declared types; wrong ones, and missing ones, as they are."""
    return [_canonical(each, parameters[each.name]) if each.name in parameters else each for each in given]


def _canonical(given: RosParameter, parameter: Parameter) -> RosParameter:
    if given.value is None:
        return given
    try:
        value: Any = parameter.canonical(given.name, given.value)
    except ConfigError:
        return given  # to be reported, or corrected
    same = type(value) is type(given.value) and value == given.value
    return given if same else RosParameter(given.name, value=value)
