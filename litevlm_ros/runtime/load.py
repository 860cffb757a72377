"""Chooses the backend that runs a model directory on this machine, and loads it."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from litevlm_ros.backend import Backend
from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.machine import resident_bytes
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.packages import pip_command

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Choice:
    """A backend. `obstacle` says, without loading anything, why it cannot run and what helps; None if it can."""

    name: str
    title: str
    obstacle: Callable[[PipelineConfig], str | None]
    load: Callable[[PipelineConfig, ModelConfig], Backend]


def load_backend(config: PipelineConfig, model: ModelConfig) -> Backend:
    """Loads the backend that `config.backend` names, or with 'auto' the first that can run here.

    The log says which it is, and why not those before it. Raises EngineError that says what is not installed or which
    file is missing, with the command that helps.
    """
    reasons: list[str] = []
    for choice in _CHOICES:
        if config.backend in ("auto", choice.name):
            obstacle = choice.obstacle(config)
            if obstacle is None:
                # Someone built engines and expects them to be used.
                level = logging.WARNING if reasons and any(config.engines.glob("*.engine")) else logging.INFO
                _LOGGER.log(level, "Running on %s%s", choice.title, "".join(f", not {reason}" for reason in reasons))
                backend = choice.load(config, model)
                over = over_budget(config.memory_budget_mb, backend.memory())
                if over:
                    _LOGGER.warning("%s", over)
                return backend
            reasons.append(f"on {choice.title}: {obstacle}")
    raise EngineError("The model cannot run " + "; nor ".join(reasons))


def over_budget(budget_mb: int, device_memory: Mapping[str, int]) -> str:
    """Explains what takes how much memory if that is more than `budget_mb` MB, and what to do; '' if it is not.

    A budget of 0 is never exceeded. `device_memory` maps purposes to bytes, as `Backend.memory` does. The process's
    own memory is added, because both are the same RAM on a Jetson.
    """
    taken = {"the process": resident_bytes(), **device_memory}
    total = sum(taken.values()) // 1_000_000
    if not budget_mb or total <= budget_mb:
        return ""
    parts = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sorted(taken.items(), key=lambda item: -item[1]))
    return (
        f"The model takes {total} MB, more than memory_budget_mb ({budget_mb}): {parts}. Lower max_context or "
        "max_tiles, or build engines with fewer bits (`ros2 run litevlm_ros build_engines --help`)"
    )


# A backend is imported when it is asked for: neither TensorRT nor ONNX Runtime need be installed for the other.


def _tensorrt_obstacle(config: PipelineConfig) -> str | None:
    from litevlm_ros.runtime.tensorrt.engine_files import obstacle

    return obstacle(config)


def _load_tensorrt(config: PipelineConfig, model: ModelConfig) -> Backend:
    from litevlm_ros.runtime.tensorrt.backend import load

    return load(config, model)


def _onnxruntime_obstacle(config: PipelineConfig) -> str | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return f"it is not installed: `{pip_command('onnxruntime')}`"
    from litevlm_ros.runtime.onnx.graph_choice import obstacle

    return obstacle(config)


def _load_onnxruntime(config: PipelineConfig, model: ModelConfig) -> Backend:
    from litevlm_ros.runtime.onnx.backend import load

    return load(config, model)


_CHOICES = (
    _Choice("tensorrt", "TensorRT", _tensorrt_obstacle, _load_tensorrt),
    _Choice("onnxruntime", "ONNX Runtime", _onnxruntime_obstacle, _load_onnxruntime),
)
"""All backends, in the order in which 'auto' tries them."""
