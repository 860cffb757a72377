"""The fixed addresses between which a text decoder's programs work, and the few shapes that they have.

Each shape costs an execution context, so many sizes share one. Padding is harmless: cache rows behind the valid ones
are masked, new tokens behind the last one are seen by none before them and never reach the cache, and logits that
nobody asked for are not looked at.
"""

from __future__ import annotations

import numpy as np

from litevlm_ros.backend import TokenIds
from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.tensorrt.kernels.launch import WORD_BYTES, CacheKernels
from litevlm_ros.runtime.tensorrt.memory import ALIGNMENT, DeviceMemory, Slots
from litevlm_ros.runtime.tensorrt.program import Engine, Shape
from litevlm_ros.runtime.tensorrt.vision import ITEM_BYTES

RING = 8
"""The number of tokens that the host may leave unread while decoding goes on."""

FINE = 64
"""Prompts of more tokens than this are padded to a multiple of it."""
COARSE = 1024
"""Prompts of more tokens than this are padded to a multiple of its quarter."""

_INT_BYTES = 8
_STATE = ("input_id", "position", "past_length", "step")


class TextBuffers:
    """Inputs, outputs and the cache of a decoder, in device memory and, where the host reads or writes, pinned too."""

    def __init__(self, engine: Engine, model: ModelConfig, capacity: int, memory: DeviceMemory) -> None:
        """Allocates all buffers. Raises EngineError if the engine belongs to another model or memory is short."""
        text, layers = model.text, range(model.text.num_layers)
        row = ("C", text.num_kv_heads, text.head_dim)
        self.past = [f"past_{kind}.{layer}" for layer in layers for kind in ("key", "value")]
        self._new = [f"new_{kind}.{layer}" for layer in layers for kind in ("key", "value")]
        ids = ("input_ids", "position_ids", "logit_positions", "next_tokens")
        others = {"visual_tokens": ("M", text.hidden_size), "logits": ("K", text.vocab_size), "past_length": (1,)}
        engine.check({**others, **dict.fromkeys(ids, ("S",)), **dict.fromkeys((*self.past, *self._new), row)})
        self.dtype = engine.tensors["visual_tokens"].dtype
        self._row_shape: Shape = (text.num_kv_heads, text.head_dim)
        self._row_bytes = text.num_kv_heads * text.head_dim * ITEM_BYTES[self.dtype]
        if self._row_bytes % WORD_BYTES:
            raise EngineError(
                f"a cache row of this model has {self._row_bytes} bytes, which is no multiple of {WORD_BYTES}"
            )
        most = {name: max(engine.limits(name, profile)[1] for profile in engine.profiles)
                for name in ("input_ids", "logit_positions", "visual_tokens")}  # fmt: skip
        self.most_new, self.most_visual = most["input_ids"], most["visual_tokens"]
        self.most_logits = min(most["logit_positions"], MOST_LOGITS)
        self._width = text.hidden_size
        self._device = engine.device

        numbers = {"input_ids": self.most_new, "position_ids": self.most_new, "logit_positions": self.most_logits,
                   "past_length": 1, "count": 1}  # fmt: skip
        self._numbers = Slots(memory, "buffers", {name: _INT_BYTES * count for name, count in numbers.items()})
        self._host_numbers = memory.pinned((self._numbers.size // _INT_BYTES,), np.int64)
        self._state = Slots(memory, "buffers", dict.fromkeys((*_STATE, "one", "zero"), _INT_BYTES))
        self._host_state = memory.pinned((self._state.size // _INT_BYTES,), np.int64)
        self._host_state[self._state.offsets["one"] // _INT_BYTES] = 1
        self.next_tokens = memory.allocate("buffers", _INT_BYTES * self.most_logits)
        self.host_next_tokens = memory.pinned((self.most_logits,), np.int64)
        self.logits = memory.allocate("buffers", 4 * self.most_logits * text.vocab_size)
        self.host_logits = memory.pinned((self.most_logits, text.vocab_size), np.float32)
        self.ring = memory.pinned((RING,), np.int64)
        self._ring_address = memory.pinned_address(self.ring)
        self.visual = memory.allocate("buffers", self._width * ITEM_BYTES[self.dtype] * self.most_visual)
        self._staged_rows, self._cache_rows = (_aligned_rows(rows) for rows in (self.most_new, capacity))
        self._staged = memory.allocate("buffers", len(self._new) * self._staged_rows * self._row_bytes)
        # Zeroed, as every allocation here: rows that are masked must be finite numbers.
        self._rows = memory.allocate("KV cache", len(self.past) * self._cache_rows * self._row_bytes)

    def shapes(self, new: int, rows: int, logits: int, visual: int) -> dict[str, Shape]:
        """Returns the shapes of a program's inputs for so many new tokens, cache rows, logits and visual tokens."""
        return {
            "input_ids": (new,),
            "position_ids": (new,),
            "past_length": (1,),
            "logit_positions": (logits,),
            "visual_tokens": (visual, self._width),
            **dict.fromkeys(self.past, (rows, *self._row_shape)),
        }

    def prompt_addresses(self) -> dict[str, int]:
        """Returns the addresses of all tensors of a program that reads what `write_prompt` wrote."""
        inputs = ("input_ids", "position_ids", "logit_positions", "past_length")
        return self._addresses({name: self._numbers[name] for name in inputs})

    def step_addresses(self) -> dict[str, int]:
        """Returns those of a program that reads one token: the one of `write_state`, or what the last step found."""
        state = self._state
        return self._addresses({"input_ids": state["input_id"], "position_ids": state["position"],
                                "past_length": state["past_length"], "logit_positions": state["zero"]})  # fmt: skip

    def write_prompt(
        self, input_ids: TokenIds, position_ids: TokenIds, past_length: int, new: int, wanted: int, logits: int
    ) -> None:
        """Enqueues the upload of a prompt, padded to `new` tokens and from `wanted` to `logits` logit positions."""
        count = len(input_ids)
        numbers = {name: self._host_numbers[offset // _INT_BYTES :] for name, offset in self._numbers.offsets.items()}
        padded = {"input_ids": input_ids, "position_ids": position_ids,
                  "logit_positions": np.arange(count - wanted, count)}  # fmt: skip
        for name, values in padded.items():
            numbers[name][: len(values)] = values
            numbers[name][len(values) : logits if name == "logit_positions" else new] = 0
        numbers["past_length"][0] = past_length
        numbers["count"][0] = count
        self._device.driver.memcpy_htod_async(self._numbers.address, self._host_numbers, self._device.stream)

    def write_state(self, token: int, position: int, past_length: int) -> None:
        """Enqueues the upload of the first decode step's inputs."""
        for name, value in zip(_STATE, (token, position, past_length, 0), strict=True):
            self._host_state[self._state.offsets[name] // _INT_BYTES] = value
        self._device.driver.memcpy_htod_async(self._state.address, self._host_state, self._device.stream)

    def append_prompt(self, kernels: CacheKernels) -> None:
        """Enqueues the copy of a prompt's new rows into the cache."""
        self._append(kernels, self._numbers["past_length"], self._numbers["count"])

    def append_step(self, kernels: CacheKernels) -> None:
        """Enqueues the copy of one new row into the cache, and makes the next token the next step's input."""
        self._append(kernels, self._state["past_length"], self._state["one"])
        kernels.advance(
            next_token=self.next_tokens,
            **{name: self._state[name] for name in _STATE},
            ring=self._ring_address,
            ring_size=RING,
        )

    def _append(self, kernels: CacheKernels, past_length: int, count: int) -> None:
        kernels.append(
            staged=self._staged,
            cache=self._rows,
            past_length=past_length,
            count=count,
            tensors=len(self._new),
            row_bytes=self._row_bytes,
            staged_rows=self._staged_rows,
            cache_rows=self._cache_rows,
        )

    def _addresses(self, inputs: dict[str, int]) -> dict[str, int]:
        past, staged = self._cache_rows * self._row_bytes, self._staged_rows * self._row_bytes
        return {
            **inputs,
            "visual_tokens": self.visual,
            "next_tokens": self.next_tokens,
            "logits": self.logits,
            **{name: self._rows + index * past for index, name in enumerate(self.past)},
            **{name: self._staged + index * staged for index, name in enumerate(self._new)},
        }


def power_of_two(count: int, least: int, most: int) -> int:
    """Returns the smallest power of two times `least` that is not below `count`, but at most `most`."""
    size = least
    while size < count:
        size *= 2
    return min(size, most)


def prompt_tokens(count: int, most: int) -> int:
    """Returns the number of tokens to which a prompt of `count` is padded, which is at most `most`.

    It is a power of two up to FINE, then a multiple of FINE up to COARSE, and of a quarter of COARSE beyond.
    """
    if count <= FINE:
        return power_of_two(count, 1, most)
    step = FINE if count <= COARSE else COARSE // 4
    return min(-(-count // step) * step, most)


def chunks(count: int, most: int, last: int) -> list[tuple[int, int]]:
    """Cuts `count` tokens into parts of at most `most`, the last of at least `last`. Returns (first, end) of each."""
    ends = list(range(most, count, most))
    if ends and count - ends[-1] < last:
        ends[-1] = count - last
    return list(zip([0, *ends], [*ends, count], strict=True))


def _aligned_rows(rows: int) -> int:
    """Returns `rows` or the next larger number with which the tensor behind this one is aligned."""
    step = ALIGNMENT // WORD_BYTES
    return -(-rows // step) * step
