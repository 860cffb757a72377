"""The arguments that the launch files share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launch.actions import DeclareLaunchArgument
from launch.launch_context import LaunchContext
from launch.substitutions import LaunchConfiguration


@dataclass(frozen=True)
class Argument:
    """One `name:=value` of `ros2 launch`. An argument without `choices` may have any value."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()

    def declare(self) -> DeclareLaunchArgument:
        """Returns the action that declares the argument in a launch file."""
        return DeclareLaunchArgument(
            self.name,
            default_value=self.default,
            description=self.description,
            **({"choices": list(self.choices)} if self.choices else {}),
        )


FLAGS = ("true", "false")

NODE_ARGUMENTS = (
    Argument("namespace", "", "Namespace of node and cameras: /NAMESPACE/litevlm/query, /NAMESPACE/front/image_raw."),
    Argument("cameras", "", "Names of the cameras, with commas. Empty: those of params_file."),
    Argument(
        "camera_topics", "", "Image topic of each camera, with commas; a relative one is in the namespace. Empty: "
        "those of params_file, which are NAME/image_raw if it has none."
    ),
    Argument(
        "model", "", "Directory of the model; `demo` is the small one that ships. Empty: model_dir of params_file."
    ),
    Argument("engine_dir", "", "Directory of the TensorRT engines. Empty: that of the model."),
    Argument(
        "log_level", "info", "Least severity that the node logs.", ("debug", "info", "warn", "error", "fatal")
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
    return Argument("params_file", default, "YAML file with the node's parameters.")


def values(context: LaunchContext, arguments: Sequence[Argument]) -> Mapping[str, str]:
    """Returns the value of each argument by its name, without white space around it."""
    return {argument.name: LaunchConfiguration(argument.name).perform(context).strip() for argument in arguments}


def is_true(value: str) -> bool:
    """Returns whether the value of an argument with the choices FLAGS is 'true'."""
    return value == "true"
