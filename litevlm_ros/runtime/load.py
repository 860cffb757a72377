"""Which backend runs a model directory on this machine."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass

from litevlm_ros.backend import Backend
from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.memory_budget import over_budget

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Choice:
    name: str
    title: str
    obstacle: Callable[[PipelineConfig], str | None]
    """Why it cannot run, with the fix; found out without loading anything."""
    load: Callable[[PipelineConfig, ModelConfig], Backend]


def load_backend(config: PipelineConfig, model: ModelConfig) -> Backend:
    """Loads the backend that `config.backend` names, or with 'auto' the first that can run here.

    The log says which, and why not those before it. Raises EngineError that says what is not installed or which file
    is missing, with the command that helps.
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


def context_capacity(config: PipelineConfig, model: ModelConfig) -> int:
    """Rows of the KV cache. Raises ConfigError if `config.max_context` is more than the model was made for."""
    most = model.text.max_position_embeddings
    if config.max_context > most:
        raise ConfigError(
            f"max_context is {config.max_context}; allowed: up to this model's {most}. Use 0 for as many as it allows"
        )
    return config.max_context or most


def _tensorrt_obstacle(config: PipelineConfig) -> str | None:
    from litevlm_ros.runtime.tensorrt.engine_files import obstacle

    return obstacle(config)


def _load_tensorrt(config: PipelineConfig, model: ModelConfig) -> Backend:
    from litevlm_ros.runtime.tensorrt.backend import load

    return load(config, model)


def _onnxruntime_obstacle(config: PipelineConfig) -> str | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return "it is not installed: `pip install onnxruntime`"
    from litevlm_ros.runtime.onnx.session import obstacle

    return obstacle(config)


def _load_onnxruntime(config: PipelineConfig, model: ModelConfig) -> Backend:
    from litevlm_ros.runtime.onnx.backend import load

    return load(config, model)


_CHOICES = (
    _Choice("tensorrt", "TensorRT", _tensorrt_obstacle, _load_tensorrt),
    _Choice("onnxruntime", "ONNX Runtime", _onnxruntime_obstacle, _load_onnxruntime),
)
