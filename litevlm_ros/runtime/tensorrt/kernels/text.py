"""Launches the kernels of text.cu."""

from __future__ import annotations

from collections.abc import Mapping

from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, KernelModule

MOST_CHOOSE_THREADS = 1024
"""The most threads of a block that looks for the largest logit; a power of two."""
_WORD_NUMBERS = 8

_KINDS = {
    "embed": "PPPPPiii",
    "rotations": "PPPi",
    "rotate_and_append": "PPPPPPi",
    "gather_rows": "PPPPPii",
    "choose": "PPPii",
    "advance": "PPPPPPPii",
}
_THREADS = 256
_ROTARY_THREADS = 128
"""Threads of a block that rotates; so small that a prompt of 448 tokens keeps all of an H100 busy."""
_ROTARY_WORDS = {8: "uint4", 2: "unsigned", 1: "number"}
"""Numbers that a thread rotates of a half of a head → the type of text.cu that holds them."""


def text_macros(config: TextConfig, computed: str) -> Mapping[str, str]:
    """Returns the macros that text.cu is compiled with. `computed` is 'fp16' or 'bf16'."""
    shapes = {
        "HEADS": config.num_heads,
        "KV_HEADS": config.num_kv_heads,
        "HALF": config.head_dim // 2,
        "ROTARY_WORD": _ROTARY_WORDS[_rotary_numbers(config)],
        "CHOOSE_THREADS": _choose_threads(config),
    }
    return {**NUMBER_MACROS[computed], **{name: f"{value}" for name, value in shapes.items()}}


def rotary_grid(config: TextConfig, tokens: int) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Returns the grid and the block of `rotate_and_append`."""
    heads = config.num_heads + 2 * config.num_kv_heads
    threads = tokens * heads * (config.head_dim // 2 // _rotary_numbers(config))
    return (-(-threads // _ROTARY_THREADS), 1), (_ROTARY_THREADS, 1, 1)


def _rotary_numbers(config: TextConfig) -> int:
    return next(numbers for numbers in _ROTARY_WORDS if config.head_dim // 2 % numbers == 0)


def _choose_threads(config: TextConfig) -> int:
    words = -(-config.vocab_size // _WORD_NUMBERS)
    return min(MOST_CHOOSE_THREADS, 1 << (words - 1).bit_length())


class TextKernels:
    """The kernels of text.cu for one model, enqueued on the device's stream. All addresses are in device memory.

    S is the number of new tokens, K the number of rows whose logits are wanted, H the text width, and `lengths` the
    address of int32 [2]: the number of new tokens, of which S - that fill up the shape, and of valid cache rows.
    """

    def __init__(self, device: CudaDevice, config: TextConfig, computed: str) -> None:
        """Compiles and loads the kernels for numbers of type `computed`, 'fp16' or 'bf16'. Raises EngineError."""
        self._config = config
        self._choose_threads = _choose_threads(config)
        self._module = KernelModule(device, "text.cu", _KINDS, text_macros(config, computed))

    def embed(
        self, ids: int, table: int, scales: int, visual: int, residual: int, count: int, *, visual_is_bf16: bool
    ) -> None:
        """Writes `residual` fp32 [S, H] from int64 `ids` [S], the embedding `table` [V, H] and the `visual` tokens.

        The table holds numbers and `scales` is 0, or it holds int8 and `scales` is the address of fp16 [V].
        """
        addresses = ids, table, scales, visual, residual
        numbers = self._config.hidden_size, self._config.vocab_size, int(visual_is_bf16)
        self._module.launch("embed", (count, 1), (_THREADS, 1, 1), *addresses, *numbers)

    def rotations(self, positions: int, frequencies: int, table: int, count: int) -> None:
        """Writes `table` fp32 [S, D] from int64 `positions` [S] and fp32 `frequencies` [D / 2]."""
        half = self._config.head_dim // 2
        self._module.launch("rotations", (count, 1), (min(half, _THREADS), 1, 1), positions, frequencies, table, half)

    def rotate_and_append(
        self, qkv: int, keys: int, values: int, table: int, lengths: int, bad: int, count: int
    ) -> None:
        """Rotates the queries of `qkv` [S, heads * D] in place, and appends keys and values to one layer's cache.

        int32 `bad` becomes 1 if any of them is not finite.
        """
        addresses = qkv, keys, values, table, lengths, bad
        self._module.launch("rotate_and_append", *rotary_grid(self._config, count), *addresses, count)

    def gather_rows(
        self, wanted: int, attention: int, residual: int, attention_rows: int, residual_rows: int, count: int
    ) -> None:
        """Copies the rows `wanted` int64 [K] of the last attention's output and of the residual."""
        widths = self._config.num_heads * self._config.head_dim, self._config.hidden_size
        addresses = wanted, attention, residual, attention_rows, residual_rows
        self._module.launch("gather_rows", (count, 1), (_THREADS, 1, 1), *addresses, *widths)

    def choose(self, logits: int, next_tokens: int, bad: int, count: int, stride: int) -> None:
        """Writes the likeliest token of each row of `logits` [K, `stride`] to `next_tokens` int64 [K].

        int32 `bad` becomes 1 if any logit is not finite.
        """
        numbers = self._config.vocab_size, stride
        self._module.launch("choose", (count, 1), (self._choose_threads, 1, 1), logits, next_tokens, bad, *numbers)

    def advance(
        self,
        *,
        next_token: int,
        bad: int,
        input_id: int,
        position: int,
        lengths: int,
        step: int,
        ring: int,
        ring_size: int,
    ) -> None:
        """Moves the token to the next step's input and to `ring[step % ring_size]`, and adds one to all counters.

        The ring gets -1 instead if any of the int32 `bad` [layers + 1] is set.
        """
        addresses = next_token, bad, input_id, position, lengths, step, ring
        numbers = ring_size, self._config.num_layers + 1
        self._module.launch("advance", (1, 1), (1, 1, 1), *addresses, *numbers)

    def close(self) -> None:
        """Unloads the kernels. None of them may be running."""
        self._module.close()
