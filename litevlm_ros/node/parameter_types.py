"""ROS parameters as this package takes them: their types, ranges and choices, and what YAML makes of what people write.

This file needs no ROS. The node's own parameters are listed in parameters.py, parameter_declaration.py declares them.
"""

from __future__ import annotations

import array
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from litevlm_ros.errors import ConfigError

if TYPE_CHECKING:
    from rclpy.node import Node

OFF = "off"
"""The choice that YAML turns into false, so that false stands for it."""


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

    def read(self, name: str, value: Any) -> Any:
        """Returns `value` in the parameter's own type; a list as a tuple. Raises ConfigError, which names `name`.

        Where a text is expected, false is taken as the choice `off` and a whole number as its digits, since YAML reads
        these texts so. Where a list is expected, a single text is one with commas between the items.
        """
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise ConfigError(f"parameter {name} must be true or false, not {_shown(value)}")
            return value
        if isinstance(self.default, (int, float)):
            return self._number(name, value)
        if isinstance(self.default, list):
            # An empty text is how launch files say "no items".
            texts = (self._text(name, item).strip() for item in _items(value))
            return tuple(self._chosen(name, text) for text in texts if text)
        return self._chosen(name, self._text(name, value))

    def canonical(self, name: str, value: Any) -> Any:
        """Returns `value` as ROS is to store it: in the declared type, so that tools show and dump what it means.

        A list without items is stored as [''], because an empty list has no type in ROS. Raises ConfigError.
        """
        read = self.read(name, value)
        return (list(read) or [""]) if isinstance(read, tuple) else read

    def _text(self, name: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        if value is False and OFF in self.choices:
            return OFF
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if self.choices:
            because = ", as YAML reads on, yes and true" if value is True else ""
            raise ConfigError(f"parameter {name} is {_shown(value)}{because}; allowed: {', '.join(self.choices)}")
        if isinstance(value, bool):
            raise ConfigError(
                f"parameter {name} is {_shown(value)}, as YAML reads words such as "
                f"{'on and yes' if value else 'off and no'}; if a text is meant, put it in quotes: \"'off'\""
            )
        if isinstance(value, float):
            number = _shown(value)
            raise ConfigError(
                f"parameter {name} is the number {number}; if a text is meant, put it in quotes: \"'{number}'\""
            )
        raise ConfigError(f"parameter {name} must be {self.kind}, not {_shown(value)}")

    def _chosen(self, name: str, text: str) -> str:
        if self.choices and text not in self.choices:
            raise ConfigError(f"parameter {name} is {text!r}; allowed: {', '.join(self.choices)}")
        return text

    def _number(self, name: str, value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"parameter {name} must be a number, not {_shown(value)}")
        whole = isinstance(self.default, int)
        if whole and value != int(value):
            raise ConfigError(f"parameter {name} must be a whole number, not {_shown(value)}")
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            raise ConfigError(f"parameter {name} is {_shown(value)}; allowed: {self.kind}s {self.range}")
        return int(value) if whole else float(value)

    @property
    def kind(self) -> str:
        """The type in words, such as `whole number`, without its article."""
        names: Mapping[type, str] = {
            bool: "true or false", int: "whole number", float: "number", list: "a list of texts", str: "a text"
        }  # fmt: skip
        return names[type(self.default)]

    @property
    def range(self) -> str:
        """The allowed numbers, such as `from 1 to 5`; '' where there is no limit."""
        return "" if self.low is None or self.high is None else f"from {_shown(self.low)} to {_shown(self.high)}"


class Values:
    """The values of a node's parameters in the types they are meant to have. Raises ConfigError for a wrong one."""

    def __init__(
        self, node: Node, parameters: Mapping[str, Parameter], changes: Mapping[str, Any] | None = None
    ) -> None:
        """`changes` are new values that the node does not have yet."""
        self._node = node
        self._parameters = parameters
        self._changes = changes or {}

    def mistakes(self) -> list[str]:
        """Returns one sentence for each parameter whose value is wrong."""
        return mistakes(*(partial(self.any, name) for name in self._parameters))

    def any(self, name: str) -> Any:
        """Returns a value of any type; a list as a tuple."""
        value = self._changes[name] if name in self._changes else self._node.get_parameter(name).value
        return self._parameters[name].read(name, value)

    def text(self, name: str) -> str:
        """Returns a text."""
        return self.any(name)

    def flag(self, name: str) -> bool:
        """Returns a boolean."""
        return self.any(name)

    def number(self, name: str) -> float:
        """Returns a finite number, which may have been set as an integer."""
        return self.any(name)

    def integer(self, name: str) -> int:
        """Returns a whole number, which may have been set as a float such as 2.0."""
        return self.any(name)

    def names(self, name: str) -> tuple[str, ...]:
        """Returns a list of non-empty texts, which may have been set as one text with commas."""
        return self.any(name)


def mistakes(*checks: Callable[[], object]) -> list[str]:
    """Calls all of `checks`. Returns what those say that raise ConfigError."""
    found = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            found.append(str(error))
    return found


def told_together(sentences: Sequence[str]) -> str:
    """Returns the sentences as one message: a single one as it is, several as a list."""
    if len(sentences) == 1:
        return sentences[0]
    return "\n- ".join((f"{len(sentences)} things about the parameters are wrong:", *sentences))


def _items(value: Any) -> Sequence[Any]:
    if value is None:  # an empty list in YAML has no type
        return ()
    if isinstance(value, str):
        return value.split(",")
    return value if isinstance(value, (Sequence, array.array)) else [value]


def _shown(value: Any) -> str:
    """Returns a value as people write it in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, (int, float)) else repr(value)
