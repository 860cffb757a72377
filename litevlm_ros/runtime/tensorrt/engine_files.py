"""Finds the engines of a model directory that fit this machine and that nobody else could have changed.

An engine is code for the GPU. Nothing here loads one.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from litevlm_ros.config import PipelineConfig
from litevlm_ros.engines.fingerprint import this_machine
from litevlm_ros.engines.sidecar import EngineSidecar
from litevlm_ros.errors import EngineError
from litevlm_ros.machine import find_device
from litevlm_ros.model_directory import TEXT, VISION, engine_name, sidecar_file
from litevlm_ros.packages import pip_command
from litevlm_ros.precision import PRECISIONS, precision_flag
from litevlm_ros.trust import distrust

_PACKAGES = {"pycuda": "pycuda", "cuda.bindings": "cuda-bindings"}
"""Import name → pip's name of the packages that run engines besides TensorRT."""


@dataclass(frozen=True)
class EngineFile:
    """An engine that fits this machine, and its sidecar."""

    path: Path
    sidecar: EngineSidecar


def obstacle(config: PipelineConfig) -> str | None:
    """Says why TensorRT cannot run the engines of `config` here, with the fix; returns None if it can."""
    reason = machine_obstacle()
    if reason is not None:
        return reason
    try:
        for part in (VISION, TEXT):
            find_engine(config, part)
    except EngineError as error:
        return str(error)
    return None


def machine_obstacle() -> str | None:
    """Says why no engine can run on this machine, with the fix; returns None if engines that fit it can."""
    if find_device() is None:
        return "there is no NVIDIA GPU here, or its driver does not start; see what `nvidia-smi` says"
    missing = [package for name, package in _PACKAGES.items() if not _is_installed(name)]
    if missing:
        return f"{' and '.join(missing)} not installed: `{pip_command(*missing)}`"
    try:
        this_machine()
    except EngineError as error:
        return str(error)
    return None


def find_engine(config: PipelineConfig, part: str) -> EngineFile:
    """Finds the engine of `part` (VISION or TEXT) in the precision that `config` names; with 'auto' the most accurate.

    Raises EngineError, with the command that helps, if there is none or if none of them can be used: because it does
    not fit this machine, or because others could have changed it.
    """
    directory = config.engines
    asked = config.vision_precision if part == VISION else config.text_precision
    precisions = PRECISIONS if asked == "auto" else (asked,)
    if asked not in ("auto", *PRECISIONS):
        raise EngineError(f"there are no engines in {asked}: set {part.partition('_')[0]}_precision to auto")
    machine = this_machine()
    reasons = []
    for precision in precisions:
        file = directory / engine_name(part, precision)
        if not file.is_file():
            continue
        try:
            sidecar = EngineSidecar.read(file)
            misfits = [reason for each in (file, sidecar_file(file)) if (reason := distrust(each))]
            misfits = misfits[:1] or sidecar.check_file(file, contents=False) or sidecar.check(machine, directory)
            if sidecar.part != part:
                misfits.append(f"{file} is an engine of the {sidecar.part}; build it again with "
                               f"`ros2 run litevlm_ros build_engines --model {directory} --force`")  # fmt: skip
        except EngineError as error:
            misfits = [str(error)]
        if not misfits:
            return EngineFile(file, sidecar)
        reasons += misfits
    if reasons:
        raise EngineError("; ".join(reasons))
    flag = "" if asked == "auto" else f" {precision_flag(part)} {asked}"
    name = f"{part}_*.engine" if asked == "auto" else engine_name(part, asked)
    output = "" if config.engine_dir is None else f" --output {directory}"
    raise EngineError(
        f"{name} missing in {directory}: build it with `ros2 run litevlm_ros build_engines --model "
        f"{config.model_dir}{output}{flag}`"
    )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that `name` would be in
        return False
