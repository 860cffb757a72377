"""Joining ROS: the one place that calls rclpy.init, for the node and for all tools, and puts its errors into words.

This file imports no rclpy at its top: rclpy ends the process where RMW_IMPLEMENTATION is wrong, and --help of tools
works without ROS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from litevlm_ros.errors import ConfigError, first_line
from litevlm_ros.node.command_line import ROS_ARGUMENTS
from litevlm_ros.node.ros_environment import check_environment

_PLACES = re.compile(r"(, at \S+:\d+)+$")
"""The lines of ROS's own source code that end its messages."""

_HELP = "`ros2 run litevlm_ros litevlm_node --help` shows how they are written"

_SENTENCES = (
    (r"Couldn't parse params file: '--params-file (.*)'\. Error: Error opening YAML file",
     r"the file of parameters \1 cannot be opened; correct the path behind --params-file"),
    (r"Couldn't parse params file: '--params-file (.*)'\. Error: (.*)",
     rf"the file of parameters \1 is not one of ROS: \2. Correct it; {_HELP}"),
    (r"Couldn't parse remap rule: '(.*)'\. Error: .*",
     r"\1 renames nothing; write FROM:=TO, such as -r image:=/front/image, -r __node:=name or -r __ns:=/robot1"),
    (r"Couldn't parse parameter override rule: '(.*)'\. Error: (?:Expected lexeme|error not set).*",
     r"\1 sets no parameter; write -p NAME:=VALUE, and for an empty text -p NAME:=''"),
    (r"Couldn't parse parameter override rule: '(.*)'\. Error: (.*)",
     r"\1 sets no parameter: \2. The items of a list have one type, and y, n, on, off and numbers are texts only in "
     r"quotes"),
    (r"Couldn't parse log level: '(.*)'\. Error: .*",
     r"\1 is no log level; write debug, info, warn, error or fatal, for one logger as NAME:=LEVEL"),
    (r"SECURITY ERROR: (.*)",
     r"ROS_SECURITY_STRATEGY is Enforce, but \1 Make the enclave with ros2 security create_enclave, or run without "
     r"security: unset ROS_SECURITY_ENABLE"),
)  # fmt: skip
"""Pairs of what rcl says and what a person is told instead."""


def join_ros(for_ros: Sequence[str] = (), context: Any = None) -> None:
    """Initialises rclpy in `context`, or in its default one, without signal handlers.

    `for_ros` are the arguments behind --ros-args. Raises ConfigError, which says the fix, if they or the environment
    are wrong.
    """
    check_environment(for_ros)
    with ros_errors_in_words():
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        rclpy.init(args=[ROS_ARGUMENTS, *for_ros], context=context, signal_handler_options=SignalHandlerOptions.NO)


@contextmanager
def ros_errors_in_words() -> Iterator[None]:
    """Turns ROS's refusals to start, or to make a node, into ConfigError. Other exceptions pass."""
    from rclpy.exceptions import ParameterException
    from rclpy.impl.implementation_singleton import rclpy_implementation as implementation

    try:
        yield
    except implementation.UnknownROSArgsError as error:
        names = re.sub(r"[]['\",]", "", str(error))
        raise ConfigError(f"unknown arguments behind --ros-args: {names}; {_HELP}") from error
    except implementation.RCLError as error:
        raise ConfigError(_in_words(str(error))) from error
    except ParameterException as error:
        raise ConfigError(f"a parameter of ROS itself is wrong: {first_line(error)}. Correct it; {_HELP}") from error


def _in_words(text: str) -> str:
    line = " ".join(text.replace("\n,", ",").split())
    reason = _PLACES.sub("", line.partition(": ")[2] or line)
    for pattern, sentence in _SENTENCES:
        if match := re.fullmatch(pattern, reason):
            return match.expand(sentence)
    return f"ROS does not start: {reason}. Check the arguments behind --ros-args, and the variables ROS_* and RMW_*"
