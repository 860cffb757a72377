"""The fixed addresses between which the text decoder's programs work: inputs, the KV cache, and results.

Padding is harmless: cache rows behind the valid ones are not attended to, new tokens that fill up a shape are seen by
none before them and reach no cache, and logits that nobody asked for are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from litevlm_ros.backend import TokenIds
from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.engines.text_blocks import padded_vocabulary
from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Slots
from litevlm_ros.runtime.tensorrt.numbers import FLOAT_BYTES, NUMBER_BYTES

RING = 8
"""The number of tokens that the host may leave unread while decoding goes on."""

_ROW_MULTIPLE = 64
_LONG, _INT = 8, 4


@dataclass(frozen=True)
class TextInputs:
    """Addresses of what a program reads: int64 ids [S], positions [S] and wanted rows [K]; int32 lengths [2]."""

    ids: int
    positions: int
    lengths: int
    wanted: int


class TextBuffers:
    """Device memory of a text decoder, and pinned memory where the host reads or writes."""

    def __init__(
        self,
        config: TextConfig,
        capacity: int,
        most_new: int,
        most_visual: int,
        device: CudaDevice,
        memory: DeviceMemory,
    ) -> None:
        """Allocates all buffers. Raises EngineError if memory is short."""
        self._device = device
        self._layers = config.num_layers
        self.most_new, self.most_visual = most_new, most_visual
        self.cache_rows = rows_of_cache(capacity, most_new)
        """The rows of the cache in memory. The last one takes what programs append before they have any input."""
        self._layer_bytes = NUMBER_BYTES * self.cache_rows * config.num_kv_heads * config.head_dim
        # Zeroed, as every allocation here: rows that are not attended to must be finite numbers all the same.
        self._cache = memory.allocate("KV cache", 2 * self._layers * self._layer_bytes)
        self._row_bytes = self._layer_bytes // self.cache_rows

        numbers = {"ids": _LONG * most_new, "positions": _LONG * most_new, "wanted": _LONG * MOST_LOGITS,
                   "lengths": 2 * _INT}  # fmt: skip
        self._prompt = Slots(memory, "buffers", numbers)
        self._prompt_memory = memory.pinned((self._prompt.size,), np.uint8)
        self._host_prompt = _views(self._prompt_memory, self._prompt, numbers)
        state = dict.fromkeys((*numbers, "step"), _LONG)
        self._state = Slots(memory, "buffers", state)
        self._state_memory = memory.pinned((self._state.size,), np.uint8)
        self._host_state = _views(self._state_memory, self._state, state)
        self.prompt = TextInputs(**{name: self._prompt[name] for name in numbers})
        """The inputs that `upload_prompt` writes."""
        self.state = TextInputs(**{name: self._state[name] for name in numbers})
        """The inputs that `write_state` writes, and that each decode step then moves on."""
        self.step = self._state["step"]

        self._results = Slots(memory, "buffers", {"next_tokens": _LONG * MOST_LOGITS, "bad": _INT * (self._layers + 1)})
        self._results_memory = memory.pinned((self._results.size,), np.uint8)
        begin = self._results.offsets["bad"]
        self._host_bad = self._results_memory[begin : begin + _INT * (self._layers + 1)].view(np.int32)
        self._host_next_tokens = self._results_memory[: _LONG * MOST_LOGITS].view(np.int64)
        self.next_tokens = self._results["next_tokens"]
        self.bad = self._results["bad"]
        """int32 [layers + 1]: 1 where a layer's keys or values, or at last the logits, are not finite."""
        self.ring = memory.pinned((RING,), np.int64)
        self.ring_address = memory.pinned_address(self.ring)
        self.frequencies = memory.allocate("buffers", FLOAT_BYTES * config.head_dim // 2)
        """fp32 [D / 2]: the rotary frequencies, in radians a position (arXiv 2104.09864)."""
        exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
        memory.write(self.frequencies, (1 / np.float32(config.rope_theta) ** exponents).astype(np.float32))
        self.visual = memory.allocate("buffers", NUMBER_BYTES * config.hidden_size * most_visual)
        self.logits_stride = padded_vocabulary(config)
        self.logits = memory.allocate("buffers", NUMBER_BYTES * MOST_LOGITS * self.logits_stride)
        self.host_logits = memory.pinned((MOST_LOGITS, self.logits_stride), np.uint16)

    def logits_of(self, row: int) -> int:
        """Returns the address of a row of logits."""
        return self.logits + NUMBER_BYTES * row * self.logits_stride

    def keys(self, layer: int) -> int:
        """Returns the address of a layer's keys [cache rows, G, D]."""
        return self._cache + 2 * layer * self._layer_bytes

    def values(self, layer: int) -> int:
        """Returns the address of a layer's values [cache rows, G, D]."""
        return self.keys(layer) + self._layer_bytes

    def write_idle(self) -> None:
        """Writes inputs with which a program may run before it has any: one token, for the cache's spare row.

        The last uploads must be done.
        """
        none = np.zeros(1, np.int64)
        self.write_prompt(none, none, self.cache_rows - 1, 1)
        self.write_state(0, 0, self.cache_rows - 1)

    def clear_idle(self) -> None:
        """Enqueues the removal of what a program has left that was run with `write_idle`."""
        self.clear_rows(self.cache_rows - 1, self.cache_rows)
        self.clear_bad()

    def write_prompt(self, ids: TokenIds, positions: TokenIds, past: int, wanted: int) -> None:
        """Writes for `upload_prompt` new tokens behind `past` cache rows, with logits of the last `wanted` of them.

        Places that fill up a program's shape keep older tokens, which are ids of words or rows of visual tokens. The
        last upload must be done, as it is when a program's results were read.
        """
        count, host = len(ids), self._host_prompt
        host["ids"][:count], host["positions"][:count] = ids, positions
        host["wanted"][:wanted], host["wanted"][wanted:] = np.arange(count - wanted, count), 0
        host["lengths"][:] = count, past + count

    def upload_prompt(self) -> None:
        """Enqueues the copy of what `write_prompt` wrote to the device: the first piece of a prompt's program."""
        self._device.driver.memcpy_htod_async(self._prompt.address, self._prompt_memory, self._device.stream)

    def write_state(self, token: int, position: int, past: int) -> None:
        """Enqueues the upload of the first decode step's inputs. The last upload must be done."""
        for name, value in (("ids", token), ("positions", position), ("step", 0), ("wanted", 0)):
            self._host_state[name][0] = value
        self._host_state["lengths"][:] = 1, past + 1
        self._device.driver.memcpy_htod_async(self._state.address, self._state_memory, self._device.stream)

    def download_results(self) -> None:
        """Enqueues the copy of next tokens and flags to the host: the last piece of a prompt's program."""
        self._device.driver.memcpy_dtoh_async(self._results_memory, self._results.address, self._device.stream)

    def read_results(self) -> tuple[TokenIds, int | None]:
        """Waits for all work. Returns the next tokens [MOST_LOGITS], and the first of `bad` that is set, if any.

        Both are those of the last `download_results`, whose next run overwrites the tokens.
        """
        self._device.wait()
        bad = np.flatnonzero(self._host_bad)
        return self._host_next_tokens, int(bad[0]) if bad.size else None

    def clear_bad(self) -> None:
        """Enqueues the reset of all flags."""
        self._device.driver.memset_d8_async(self.bad, 0, _INT * (self._layers + 1), self._device.stream)

    def clear_rows(self, first: int, end: int) -> None:
        """Enqueues zeros for the cache rows from `first` to before `end`.

        A row that is not finite would poison every later answer, because what is masked is multiplied by zero.
        """
        end = min(end, self.cache_rows)
        for layer in range(self._layers):
            for address in (self.keys(layer), self.values(layer)):
                begin, size = address + first * self._row_bytes, (end - first) * self._row_bytes
                self._device.driver.memset_d8_async(begin, 0, size, self._device.stream)


def _views(memory: npt.NDArray[np.uint8], slots: Slots, sizes: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays of int64, and int32 for `lengths`, that lie in `memory` as they do in `slots`."""
    views = {}
    for name, size in sizes.items():
        raw = memory[slots.offsets[name] : slots.offsets[name] + size]
        views[name] = raw.view(np.int32 if name == "lengths" else np.int64)
    return views


def rows_of_cache(capacity: int, most_new: int) -> int:
    """Returns the rows of a cache in memory: at least `capacity`, a spare one, and as many as a call may append."""
    return -(-max(capacity + 1, most_new) // _ROW_MULTIPLE) * _ROW_MULTIPLE


def chunks(count: int, most: int, last: int) -> list[tuple[int, int]]:
    """Cuts `count` tokens into parts of at most `most`, the last of at least `last`. Returns (first, end) of each."""
    ends = list(range(most, count, most))
    if ends and count - ends[-1] < last:
        ends[-1] = count - last
    return list(zip([0, *ends], [*ends, count], strict=True))
