"""The backend on ONNX Runtime: vision encoder and text decoder on the CPU.

The graphs read and write our own buffers through IOBinding. Prefill binds the new keys and values straight onto the
cache's next rows. Binding an output costs about 7 µs, more than copying the few rows of a decoded token or a draft, so
decoding keeps one binding for each number of tokens and cache bucket, writes to fixed rows and copies those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from litevlm_ros.backend import Backend, HiddenStates, Logits, Tiles, TokenIds, VisualTokens, read_one_by_one
from litevlm_ros.config import MOST_LOGITS, PipelineConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import PLAIN, TEXT, VISION
from litevlm_ros.runtime.kv_cache import HostKVCache, Rows, bucket, context_capacity
from litevlm_ros.runtime.not_finite import not_finite
from litevlm_ros.runtime.onnx.finite_check import all_finite, first_bad_layer
from litevlm_ros.runtime.onnx.graph_choice import explain_choice, find_graph
from litevlm_ros.runtime.onnx.session import DTYPES, Array, bind, export_hint, open_session, session_options
from litevlm_ros.runtime.onnx.token_selection import HostTokenSelector, HostVisualTokens

TILES_AT_ONCE = 4
"""Tiles in one run of the vision encoder: enough to fill the cores, and attention scores of 0.3 GB at 448 pixels."""


def load(config: PipelineConfig, model: ModelConfig) -> Backend:
    """Loads both graphs of `config.model_dir`. Raises EngineError if one is damaged or of another model."""
    options = session_options(config)
    files = {part: find_graph(config, part) for part in (VISION, TEXT)}
    for part in files:
        explain_choice(config, part)
    vision = OnnxVisionEncoder(files[VISION], model, options)
    text = OnnxTextDecoder(files[TEXT], model, context_capacity(config, model), options)
    if vision.dtype != text.dtype:
        raise EngineError(f"{files[VISION].name} is {vision.dtype} and {files[TEXT].name} is {text.dtype}; "
                          f"{export_hint(config.model_dir)}")  # fmt: skip
    alike = vision.precision == text.precision
    shown = text.precision if alike else f"vision {vision.precision}, text {text.precision}"
    return Backend(
        name="onnxruntime",
        description=f"ONNX Runtime {onnxruntime.__version__}, CPU, {options.intra_op_num_threads} threads, {shown}",
        vision=vision,
        text=text,
        token_selector=lambda selection: HostTokenSelector(selection, model, config.model_dir, options),
    )


def _precision(part: str, file: Path, dtype: np.dtype[Any]) -> str:
    """Returns the precision that the name of a graph of `part` tells, or else that of `dtype`."""
    return file.stem.removeprefix(part).lstrip("_") or _computed_in(dtype)


def _computed_in(dtype: np.dtype[Any]) -> str:
    """Returns the precision of sums and activations: packed graphs store their weights in another one."""
    return {"float32": PLAIN, "float16": "fp16"}[dtype.name]


class OnnxVisionEncoder:
    """The graph `vision_encoder.onnx`, as a `VisionEncoder`."""

    def __init__(self, file: Path, model: ModelConfig, options: Any) -> None:
        size, tokens, width = model.vision.image_size, model.vision.tokens_per_tile, model.text.hidden_size
        self._session = open_session(
            file, options, {"pixels": ("N", size, size, 3), "visual_tokens": ("N", tokens, width)}
        )
        self._width = width
        self.dtype = np.dtype(DTYPES[self._session.get_outputs()[0].type])
        self.precision = _precision(VISION, file, self.dtype)

    def encode(self, pixels: Tiles) -> HostVisualTokens:
        """See `VisionEncoder.encode`."""
        try:
            parts = [
                self._session.run(["visual_tokens"], {"pixels": pixels[first : first + TILES_AT_ONCE]})[0]
                for first in range(0, len(pixels), TILES_AT_ONCE)
            ]
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise EngineError(f"the vision encoder failed on {list(pixels.shape)} pixels: {error}") from error
        rows = np.concatenate(parts).reshape(-1, self._width)
        if not all_finite(rows):
            raise not_finite(VISION, _computed_in(self.dtype))
        return HostVisualTokens(rows)

    def join(self, parts: Sequence[VisualTokens]) -> HostVisualTokens:
        """See `VisionEncoder.join`."""
        return HostVisualTokens(np.concatenate([part.rows for part in parts if isinstance(part, HostVisualTokens)]))


class OnnxTextDecoder:
    """The graph `text_decoder.onnx` and its cache, as a `TextDecoder`."""

    def __init__(self, file: Path, model: ModelConfig, capacity: int, options: Any) -> None:
        text = model.text
        row = ("C", text.num_kv_heads, text.head_dim)
        layers = range(text.num_layers)
        caches = {f"past_{kind}.{layer}": row for kind in ("key", "value") for layer in layers}
        news = {f"new_{kind}.{layer}": row for kind in ("key", "value") for layer in layers}
        shapes = {"visual_tokens": ("M", text.hidden_size), "logits": ("K", text.vocab_size)}
        lists = ("input_ids", "position_ids", "past_length", "logit_positions", "next_tokens")
        hidden = {"hidden": ("K", text.hidden_size)}
        self._session = open_session(
            file, options, {**shapes, **dict.fromkeys(lists, ("S",)), **caches, **news}, hidden
        )
        self.gives_hidden = "hidden" in {value.name for value in self._session.get_outputs()}
        """See `TextDecoder.gives_hidden`."""
        types = {value.name: value.type for value in self._session.get_inputs()}
        self.dtype = np.dtype(DTYPES[types["visual_tokens"]])
        self.precision = _precision(TEXT, file, self.dtype)
        self._vocab_size, self._width = text.vocab_size, text.hidden_size
        self._cache = HostKVCache(text, capacity, self.dtype)
        self._no_visual = np.zeros((1, text.hidden_size), self.dtype)
        self._kept: dict[tuple[int, int], _Kept] = {}

    @property
    def cache(self) -> HostKVCache:
        """See `TextDecoder.cache`."""
        return self._cache

    @property
    def most_logits(self) -> int:
        """See `TextDecoder.most_logits`."""
        return self._cache.capacity

    def prepare(self, counts: Sequence[int]) -> None:
        """See `TextDecoder.prepare`. ONNX Runtime takes every shape as it comes."""

    def forward(
        self,
        input_ids: TokenIds,
        position_ids: TokenIds,
        visual_tokens: VisualTokens | None = None,
        num_logits: int = 1,
    ) -> _Buffers:
        """See `TextDecoder.forward`."""
        count = len(input_ids)
        if not 1 <= num_logits <= count:
            raise EngineError(f"{num_logits} logits of {count} tokens were asked for; allowed: 1 to {count}")
        visual = visual_tokens.rows if isinstance(visual_tokens, HostVisualTokens) else self._no_visual[:0]
        largest = int(input_ids.max())
        if largest >= self._vocab_size + len(visual):
            raise EngineError(
                f"a token id is {largest}, but there are {self._vocab_size} words and {len(visual)} visual tokens"
            )
        new_rows = self._cache.next(count)
        rows = bucket(self._cache.length, self._cache.capacity)
        kept = None
        if count == num_logits <= MOST_LOGITS and not len(visual):
            kept = self._keep(count, rows)
            buffers, binding = kept.buffers, kept.binding
        else:
            buffers = self._buffers(count, num_logits)
            visual = visual if len(visual) else self._no_visual
            binding = self._bind(buffers, self._cache.past(rows), new_rows, visual)
        buffers.input_ids[:] = input_ids
        buffers.position_ids[:] = position_ids
        buffers.past_length[0] = self._cache.length
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            new_rows.fill(0)
            raise EngineError(f"the text decoder failed on {count} tokens: {error}") from error
        computed = new_rows if kept is None else kept.new_rows
        if not all_finite(buffers.logits(), computed):
            layer = first_bad_layer(computed)
            new_rows.fill(0)
            raise not_finite(TEXT, _computed_in(self.dtype), layer)
        if kept is not None:
            new_rows[:] = kept.new_rows
        self._cache.extend(count)
        return buffers

    def decode_greedy(self, token: int, position: int, limit: int) -> Iterator[int]:
        """See `TextDecoder.decode_greedy`."""
        return read_one_by_one(self, token, position, limit)

    def _keep(self, count: int, rows: int) -> _Kept:
        """Returns the binding for calls of `count` tokens when `rows` cache rows are offered, made at the first one."""
        if (count, rows) not in self._kept:
            buffers = self._buffers(count, count)
            new_rows = np.zeros_like(self._cache.past(count))
            binding = self._bind(buffers, self._cache.past(rows), new_rows, self._no_visual)
            self._kept[count, rows] = _Kept(buffers, new_rows, binding)
        return self._kept[count, rows]

    def _buffers(self, count: int, num_logits: int) -> _Buffers:
        logits = np.zeros((num_logits, self._vocab_size), np.float32)
        return _Buffers(count, logits, np.zeros((num_logits, self._width), self.dtype))

    def _bind(self, buffers: _Buffers, past: Rows, new: Rows, visual: Array) -> Any:
        inputs: dict[str, Array] = {
            "input_ids": buffers.input_ids,
            "position_ids": buffers.position_ids,
            "past_length": buffers.past_length,
            "logit_positions": buffers.logit_positions,
            "visual_tokens": visual,
        }
        outputs: dict[str, Array] = {"logits": buffers.logits(), "next_tokens": buffers.next_tokens}
        if self.gives_hidden:
            outputs["hidden"] = buffers.hidden()
        for layer in range(len(past)):
            for index, kind in enumerate(("key", "value")):
                inputs[f"past_{kind}.{layer}"] = past[layer, index]
                outputs[f"new_{kind}.{layer}"] = new[layer, index]
        return bind(self._session, inputs, outputs)


class _Buffers:
    """The arrays that the text decoder reads and writes besides cache and visual tokens, for S tokens and K logits.

    They are its `DecoderOutput` too.
    """

    def __init__(self, count: int, logits: Logits, hidden: HiddenStates) -> None:
        self.input_ids = np.zeros(count, np.int64)
        self.position_ids = np.zeros(count, np.int64)
        self.past_length = np.zeros(1, np.int64)
        self.logit_positions = np.arange(count - len(logits), count)
        self.next_tokens: TokenIds = np.zeros(len(logits), np.int64)
        self._logits = logits
        self._hidden = hidden

    def logits(self) -> Logits:
        """See `DecoderOutput.logits`."""
        return self._logits

    def hidden(self) -> HiddenStates:
        """See `DecoderOutput.hidden`."""
        return self._hidden


@dataclass(frozen=True)
class _Kept:
    """A binding that is used again, and the arrays that it binds besides the cache."""

    buffers: _Buffers
    new_rows: Rows
    binding: Any
