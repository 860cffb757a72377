"""What a file of parameters says, as far as launch files need it before the node reads it, and what to say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import PARTS, engine_name

DEMO_MODEL = "demo"
"""The value of the launch argument `model` that stands for the model that ships with the package."""


def read_parameters(file: Path) -> dict[str, Any]:
    """The parameters that a ROS parameter file has for the node, whichever of its sections they are in.

    Raises ConfigError if there is no such file, or if it is no parameter file.
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
    """The parameter `cameras` or an argument like it as a list: a YAML list, or one text with commas."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [str(item).strip() for item in items if str(item).strip()]


@dataclass(frozen=True)
class Preset:
    """A board that a launch file is for."""

    board: str
    build: str
    """Flags of build_engines for this board."""


def missing_engines(parameters: Mapping[str, Any], preset: Preset) -> str:
    """What is missing for the node to run on TensorRT, with the commands that make it; '' if nothing is.

    Goes by file names alone: whether an engine fits this machine is found out by the node, which says so.
    """
    model = Path(str(parameters.get("model_dir", ""))).expanduser().absolute()
    engines = Path(str(parameters.get("engine_dir", "") or model)).expanduser().absolute()
    output = "" if engines == model else f" --output {engines}"
    build = f"ros2 run litevlm_ros build_engines --model {model}{output} {preset.build}"
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
        f"which is slow, or cannot start. Build them once, on this {preset.board}:\n    {build}"
    )
