"""The node's command line: its own arguments, the help, and the files of parameters that it names. It needs no ROS."""

from __future__ import annotations

import argparse
import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROS_ARGUMENTS = "--ros-args"
_END = "--"
_PARAMS_FILE = "--params-file"
_WIDTH = 110

_EPILOG = """\
ROS arguments, behind --ros-args:
  -p NAME:=VALUE          sets a parameter; VALUE is YAML
  --params-file FILE      sets those in a YAML file, whose section is called /**, or like the node: /litevlm
  -r FROM:=TO             renames a topic or service; -r __ns:=/robot1 sets the namespace, -r __node:=NAME the name
  --log-level LEVEL       debug, info, warn, error or fatal for all loggers; litevlm:=debug for the node's alone,
                          or robot1.litevlm:=debug in a namespace

Examples:
  ros2 run litevlm_ros litevlm_node --ros-args -p cameras:=[front] -p camera_topics:=[/camera/image_raw]
  ros2 run litevlm_ros litevlm_node --ros-args --params-file robot.yaml --log-level litevlm:=debug

robot.yaml:
  /**:
    ros__parameters:
      cameras: [front]
      model_dir: /opt/models/internvl2-1b
      view_selection: lexical

Parameters with their defaults and what is allowed. Those marked `live` can be set while a model is loaded, `autostart`
at the start only, and all others while the node is unconfigured. `ros2 param describe /litevlm NAME` shows the same.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose help ends with the list of the parameters, which is made only for the help."""

    def format_help(self) -> str:
        return f"{super().format_help()}{_EPILOG}\n{_parameters()}"


def check_command_line(arguments: Sequence[str]) -> None:
    """Prints the help if `arguments`, without the program's name, ask for it, and refuses those that nobody reads.

    Both raise SystemExit, with the status 0 or 2.
    """
    parser = _Parser(
        prog="litevlm_node",
        usage="litevlm_node [-h] [--ros-args ...]",
        description="The ROS 2 node that captions cameras and answers questions about what they see.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own, _ = split(arguments)
    _, unknown = parser.parse_known_args(own)
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}. Arguments for ROS follow {ROS_ARGUMENTS}")


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments of the program itself, and those for ROS: between --ros-args and -- or the end."""
    own: list[str] = []
    for_ros: list[str] = []
    current = own
    for argument in arguments:
        if argument == ROS_ARGUMENTS:
            current = for_ros
        elif argument == _END and current is for_ros:
            current = own
        else:
            current.append(argument)
    return own, for_ros


def parameter_files(arguments: Sequence[str]) -> list[Path]:
    """Returns the files behind --params-file, in their order."""
    _, for_ros = split(arguments)
    return [Path(file) for flag, file in itertools.pairwise(for_ros) if flag == _PARAMS_FILE]


def _parameters() -> str:
    from litevlm_ros.node.parameters import PARAMETERS  # imported here, because it takes OpenCV along

    lines = []
    for name, parameter in PARAMETERS.items():
        allowed = ", ".join(parameter.choices) or parameter.range
        notes = [f"({allowed})"] * bool(allowed) + ["live"] * parameter.live
        lines.append("   ".join((f"  {name}: {_yaml(parameter.default)}", *notes)))
        lines.append(textwrap.indent(textwrap.fill(parameter.description, _WIDTH - 6), "      "))
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    """Returns a default as it is written in a file of parameters."""
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    # `off` needs no quotes here: the node takes false for it.
    return (value or '""') if isinstance(value, str) else f"{value}"
