"""Compares the decode kernel with the blocks of the same model, before anybody gets a token from it.

Both read a few words from an empty cache one by one, and the kernel then reads them at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from litevlm_ros.backend import TokenIds
from litevlm_ros.engines.text_blocks import padded_vocabulary
from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.attention_reference import relative_error
from litevlm_ros.runtime.tensorrt.block_check import TOLERANCES
from litevlm_ros.runtime.tensorrt.decode_step import DecodeSteps
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.numbers import from_words
from litevlm_ros.runtime.tensorrt.program import Program
from litevlm_ros.runtime.tensorrt.text_buffers import TextBuffers
from litevlm_ros.runtime.tensorrt.text_layers import TextLayers
from litevlm_ros.runtime.tensorrt.text_programs import prompt_program

_AT_ONCE = (5, 11)
"""The tokens that are read at once, which fill neither variant of the kernel."""
_WORD_STEP = 7919
"""The ids of words are so far apart: a prime, so that they come from all over the vocabulary."""

Floats = npt.NDArray[np.float32]


class DecodeCheck:
    """Checks the kernel of one model. The device must be current, and nobody may use the cache meanwhile."""

    def __init__(
        self,
        config: TextConfig,
        computed: str,
        layers: TextLayers,
        buffers: TextBuffers,
        device: CudaDevice,
        memory: DeviceMemory,
    ) -> None:
        """`computed` is 'fp16' or 'bf16', and `layers` makes the blocks that are right already."""
        self._config, self._computed = config, computed
        self._layers, self._buffers = layers, buffers
        self._device, self._memory = device, memory

    def wrong(self, steps: DecodeSteps) -> str:
        """Returns what is wrong with `steps`; '' if they are right. The cache is clean and empty afterwards.

        Raises EngineError if blocks or kernels cannot be made, or if there is no room.
        """
        most = min(_AT_ONCE[-1], self._buffers.most_new)
        ids = (1 + _WORD_STEP * np.arange(most, dtype=np.int64)) % self._config.vocab_size
        try:
            expected = self._by_blocks(ids)
            if not np.isfinite(expected).all():
                return f"the model itself gives numbers beyond what {self._computed} holds, so nothing can be compared"
            ones = steps.prompt(1)
            found = np.stack([self._read(ones, ids[place : place + 1], place)[0] for place in range(most)])
            for case, rows in (("one by one", found), *self._at_once(steps, ids)):
                error = relative_error(rows.astype(np.float64), expected[: len(rows)].astype(np.float64))
                if error > TOLERANCES[self._computed]:
                    how = f"the relative error is {error:.1e}" if math.isfinite(error) else "some are not finite"
                    return f"their logits are wrong where tokens are read {case}: {how}"
        finally:
            self._buffers.clear_rows(0, most)
            self._buffers.clear_bad()
            self._device.wait()
        return ""

    def _by_blocks(self, ids: TokenIds) -> Floats:
        """Returns the logits [S, V] of tokens that blocks read one by one. Their program is freed."""
        pieces = self._layers.pieces(1, 1, self._buffers.prompt)
        program = prompt_program(self._device, "the blocks that decode kernels are checked by", pieces, self._buffers)
        try:
            return np.stack([self._read(program, ids[place : place + 1], place)[0] for place in range(len(ids))])
        finally:
            self._device.wait()
            program.close()

    def _at_once(self, steps: DecodeSteps, ids: TokenIds) -> Iterator[tuple[str, Floats]]:
        """Yields what tokens are read, for people, and their logits."""
        for count in sorted({min(each, len(ids), steps.most_tokens) for each in _AT_ONCE}):
            yield f"{count} at once", self._read(steps.prompt(count), ids[:count], 0)

    def _read(self, program: Program, ids: TokenIds, past: int) -> Floats:
        """Reads tokens behind `past` others at the positions that follow. Returns the logits of each, [S, V]."""
        count = len(ids)
        self._buffers.write_prompt(ids, past + np.arange(count), past, count)
        program.run()
        _, bad = self._buffers.read_results()
        words = self._memory.read(self._buffers.logits, (count, padded_vocabulary(self._config)), np.uint16)
        logits = from_words(words, self._computed)[:, : self._config.vocab_size]
        return logits if bad is None else np.full_like(logits, np.nan)
