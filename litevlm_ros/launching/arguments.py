"""The arguments that the launch files share."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launch.actions import DeclareLaunchArgument
from launch.launch_context import LaunchContext
from launch.substitutions import LaunchConfiguration

from litevlm_ros.errors import ConfigError


@dataclass(frozen=True)
class Argument:
    """One `name:=value` of `ros2 launch`. Without `choices`, any value is taken. A `file` may have a name with ~."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    file: bool = False

    def declare(self) -> DeclareLaunchArgument:
        """Returns the action that declares the argument in a launch file."""
        return DeclareLaunchArgument(
            self.name,
            default_value=self.default,
            description=self.description,
            **({"choices": list(self.choices)} if self.choices else {}),
        )


FLAGS = ("true", "false", "True", "False")
"""The values of a flag. Launch files in Python often pass the capital ones on."""

LEFT_TO_FILE = ("", *FLAGS)
"""The values of a flag that may be left to params_file, or to SetParameter in the launch file that includes ours."""

_LEVELS = ("debug", "info", "warn", "error", "fatal")
_SHORTEST_DELAY = 0.5
_LONGEST_DELAY = 86400.0

NODE_ARGUMENTS = (
    Argument(
        "namespace", "", "Namespace of node and cameras: /NAMESPACE/litevlm/query, /NAMESPACE/front/image_raw. It lies "
        "in the namespace that an including launch file has pushed, unless it begins with a slash."
    ),
    Argument("name", "litevlm", "Name of the node. Services and topics begin with it."),
    Argument("cameras", "", "Names of the cameras, with commas. Empty: those of params_file."),
    Argument(
        "camera_topics", "", "Image topic of each camera, with commas; a relative one is in the namespace. Empty: "
        "those of params_file, which are NAME/image_raw if it has none."
    ),
    Argument(
        "transport", "", "Kind of the images: raw, compressed, or auto, which means compressed if the topic ends in "
        "/compressed. One for all cameras, or one for each, with commas. Empty: that of params_file; with "
        "camera_topics auto."
    ),
    Argument(
        "model", "", "Directory of the model; `demo` is the small one that ships. Empty: model_dir of params_file."
    ),
    Argument("engine_dir", "", "Directory of the TensorRT engines. Empty: that of the model."),
    Argument(
        "autostart", "", "true: the node configures and activates itself. false: a lifecycle manager or a person does. "
        "Empty: as params_file says, or else true.", LEFT_TO_FILE
    ),
    Argument(
        "use_sim_time", "", "true: all that this file starts takes the time from /clock, as a simulator publishes it. "
        "Empty: as params_file or SetParameter says, or else false.", LEFT_TO_FILE
    ),
    Argument(
        "respawn", "true", "true: a process that dies is started again. One that ends as it was asked to is not, nor "
        "one whose settings cannot work (exit status 2).", FLAGS
    ),
    Argument("respawn_delay", "5.0", "Seconds after which a process that died is started again, at least 0.5."),
    Argument(
        "required", "false", "true: when a process of this file ends, the whole launch ends, with all that it runs; "
        "respawn then has no effect. false: the launch goes on.", FLAGS
    ),
    Argument(
        "log_level", "info", "Least severity that the node logs. Other loggers of its process stay at info.",
        (*_LEVELS, *(level.upper() for level in _LEVELS))
    ),
)  # fmt: skip
"""The arguments of every launch file, beside `params_file`, whose default differs between them."""

CAMERA_ARGUMENTS = (
    Argument(
        "use_composed_cameras", "false", "Also start a driver for each camera, as components of one container. false: "
        "your own drivers publish the images.", FLAGS
    ),
    Argument(
        "camera_devices", "", "With use_composed_cameras: device of each camera, with commas, such as /dev/video0. "
        "Empty: the cameras that are plugged in, in the order of their ports."
    ),
    Argument(
        "camera_driver", "v4l2_camera", "With use_composed_cameras: the package with the driver.",
        ("v4l2_camera", "usb_cam"),
    ),
)  # fmt: skip
"""The arguments of launch files that can start camera drivers."""


def params_file(default: str) -> Argument:
    """Returns the argument that names the file of parameters."""
    description = "YAML file with the node's parameters, in a section `/**` or of its name."
    return Argument("params_file", default, description, file=True)


def values(context: LaunchContext, arguments: Sequence[Argument]) -> Mapping[str, str]:
    """Returns the value of each argument by its name, without white space around it."""
    given = {argument.name: LaunchConfiguration(argument.name).perform(context).strip() for argument in arguments}
    # A shell does not replace the ~ in name:=~/file.
    return {a.name: os.path.expanduser(given[a.name]) if a.file else given[a.name] for a in arguments}


def is_true(value: str) -> bool:
    """Returns whether the value of an argument with the choices FLAGS is 'true'."""
    return value.lower() == "true"


def respawn_delay(value: str) -> float:
    """Returns the seconds of the argument `respawn_delay`. Raises ConfigError."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not _SHORTEST_DELAY <= seconds <= _LONGEST_DELAY:
        raise ConfigError(
            f"respawn_delay is {value!r}; give seconds from {_SHORTEST_DELAY:g} to {_LONGEST_DELAY:g}, or set "
            "respawn:=false"
        )
    return seconds
