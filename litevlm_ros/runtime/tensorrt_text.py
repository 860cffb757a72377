"""`TextDecoder` on a TensorRT engine.

Everything has a fixed address, so that each shape is one CUDA graph: the engine writes new keys and values to a
staging block, and a kernel in the same graph appends them to the cache at a row that it reads from device memory.
A decode step ends with a kernel that makes the likeliest token the next input, so steps can be launched ahead of the
host, which reads the tokens from a ring in its own memory and takes back what it did not want by the cache's length.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np

from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.cache_kernels import CacheKernels
from litevlm_ros.runtime.device_memory import ALIGNMENT, DeviceMemory, Slots
from litevlm_ros.runtime.engine import Logits, TokenIds, VisualTokens
from litevlm_ros.runtime.engine_program import Engine, Program, Shape
from litevlm_ros.runtime.kv_cache import CacheLength
from litevlm_ros.runtime.shape_buckets import chunks, power_of_two, prompt_tokens
from litevlm_ros.runtime.tensorrt_vision import ITEM_BYTES, DeviceVisualTokens

LEAST_ROWS = 64
"""The smallest number of cache rows offered to a prompt."""
LEAST_DECODE_ROWS = 256
"""The same for single tokens: below, more rows cost nothing that could be measured."""
AHEAD = 2
"""Decode steps that are launched before the token of the current one is there."""
MOST_PROGRAMS = 32
"""Prompt shapes that are kept; beyond, the one that was used longest ago is dropped."""

_RING = 8
_INT = 8
_STATE = ("input_id", "position", "past_length", "step")
_WORD = 16


class TensorRTTextDecoder:
    """Programs for prompts by shape, and one for single tokens by cache bucket."""

    def __init__(
        self, engine: Engine, model: ModelConfig, capacity: int, memory: DeviceMemory, kernels: CacheKernels
    ) -> None:
        """Raises EngineError if the engine belongs to another model or memory is short."""
        text = model.text
        layers = range(text.num_layers)
        row = ("C", text.num_kv_heads, text.head_dim)
        self._past = [f"past_{kind}.{layer}" for layer in layers for kind in ("key", "value")]
        self._new = [f"new_{kind}.{layer}" for layer in layers for kind in ("key", "value")]
        ids = ("input_ids", "position_ids", "logit_positions", "next_tokens")
        rows = {"visual_tokens": ("M", text.hidden_size), "logits": ("K", text.vocab_size)}
        engine.check({**rows, "past_length": (1,), **dict.fromkeys(ids, ("S",)), **dict.fromkeys(self._past, row),
                      **dict.fromkeys(self._new, row)})  # fmt: skip
        self.dtype = engine.tensors["visual_tokens"].dtype
        self._engine = engine
        self._device = engine.device
        self._kernels = kernels
        self._text = text
        self._cache = CacheLength(capacity)
        self._row_bytes = text.num_kv_heads * text.head_dim * ITEM_BYTES[self.dtype]
        if self._row_bytes % _WORD:
            raise EngineError(f"a cache row of this model has {self._row_bytes} bytes, which is no multiple of {_WORD}")
        most = {name: max(engine.limits(name, profile)[1] for profile in engine.profiles)
                for name in ("input_ids", "logit_positions", "visual_tokens")}  # fmt: skip
        self._most_new, self._most_logits = most["input_ids"], most["logit_positions"]
        self._most_visual = most["visual_tokens"]
        self._visual_bytes = text.hidden_size * ITEM_BYTES[self.dtype]

        numbers = {"input_ids": self._most_new, "position_ids": self._most_new, "logit_positions": self._most_logits,
                   "past_length": 1, "count": 1}  # fmt: skip
        self._numbers = Slots(memory, "buffers", {name: _INT * count for name, count in numbers.items()})
        self._host_numbers = memory.pinned(self._numbers.size // _INT, np.int64)
        self._state = Slots(memory, "buffers", dict.fromkeys((*_STATE, "one", "zero"), _INT))
        self._host_state = memory.pinned(self._state.size // _INT, np.int64)
        self._host_state[self._state.offsets["one"] // _INT] = 1
        self._next_tokens = memory.allocate("buffers", _INT * self._most_logits)
        self._host_next_tokens = memory.pinned(self._most_logits, np.int64)
        self._logits = memory.allocate("buffers", 4 * self._most_logits * text.vocab_size)
        self._host_logits = memory.pinned((self._most_logits, text.vocab_size), np.float32)
        self._ring = memory.pinned(_RING, np.int64)
        self._ring_address = memory.pinned_address(self._ring)
        self._visual = memory.allocate("buffers", self._visual_bytes * self._most_visual)
        self._staged_rows, self._cache_rows = (_aligned_rows(rows) for rows in (self._most_new, capacity))
        self._staged = memory.allocate("buffers", len(self._new) * self._staged_rows * self._row_bytes)
        # Zeroed, as every allocation here: rows that are masked must be finite numbers.
        self._rows = memory.allocate("KV cache", len(self._past) * self._cache_rows * self._row_bytes)
        self._arrived = [self._device.event() for _ in range(_RING)]
        self._prompts: OrderedDict[tuple[int, int, int], Program] = OrderedDict()
        self._steps: dict[int, Program] = {}

    @property
    def cache(self) -> CacheLength:
        """See `TextDecoder.cache`."""
        return self._cache

    def prepare(self) -> None:
        """Makes the programs of all decode steps now, so that no answer stalls where it grows into the next bucket."""
        with self._device:
            # The largest first, whose working memory then serves all.
            for rows in sorted({self._decode_rows(length) for length in range(self._cache.capacity)}, reverse=True):
                self._step(rows)

    def forward(
        self,
        input_ids: TokenIds,
        position_ids: TokenIds,
        visual_tokens: VisualTokens | None = None,
        num_logits: int = 1,
    ) -> _Output:
        """See `TextDecoder.forward`. At most as many logits as the engine was built for."""
        count, before = len(input_ids), self._cache.length
        visual = visual_tokens if isinstance(visual_tokens, DeviceVisualTokens) else None
        self._check(input_ids, visual, num_logits)
        self._cache.require(count)
        try:
            with self._device:
                if count == 1 and input_ids[0] < self._text.vocab_size:
                    return self._read_one(int(input_ids[0]), int(position_ids[0]))
                if visual is not None:
                    self._device.driver.memcpy_dtod_async(
                        self._visual, visual.address, visual.size, self._device.stream
                    )
                for first, end in chunks(count, self._most_new, num_logits):
                    wanted = num_logits if end == count else 1
                    self._read(input_ids[first:end], position_ids[first:end], wanted)
                return _Output(self, self._host_next_tokens[:num_logits].copy())
        except EngineError:
            self._cache.truncate(before)
            raise

    def decode_greedy(self, token: int, position: int, limit: int) -> Iterator[int]:
        """See `TextDecoder.decode_greedy`."""
        start = self._cache.length
        launched = 0
        for taken in range(limit):
            self._cache.require(1)
            with self._device:
                if taken == 0:
                    self._set_state(token, position)
                while launched < min(taken + 1 + AHEAD, limit, self._cache.capacity - start):
                    self._step(self._decode_rows(start + launched)).run()
                    self._arrived[launched % _RING].record(self._device.stream)
                    launched += 1
                self._arrived[taken % _RING].synchronize()
            self._cache.extend(1)
            yield int(self._ring[taken % _RING])

    def read_logits(self, count: int) -> Logits:
        """The logits of the last call: float32 [count, V] in a buffer that the next call overwrites."""
        with self._device:
            self._device.driver.memcpy_dtoh_async(self._host_logits[:count], self._logits, self._device.stream)
            self._device.wait()
        return self._host_logits[:count]

    def close(self) -> None:
        """Frees the programs."""
        for program in (*self._prompts.values(), *self._steps.values()):
            program.close()
        self._prompts.clear()
        self._steps.clear()
        self._arrived.clear()

    def _check(self, input_ids: TokenIds, visual: DeviceVisualTokens | None, num_logits: int) -> None:
        """What would read or write beyond a buffer on the device must not get there."""
        most = min(len(input_ids), self._most_logits)
        if not 1 <= num_logits <= most:
            raise EngineError(f"{num_logits} logits of {len(input_ids)} tokens were asked for; allowed: 1 to {most}")
        rows = visual.count if visual is not None else 0
        if rows > self._most_visual:
            raise EngineError(
                f"there are {rows} visual tokens and the engine takes {self._most_visual}; use fewer views or a "
                f"smaller max_tiles, or build it for more with `{self._engine.rebuild_command} --max-tiles N`"
            )
        smallest, largest = int(input_ids.min()), int(input_ids.max())
        if smallest < 0 or largest >= self._text.vocab_size + rows:
            wrong = smallest if smallest < 0 else largest
            raise EngineError(
                f"a token id is {wrong}, but there are {self._text.vocab_size} words and {rows} visual tokens"
            )

    # Single tokens

    def _read_one(self, token: int, position: int) -> _Output:
        self._set_state(token, position)
        self._step(self._decode_rows(self._cache.length)).run()
        self._device.wait()
        self._cache.extend(1)
        return _Output(self, self._ring[:1].copy())

    def _set_state(self, token: int, position: int) -> None:
        for name, value in zip(_STATE, (token, position, self._cache.length, 0), strict=True):
            self._host_state[self._state.offsets[name] // _INT] = value
        self._device.driver.memcpy_htod_async(self._state.address, self._host_state, self._device.stream)

    def _decode_rows(self, length: int) -> int:
        return power_of_two(length, LEAST_DECODE_ROWS, self._cache.capacity)

    def _step(self, rows: int) -> Program:
        if rows not in self._steps:
            state = self._state
            addresses = {"input_ids": state["input_id"], "position_ids": state["position"],
                         "past_length": state["past_length"], "logit_positions": state["zero"]}  # fmt: skip

            def then() -> None:
                self._append(state["past_length"], state["one"])
                self._kernels.advance(
                    next_token=self._next_tokens,
                    **{name: state[name] for name in _STATE},
                    ring=self._ring_address,
                    ring_size=_RING,
                )

            self._steps[rows] = self._program(1, rows, 1, addresses, then)
        return self._steps[rows]

    # Prompts

    def _read(self, input_ids: TokenIds, position_ids: TokenIds, wanted: int) -> None:
        count, length = len(input_ids), self._cache.length
        new = prompt_tokens(count, self._most_new)
        rows = power_of_two(length, LEAST_ROWS, self._cache.capacity)
        logits = power_of_two(wanted, 1, min(new, self._most_logits))
        numbers = {name: self._host_numbers[offset // _INT :] for name, offset in self._numbers.offsets.items()}
        for name, values in (("input_ids", input_ids), ("position_ids", position_ids)):
            numbers[name][:count] = values
            numbers[name][count:new] = 0
        numbers["logit_positions"][:wanted] = np.arange(count - wanted, count)
        numbers["logit_positions"][wanted:logits] = 0
        numbers["past_length"][0] = length
        numbers["count"][0] = count
        driver, stream = self._device.driver, self._device.stream
        driver.memcpy_htod_async(self._numbers.address, self._host_numbers, stream)
        self._prompt(new, rows, logits).run()
        driver.memcpy_dtoh_async(self._host_next_tokens[:wanted], self._next_tokens, stream)
        self._device.wait()
        self._cache.extend(count)

    def _prompt(self, new: int, rows: int, logits: int) -> Program:
        key = new, rows, logits
        if key not in self._prompts:
            while len(self._prompts) >= MOST_PROGRAMS:
                self._prompts.popitem(last=False)[1].close()
            inputs = ("input_ids", "position_ids", "logit_positions", "past_length")
            addresses = {name: self._numbers[name] for name in inputs}
            self._prompts[key] = self._program(
                *key, addresses, lambda: self._append(self._numbers["past_length"], self._numbers["count"])
            )
        self._prompts.move_to_end(key)
        return self._prompts[key]

    # Both

    def _program(
        self, new: int, rows: int, logits: int, addresses: dict[str, int], then: Callable[[], None]
    ) -> Program:
        profile = self._profile(new, rows, logits)
        cache: Shape = (rows, self._text.num_kv_heads, self._text.head_dim)
        visual = self._engine.limits("visual_tokens", profile)[1]
        shapes: dict[str, Shape] = {
            "input_ids": (new,),
            "position_ids": (new,),
            "past_length": (1,),
            "logit_positions": (logits,),
            "visual_tokens": (visual, self._text.hidden_size),
            **dict.fromkeys(self._past, cache),
        }
        past, staged = self._cache_rows * self._row_bytes, self._staged_rows * self._row_bytes
        return self._engine.program(
            profile,
            shapes,
            {
                **addresses,
                "visual_tokens": self._visual,
                "next_tokens": self._next_tokens,
                "logits": self._logits,
                **{name: self._rows + index * past for index, name in enumerate(self._past)},
                **{name: self._staged + index * staged for index, name in enumerate(self._new)},
            },
            then,
        )

    def _profile(self, new: int, rows: int, logits: int) -> int:
        """The engine's last profile that takes these sizes: those for fewer tokens come behind."""
        for profile in reversed(self._engine.profiles):
            sizes = {"input_ids": new, "logit_positions": logits, self._past[0]: rows}
            limits = {name: self._engine.limits(name, profile) for name in sizes}
            if all(limits[name][0] <= size <= limits[name][1] for name, size in sizes.items()):
                return profile
        raise EngineError(
            f"{self._engine.file.path.name} has no profile for {new} tokens, {rows} cache rows and {logits} logits; "
            f"build it again with `{self._engine.rebuild_command}`"
        )

    def _append(self, past_length: int, count: int) -> None:
        self._kernels.append(
            staged=self._staged,
            cache=self._rows,
            past_length=past_length,
            count=count,
            tensors=len(self._new),
            row_bytes=self._row_bytes,
            staged_rows=self._staged_rows,
            cache_rows=self._cache_rows,
        )


def _aligned_rows(rows: int) -> int:
    """Rows of a tensor in a block of several, so that the next tensor's address is aligned."""
    step = ALIGNMENT // _WORD
    return -(-rows // step) * step


class _Output:
    """See `DecoderOutput`."""

    def __init__(self, decoder: TensorRTTextDecoder, next_tokens: TokenIds) -> None:
        self._decoder = decoder
        self.next_tokens = next_tokens
        """int64 [K]."""

    def logits(self) -> Logits:
        """See `DecoderOutput.logits`."""
        return self._decoder.read_logits(len(self.next_tokens))
