"""The text decoder: reads tokens by programs, whatever the cache holds.

Everything has a fixed address, and how many tokens are new and how long the cache is are numbers in device memory. So
each shape is one CUDA graph. A decode step makes the likeliest token the next step's input, so steps can be launched
ahead of the host. The host reads the tokens from a ring in its own memory, and takes steps back by
setting the cache's length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from litevlm_ros.backend import HiddenStates, Logits, TokenIds, VisualTokens
from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT
from litevlm_ros.runtime.kv_cache import CacheLength
from litevlm_ros.runtime.not_finite import not_finite
from litevlm_ros.runtime.tensorrt.decode_step import DecodeSteps
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.numbers import from_words
from litevlm_ros.runtime.tensorrt.program import Program
from litevlm_ros.runtime.tensorrt.text_buffers import RING, TextBuffers, chunks
from litevlm_ros.runtime.tensorrt.text_programs import BlockPrograms
from litevlm_ros.runtime.tensorrt.vision import DeviceVisualTokens

AHEAD = 2
"""The number of decode steps that are launched before the token of the current one is there."""


class TensorRTTextDecoder:
    """A `TextDecoder`."""

    def __init__(
        self,
        model: ModelConfig,
        capacity: int,
        blocks: BlockPrograms,
        steps: DecodeSteps | None,
        buffers: TextBuffers,
        device: CudaDevice,
        *,
        precision: str,
        computed: str,
    ) -> None:
        """`steps` read up to their `most_tokens`, and `blocks` more; without `steps`, blocks read any number.

        `precision` is the engine's, for messages, and `computed` the type of numbers, 'fp16' or 'bf16'.
        """
        self._config = model.text
        self._precision, self._computed = precision, computed
        self._blocks, self._steps, self._buffers = blocks, steps, buffers
        self._device = device
        self._cache = CacheLength(capacity)
        self._arrived = [device.event() for _ in range(RING)]
        self._ahead = 0
        """The end of the cache rows of decode steps whose tokens nobody has read; 0 if there are none."""

    @property
    def cache(self) -> CacheLength:
        """See `TextDecoder.cache`."""
        return self._cache

    most_logits = MOST_LOGITS
    """See `TextDecoder.most_logits`."""
    gives_hidden = False
    """See `TextDecoder.gives_hidden`. Blocks keep the hidden states to themselves."""

    def prepare(self, counts: Sequence[int] = ()) -> None:
        """See `TextDecoder.prepare`. The program of decode steps is made too."""
        with self._device:
            self._settle()
            self._step()
            for count in counts:
                self._prompt(count, count)

    def forward(
        self,
        input_ids: TokenIds,
        position_ids: TokenIds,
        visual_tokens: VisualTokens | None = None,
        num_logits: int = 1,
    ) -> _Output:
        """See `TextDecoder.forward`. Raises NotFiniteError if keys, values or logits are not finite."""
        count, before = len(input_ids), self._cache.length
        visual = visual_tokens if isinstance(visual_tokens, DeviceVisualTokens) else None
        self._check(input_ids, visual, num_logits)
        self._cache.require(count)
        try:
            with self._device:
                self._settle()
                if visual is not None:
                    self._device.driver.memcpy_dtod_async(
                        self._buffers.visual, visual.address, visual.size, self._device.stream
                    )
                for first, end in chunks(count, self._buffers.most_new, num_logits):
                    wanted = num_logits if end == count else 1
                    next_tokens, row = self._read(input_ids[first:end], position_ids[first:end], wanted, before)
                return _Output(self, next_tokens, row)
        except EngineError:
            self._cache.truncate(before)
            raise

    def decode_greedy(self, token: int, position: int, limit: int) -> Iterator[int]:
        """See `TextDecoder.decode_greedy`. Raises NotFiniteError as `forward` does."""
        start = self._cache.length
        launched = 0
        for taken in range(limit):
            self._cache.require(1)
            with self._device:
                step = self._step()
                if taken == 0:
                    self._settle()
                    self._buffers.write_state(token, position, start)
                while launched < min(taken + 1 + AHEAD, limit, self._cache.capacity - start):
                    step.run()
                    self._arrived[launched % RING].record(self._device.stream)
                    launched += 1
                self._ahead = start + launched if launched > taken + 1 else 0
                self._arrived[taken % RING].synchronize()
                found = int(self._buffers.ring[taken % RING])
                if found < 0:
                    self._raise_not_finite(start + taken, start + launched, self._first_bad())
            self._cache.extend(1)
            yield found

    def read_logits(self, row: int, count: int) -> Logits:
        """Returns `count` rows of logits of the last call from `row` on: float32 [count, V]."""
        raw = self._buffers.host_logits[:count]
        with self._device:
            self._device.driver.memcpy_dtoh_async(raw, self._buffers.logits_of(row), self._device.stream)
            self._device.wait()
        return from_words(raw[:, : self._config.vocab_size], self._computed)

    def close(self) -> None:
        """Frees events. Programs belong to `blocks` and `steps`."""
        self._arrived.clear()

    def _check(self, input_ids: TokenIds, visual: DeviceVisualTokens | None, num_logits: int) -> None:
        """Raises EngineError for arguments with which the device would read or write beyond a buffer."""
        most = min(len(input_ids), MOST_LOGITS)
        if not 1 <= num_logits <= most:
            raise EngineError(f"{num_logits} logits of {len(input_ids)} tokens were asked for; allowed: 1 to {most}")
        rows = visual.count if visual is not None else 0
        if rows > self._buffers.most_visual:
            raise EngineError(
                f"there are {rows} visual tokens and there is room for {self._buffers.most_visual}; use fewer views or "
                "a smaller max_tiles, or a larger max_context"
            )
        smallest, largest = int(input_ids.min()), int(input_ids.max())
        if smallest < 0 or largest >= self._config.vocab_size + rows:
            wrong = smallest if smallest < 0 else largest
            raise EngineError(
                f"a token id is {wrong}, but there are {self._config.vocab_size} words and {rows} visual tokens"
            )

    def _read(self, input_ids: TokenIds, position_ids: TokenIds, wanted: int, before: int) -> tuple[TokenIds, int]:
        """Reads tokens behind the cache. Returns the `wanted` next ones, and the row of logits of the first of them.

        If they are not finite, the cache is clean from `before` on.
        """
        count, length = len(input_ids), self._cache.length
        program, row = self._prompt(count, wanted)
        self._buffers.write_prompt(input_ids, position_ids, length, wanted)
        program.run()
        next_tokens, bad = self._buffers.read_results()
        if bad is not None:
            self._raise_not_finite(before, length + count, bad)
        self._cache.extend(count)
        return next_tokens[row : row + wanted].copy(), row

    def _settle(self) -> None:
        """Waits for decode steps that ran ahead of a dropped iterator, and cleans up if they were not finite.

        Nobody has seen their tokens, so that is no error.
        """
        if self._ahead and self._first_bad() is not None:
            self._buffers.clear_rows(min(self._cache.length, self._ahead), self._ahead)
            self._buffers.clear_bad()
        self._ahead = 0

    def _first_bad(self) -> int | None:
        """Waits for all decode steps, and returns the first flag that they have set, if any."""
        self._buffers.download_results()
        return self._buffers.read_results()[1]

    def _raise_not_finite(self, first: int, end: int, bad: int | None) -> None:
        """Cleans the cache rows from `first` to before `end`, and raises NotFiniteError for the first flag, `bad`."""
        self._buffers.clear_rows(first, end)
        self._buffers.clear_bad()
        self._device.wait()
        # Keys and values show what the layer before has computed; the last flag, behind the layers', is the logits'.
        layer = None if bad is None else max(bad - 1, 0)
        raise not_finite(TEXT, self._precision, layer)

    def _prompt(self, count: int, wanted: int) -> tuple[Program, int]:
        """Returns the program that reads `count` tokens, and the row of results of the first of the `wanted` last."""
        if self._steps is not None and count <= self._steps.most_tokens:
            return self._steps.prompt(count), count - wanted
        return self._blocks.prompt(count, wanted), 0

    def _step(self) -> Program:
        """Returns the program that reads the token of `write_state`, or what the last step found."""
        return (self._steps or self._blocks).step()


class _Output:
    """A `DecoderOutput`, whose logits stay on the device until somebody asks for them."""

    def __init__(self, decoder: TensorRTTextDecoder, next_tokens: TokenIds, row: int) -> None:
        """`row` is that of the first token's logits."""
        self._decoder, self._row = decoder, row
        self.next_tokens = next_tokens
        """See `DecoderOutput.next_tokens`."""

    def logits(self) -> Logits:
        """See `DecoderOutput.logits`."""
        return self._decoder.read_logits(self._row, len(self.next_tokens))

    def hidden(self) -> HiddenStates:
        """See `DecoderOutput.hidden`."""
        raise EngineError("engines give no hidden states")
