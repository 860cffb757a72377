"""Looks at parameters, engines and camera devices before the node starts. This module needs no ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import PARTS, engine_name

DEMO_MODEL = "demo"
"""The value of the launch argument `model` that stands for the model that ships with the package."""

_PORTS = Path("/dev/v4l/by-path")
"""The directory in which udev links ports to devices.

A camera that also publishes metadata, as most USB cameras do, has links with several indices; index 0 has the images.
"""


@dataclass(frozen=True)
class Board:
    """A board that has a launch file of its own."""

    name: str
    parameters: str
    """The file under config/ with the node's parameters."""
    build: str
    """The flags of build_engines for this board."""


def read_parameters(file: Path) -> dict[str, Any]:
    """Returns the parameters in all sections of a ROS parameter file.

    Raises ConfigError if the file cannot be read or is no parameter file.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"params_file {file} cannot be read: {error}") from None
    parameters: dict[str, Any] = {}
    for section in _sections(content):
        parameters.update(section)
    if not parameters:
        raise ConfigError(f"params_file {file} has no parameters; it needs a section `ros__parameters:` with some")
    return parameters


def _sections(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, dict):
        return []
    own = content.get("ros__parameters")
    if isinstance(own, dict):
        return [own]
    return [section for value in content.values() for section in _sections(value)]


def camera_names(value: Any) -> list[str]:
    """Returns the items of a launch argument or parameter such as `cameras`: a list, or one text with commas."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [str(item).strip() for item in items if str(item).strip()]


def assign_devices(cameras: Sequence[str], given: Sequence[str], ports: Path = _PORTS) -> dict[str, str]:
    """Returns the device of each camera: the `given` ones, or those that are plugged in, in the order of their ports.

    Raises ConfigError if too few devices are plugged in, or if the number of given devices is not that of the cameras.
    """
    if given:
        if len(given) != len(cameras):
            raise ConfigError(
                f"camera_devices has {len(given)} devices for {len(cameras)} cameras ({', '.join(cameras)}); give one "
                "each, or none"
            )
        return dict(zip(cameras, given, strict=True))
    # A USB 3 port has a second link that says usbv3; both lead to the same device.
    found = {link.resolve(): str(link) for link in sorted(ports.glob("*-video-index0"), reverse=True)}
    devices = sorted(found.values())
    if len(devices) < len(cameras):
        listed = f": {', '.join(devices)}" if devices else ""
        raise ConfigError(
            f"cameras names {', '.join(cameras)}, but {ports} has {len(devices)} devices{listed}. Plug in as many, "
            "name fewer cameras, or give camera_devices:=/dev/video0,... yourself"
        )
    return dict(zip(cameras, devices, strict=False))


def missing_engines(parameters: Mapping[str, Any], board: Board) -> str:
    """Returns a notice about files that the node needs for TensorRT, with the commands that make them, or ''.

    It looks at file names only. The node itself finds out whether an engine fits this machine, and tells.
    """
    model = Path(str(parameters.get("model_dir", ""))).expanduser().absolute()
    engines = Path(str(parameters.get("engine_dir", "") or model)).expanduser().absolute()
    output = "" if engines == model else f" --output {engines}"
    build = f"ros2 run litevlm_ros build_engines --model {model}{output} {board.build}"
    if not model.is_dir():
        return (
            f"There is no model in {model}. Download one, once:\n"
            f"    ros2 run litevlm_ros download_models --output {model}\n"
            f"then build its engines on this board, which takes a while:\n"
            f"    {build}\n"
            f"To try the launch file without either: model:={DEMO_MODEL}"
        )
    missing = []
    for part in PARTS:
        precision = str(parameters.get(f"{part.partition('_')[0]}_precision", "auto"))
        pattern = engine_name(part, "*" if precision == "auto" else precision)
        if not any(engines.glob(pattern)):
            missing.append(pattern)
    if not missing:
        return ""
    return (
        f"No {' and no '.join(missing)} in {engines}: without engines the node runs the exported graphs on the CPU, "
        f"which is slow, or cannot start. Build them once, on this {board.name}:\n    {build}"
    )
