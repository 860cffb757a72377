"""The text decoder on a TensorRT engine.

Everything has a fixed address, so that each shape is one CUDA graph: the engine writes new keys and values to a
staging block, and a kernel in the same graph appends them to the cache at a row that it reads from device memory.
A decode step ends with a kernel that makes the likeliest token the next input, so steps can be launched ahead of the
host. The host reads the tokens from a ring in its own memory, and takes steps back by setting the cache's length.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from litevlm_ros.backend import HiddenStates, Logits, TokenIds, VisualTokens
from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.kv_cache import CacheLength
from litevlm_ros.runtime.tensorrt.kernels.launch import CacheKernels
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.program import Engine, Program
from litevlm_ros.runtime.tensorrt.text_buffers import RING, TextBuffers, chunks, power_of_two, prompt_tokens
from litevlm_ros.runtime.tensorrt.vision import DeviceVisualTokens

LEAST_ROWS = 64
"""The smallest number of cache rows offered to a prompt."""
LEAST_DECODE_ROWS = 256
"""The smallest number of cache rows offered to single tokens and drafts, so that few programs serve all lengths."""
AHEAD = 2
"""The number of decode steps that are launched before the token of the current one is there."""
MOST_PROGRAMS = 32
"""The number of prompt shapes whose programs are kept; beyond, the one that was used longest ago is dropped."""

_Enqueue = Callable[[], None]


class TensorRTTextDecoder:
    """A `TextDecoder`.

    It has programs for prompts by shape, for drafts by length and cache bucket, and for single tokens by cache bucket.
    """

    def __init__(
        self, engine: Engine, model: ModelConfig, capacity: int, memory: DeviceMemory, kernels: CacheKernels
    ) -> None:
        """Allocates cache and buffers. Raises EngineError if the engine is of another model or memory is short."""
        self._engine = engine
        self._device = engine.device
        self._kernels = kernels
        self._vocab_size = model.text.vocab_size
        self._cache = CacheLength(capacity)
        self._buffers = TextBuffers(engine, model, capacity, memory)
        self._arrived = [self._device.event() for _ in range(RING)]
        self._prompts: OrderedDict[tuple[int, int, int], Program] = OrderedDict()
        self._verifications: dict[tuple[int, int], Program] = {}
        self._steps: dict[int, Program] = {}
        # CUDA loads a kernel at its first launch, which a capture must not see. All counters are still zero.
        self._buffers.append_step(kernels)

    @property
    def dtype(self) -> str:
        """TensorRT's name for the type of visual tokens."""
        return self._buffers.dtype

    @property
    def cache(self) -> CacheLength:
        """See `TextDecoder.cache`."""
        return self._cache

    @property
    def most_logits(self) -> int:
        """See `TextDecoder.most_logits`."""
        return self._buffers.most_logits

    gives_hidden = False
    """See `TextDecoder.gives_hidden`. Engines are built without that output."""

    def prepare(self, counts: Sequence[int] = ()) -> None:
        """See `TextDecoder.prepare`.

        The programs of all decode steps are made too, so that no answer stalls where it grows into the next bucket.
        """
        with self._device:
            # The largest comes first, because its working memory then serves all.
            for rows in sorted({self._decode_rows(length) for length in range(self._cache.capacity)}, reverse=True):
                self._step(rows)
                for count in counts:
                    self._verification(count, rows)

    def forward(
        self,
        input_ids: TokenIds,
        position_ids: TokenIds,
        visual_tokens: VisualTokens | None = None,
        num_logits: int = 1,
    ) -> _Output:
        """See `TextDecoder.forward`. `num_logits` is at most `most_logits`."""
        count, before = len(input_ids), self._cache.length
        visual = visual_tokens if isinstance(visual_tokens, DeviceVisualTokens) else None
        self._check(input_ids, visual, num_logits)
        self._cache.require(count)
        try:
            with self._device:
                if count == 1 and input_ids[0] < self._vocab_size:
                    return self._read_one(int(input_ids[0]), int(position_ids[0]))
                if visual is not None:
                    self._device.driver.memcpy_dtod_async(
                        self._buffers.visual, visual.address, visual.size, self._device.stream
                    )
                for first, end in chunks(count, self._buffers.most_new, num_logits):
                    wanted = num_logits if end == count else 1
                    self._read(input_ids[first:end], position_ids[first:end], wanted)
                return _Output(self, self._buffers.host_next_tokens[:num_logits].copy())
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
                    self._buffers.write_state(token, position, start)
                while launched < min(taken + 1 + AHEAD, limit, self._cache.capacity - start):
                    self._step(self._decode_rows(start + launched)).run()
                    self._arrived[launched % RING].record(self._device.stream)
                    launched += 1
                self._arrived[taken % RING].synchronize()
            self._cache.extend(1)
            yield int(self._buffers.ring[taken % RING])

    def read_logits(self, count: int) -> Logits:
        """Returns the logits of the last call: float32 [count, V] in a buffer that the next call overwrites."""
        logits: Logits = self._buffers.host_logits[:count]
        with self._device:
            self._device.driver.memcpy_dtoh_async(logits, self._buffers.logits, self._device.stream)
            self._device.wait()
        return logits

    def close(self) -> None:
        """Frees the programs."""
        for program in (*self._prompts.values(), *self._verifications.values(), *self._steps.values()):
            program.close()
        self._prompts.clear()
        self._verifications.clear()
        self._steps.clear()
        self._arrived.clear()

    def _check(self, input_ids: TokenIds, visual: DeviceVisualTokens | None, num_logits: int) -> None:
        """Raises EngineError for arguments with which the device would read or write beyond a buffer."""
        most = min(len(input_ids), self._buffers.most_logits)
        if not 1 <= num_logits <= most:
            raise EngineError(f"{num_logits} logits of {len(input_ids)} tokens were asked for; allowed: 1 to {most}")
        rows = visual.count if visual is not None else 0
        if rows > self._buffers.most_visual:
            raise EngineError(
                f"there are {rows} visual tokens and the engine takes {self._buffers.most_visual}; use fewer views or "
                f"a smaller max_tiles, or build it for more with `{self._engine.rebuild_command} --max-tiles N`"
            )
        smallest, largest = int(input_ids.min()), int(input_ids.max())
        if smallest < 0 or largest >= self._vocab_size + rows:
            wrong = smallest if smallest < 0 else largest
            raise EngineError(f"a token id is {wrong}, but there are {self._vocab_size} words and {rows} visual tokens")

    # Single tokens

    def _read_one(self, token: int, position: int) -> _Output:
        self._buffers.write_state(token, position, self._cache.length)
        self._step(self._decode_rows(self._cache.length)).run()
        self._device.wait()
        self._cache.extend(1)
        return _Output(self, self._buffers.ring[:1].copy())

    def _decode_rows(self, length: int) -> int:
        return power_of_two(length, LEAST_DECODE_ROWS, self._cache.capacity)

    def _step(self, rows: int) -> Program:
        if rows not in self._steps:
            self._steps[rows] = self._program(
                1, rows, 1, self._buffers.step_addresses(), lambda: self._buffers.append_step(self._kernels)
            )
        return self._steps[rows]

    # Prompts

    def _read(self, input_ids: TokenIds, position_ids: TokenIds, wanted: int) -> None:
        buffers, count, length = self._buffers, len(input_ids), self._cache.length
        new = prompt_tokens(count, buffers.most_new)
        is_draft = 1 < wanted == count and new <= buffers.most_logits
        logits = new if is_draft else power_of_two(wanted, 1, min(new, buffers.most_logits))
        buffers.write_prompt(input_ids, position_ids, length, new, wanted, logits)
        if is_draft:
            self._verification(new, self._decode_rows(length)).run()
        else:
            self._prompt(new, power_of_two(length, LEAST_ROWS, self._cache.capacity), logits).run()
        self._device.driver.memcpy_dtoh_async(
            buffers.host_next_tokens[:wanted], buffers.next_tokens, self._device.stream
        )
        self._device.wait()
        self._cache.extend(count)

    def _prompt(self, new: int, rows: int, logits: int) -> Program:
        key = new, rows, logits
        if key not in self._prompts:
            while len(self._prompts) >= MOST_PROGRAMS:
                self._prompts.popitem(last=False)[1].close()
            self._prompts[key] = self._prompt_program(*key)
        self._prompts.move_to_end(key)
        return self._prompts[key]

    def _prompt_program(self, new: int, rows: int, logits: int) -> Program:
        return self._program(
            new, rows, logits, self._buffers.prompt_addresses(), lambda: self._buffers.append_prompt(self._kernels)
        )

    # Drafts

    def _verification(self, count: int, rows: int) -> Program:
        """Returns the program that reads `count` tokens with the logits of each. There are few, so all are kept."""
        key = count, rows
        if key not in self._verifications:
            self._verifications[key] = self._prompt_program(count, rows, count)
        return self._verifications[key]

    # All

    def _program(self, new: int, rows: int, logits: int, addresses: dict[str, int], then: _Enqueue) -> Program:
        profile = self._profile(new, rows, logits)
        visual = self._engine.limits("visual_tokens", profile)[1]
        return self._engine.program(profile, self._buffers.shapes(new, rows, logits, visual), addresses, then)

    def _profile(self, new: int, rows: int, logits: int) -> int:
        """Returns the engine's last profile that takes these sizes: profiles for fewer tokens come last."""
        sizes = {"input_ids": new, "logit_positions": logits, self._buffers.past[0]: rows}
        for profile in reversed(self._engine.profiles):
            limits = {name: self._engine.limits(name, profile) for name in sizes}
            if all(limits[name][0] <= size <= limits[name][1] for name, size in sizes.items()):
                return profile
        raise EngineError(
            f"{self._engine.file.path.name} has no profile for {new} tokens, {rows} cache rows and {logits} logits; "
            f"build it again with `{self._engine.rebuild_command}`"
        )


class _Output:
    """A `DecoderOutput`, whose logits stay on the device until somebody asks for them."""

    def __init__(self, decoder: TensorRTTextDecoder, next_tokens: TokenIds) -> None:
        self._decoder = decoder
        self.next_tokens = next_tokens
        """See `DecoderOutput.next_tokens`."""

    def logits(self) -> Logits:
        """See `DecoderOutput.logits`."""
        return self._decoder.read_logits(len(self.next_tokens))

    def hidden(self) -> HiddenStates:
        """See `DecoderOutput.hidden`."""
        raise EngineError("this engine gives no hidden states")
