"""What a backend implements: `VisionEncoder` and `TextDecoder`, and how one is chosen.

The interface leaves data where the backend wants it. Visual tokens and the KV cache may live on a device and are never
looked into from outside; the next token is the backend's own argmax; logits are copied out only when someone asks.
`forward` takes any number of new tokens and returns logits of the last few, so prefill, decoding and the verification
of drafts are the same call, and taking tokens back is `cache.truncate`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.model_config import ModelConfig

VISION_GRAPH = "vision_encoder.onnx"
TEXT_GRAPH = "text_decoder.onnx"

Tiles = npt.NDArray[np.uint8]
"""uint8 [N, size, size, 3], RGB."""
TokenIds = npt.NDArray[np.int64]
"""int64 [S]; an id of vocabulary size + i stands for row i of the visual tokens."""
Logits = npt.NDArray[np.float32]
"""float32 [K, V]."""


class VisualTokens(Protocol):
    """Visual tokens [count, text width], held by the backend that made them."""

    @property
    def count(self) -> int:
        """Rows."""


class VisionEncoder(Protocol):
    """Tiles to visual tokens."""

    def encode(self, pixels: Tiles) -> VisualTokens:
        """The tokens of all tiles, tile by tile. They stay valid as long as they are referenced.

        Returns when they are computed. Raises EngineError.
        """


class KVCache(Protocol):
    """Keys and values of the tokens that the decoder has read, one row per token."""

    @property
    def length(self) -> int:
        """Rows in use."""

    @property
    def capacity(self) -> int:
        """Rows there are."""

    def truncate(self, length: int) -> None:
        """Forgets all rows from `length` on. Costs nothing. Raises EngineError if there are fewer."""


class DecoderOutput(Protocol):
    """What `TextDecoder.forward` found out about the tokens after its last K ones. Valid until the next `forward`."""

    @property
    def next_tokens(self) -> TokenIds:
        """int64 [K]: the likeliest token after each."""

    def logits(self) -> Logits:
        """float32 [K, V]. The caller must not keep it beyond the next `forward`, and may overwrite it."""


class TextDecoder(Protocol):
    """New tokens and a cache to the next tokens."""

    @property
    def cache(self) -> KVCache:
        """What the next `forward` continues."""

    def forward(
        self,
        input_ids: TokenIds,
        position_ids: TokenIds,
        visual_tokens: VisualTokens | None = None,
        num_logits: int = 1,
    ) -> DecoderOutput:
        """Reads S >= 1 tokens and appends them to the cache; next tokens and logits for the last `num_logits` of them.

        Both id arrays are int64 [S]; `position_ids` are rotary positions and may have gaps. `visual_tokens` is needed
        if any id is a visual one. Raises EngineError, and the cache then has the length that it had before.
        """


@dataclass(frozen=True)
class Backend:
    """A loaded model."""

    name: str
    description: str
    """Versions, device and precision in words."""
    vision: VisionEncoder
    text: TextDecoder


def context_capacity(config: PipelineConfig, model: ModelConfig) -> int:
    """Rows of the KV cache. Raises ConfigError if `config.max_context` is more than the model was made for."""
    most = model.text.max_position_embeddings
    if config.max_context > most:
        raise ConfigError(
            f"max_context is {config.max_context}; allowed: up to this model's {most}. Use 0 for as many as it allows"
        )
    return config.max_context or most


@dataclass(frozen=True)
class _Choice:
    name: str
    title: str
    module: str
    install: str
    files: Sequence[str]
    prepare: str
    """The command that makes the files."""
    load: Callable[[PipelineConfig, ModelConfig], Backend]


def load_backend(config: PipelineConfig, model: ModelConfig) -> Backend:
    """Loads the backend that `config.backend` names, or with 'auto' the first that can run here.

    Raises EngineError that says what is not installed or which file is missing, with the command that helps.
    """
    reasons = []
    for choice in _CHOICES:
        if config.backend in ("auto", choice.name):
            obstacle = _obstacle(choice, config)
            if obstacle is None:
                return choice.load(config, model)
            reasons.append(obstacle)
    raise EngineError("; ".join(reasons))


def _obstacle(choice: _Choice, config: PipelineConfig) -> str | None:
    if importlib.util.find_spec(choice.module) is None:
        return f"{choice.title} is not installed (backend {choice.name}): `{choice.install}`"
    missing = [name for name in choice.files if not (config.model_dir / name).is_file()]
    if missing:
        directory = config.model_dir
        command = choice.prepare.format(directory)
        return f"{' and '.join(missing)} missing in {directory} (backend {choice.name}): make them with `{command}`"
    return None


def _load_onnxruntime(config: PipelineConfig, model: ModelConfig) -> Backend:
    from litevlm_ros.runtime.onnxruntime_backend import load

    return load(config, model)


_CHOICES = (
    _Choice(
        name="onnxruntime",
        title="ONNX Runtime",
        module="onnxruntime",
        install="pip install onnxruntime",
        files=(VISION_GRAPH, TEXT_GRAPH),
        prepare="ros2 run litevlm_ros export_onnx --model {}",
        load=_load_onnxruntime,
    ),
)
