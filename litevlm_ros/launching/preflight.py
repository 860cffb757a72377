"""Looks at parameters, engines and camera devices before the node starts. This module needs no ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.errors import ConfigError
from litevlm_ros.launching.parameter_sections import read_sections, section_matches
from litevlm_ros.model_directory import PARTS, engine_name

TRANSPORTS = ("auto", "raw", "compressed")
"""Values of the parameter and launch argument `transport`."""

DEMO_MODEL = "demo"
"""The value of the launch argument `model` that stands for the model that ships with the package."""

_PORTS = Path("/dev/v4l/by-path")
"""The directory in which udev links ports to devices.

A camera that also publishes metadata, as most USB cameras do, has links with several indices; index 0 has the images.
"""


_RAW_TOPICS = ("image_raw", "image_mono", "image_color", "image_rect", "image_rect_color")
"""The last words of topics with raw images, as drivers and image_proc name them."""


@dataclass(frozen=True)
class Board:
    """A board that has a launch file of its own."""

    name: str
    parameters: str
    """The file under config/ with the node's parameters."""
    build: str
    """The flags of build_engines for this board."""


class MissingCameraError(ConfigError):
    """Fewer cameras are plugged in than are named."""


def read_parameters(file: Path, node: str | None = None) -> dict[str, Any]:
    """Returns the parameters that a ROS parameter file has for `node`, a full name such as /robot1/litevlm.

    Without `node`, it returns those of all sections. Raises ConfigError if the file cannot be read, is no parameter
    file, or has no section for the node, which would then run with other parameters than meant.
    """
    try:
        sections = read_sections(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"params_file {file} cannot be read: {error}") from None
    parameters: dict[str, Any] = {}
    if not any(section for _, section in sections):
        raise ConfigError(f"params_file {file} has no parameters; it needs a section `ros__parameters:` with some")
    for name, section in sections:
        if node is None or section_matches(name, node):
            parameters.update(section)
    if not parameters:
        names = ", ".join(name for name, _ in sections)
        raise ConfigError(
            f"params_file {file} has sections for {names}, and none for {node}. Name one `/**`, which fits every node, "
            "or give another file. If you gave none: a launch file passes its own params_file on to what it includes"
        )
    return parameters


def camera_names(value: Any) -> list[str]:
    """Returns the items of a launch argument or parameter such as `cameras`: a list, or one text with commas.

    The text may be in brackets and its items in quotes, as people know them from `-p cameras:="['front', 'back']"`.
    """
    items = value.strip(" []").split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    names = (str(item).strip(" '\"") for item in items)
    return [name for name in names if name]


def check_cameras(parameters: Mapping[str, Any]) -> None:
    """Raises ConfigError if cameras, camera_topics and transport do not fit each other.

    The node would refuse other numbers, too, but only when it runs. That the transport contradicts the name of a topic
    it would notice when no image comes, and a launch argument is meant as it is said.
    """
    cameras = camera_names(parameters.get("cameras", list(DEMO_CAMERAS)))
    topics, transports = (camera_names(parameters.get(name)) for name in ("camera_topics", "transport"))
    if topics and len(topics) != len(cameras):
        raise ConfigError(
            f"camera_topics has {len(topics)} topics ({', '.join(topics)}) for {len(cameras)} cameras "
            f"({', '.join(cameras)}); give one each, or none"
        )
    if len(transports) not in (0, 1, len(cameras)):
        raise ConfigError(f"transport has {len(transports)} values for {len(cameras)} cameras; give one, or one each")
    for transport in transports:
        if transport not in TRANSPORTS:
            raise ConfigError(f"transport is {transport!r}; allowed: {', '.join(TRANSPORTS)}")
    each = transports * len(topics) if len(transports) == 1 else transports
    for topic, transport in zip(topics, each, strict=False):
        _check_transport(topic, transport)


def _check_transport(topic: str, transport: str) -> None:
    base, _, last = topic.rpartition("/")
    if transport == "raw" and last == "compressed":
        raise ConfigError(
            f"transport is raw, but {topic} carries compressed images by its name; say transport:=compressed, or name "
            f"the raw topic, most likely {base}"
        )
    if transport == "compressed" and last in _RAW_TOPICS:
        raise ConfigError(
            f"transport is compressed, but {topic} carries raw images by its name; say transport:=raw, or name the "
            f"compressed topic, most likely {topic}/compressed"
        )


def assign_devices(cameras: Sequence[str], given: Sequence[str], ports: Path = _PORTS) -> dict[str, str]:
    """Returns the device of each camera: the `given` ones, or those that are plugged in, in the order of their ports.

    Raises MissingCameraError if too few devices are plugged in, and ConfigError if the number of given devices is not
    that of the cameras.
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
        raise MissingCameraError(
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
