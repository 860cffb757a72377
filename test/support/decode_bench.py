"""A model of random weights on the host, of which the kernel of decode.cu and the reference compute a step."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from decode_reference import ROWS, LayerWeights, Shapes, decode, restored, rounding
from host_decode import run_decode

from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.attention_reference import relative_error
from litevlm_ros.runtime.tensorrt.kernels.decode import (
    COUNT_BYTES,
    Step,
    WeightFormat,
    decode_macros,
    sum_words,
)
from litevlm_ros.runtime.tensorrt.kernels.teams import Teams
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words

CAPACITY, VISUAL = 256, 4
NOT_A_NUMBER = 0x7FFF
"""The bits of a NaN in fp16 and in bf16."""
TOLERANCES = {"fp16": 4e-3, "bf16": 1.6e-2}
"""Type of numbers → the largest relative error of a row. One rounding is 5e-4, or 4e-3."""


def packed(weight: Any, stored: WeightFormat) -> tuple[Any, Any]:
    """The bytes [N, ...] of a packed weight [N, K], and its scales: all values there are, at random."""
    count, width = weight.shape
    random = np.random.default_rng(width)
    values = random.integers(0, 256, (count, width // (2 if stored.block else 1))).astype(np.uint8)
    if stored.packing == "fp8":
        values[values & 0x7F == 0x7F] = 0  # which is not a number
    most = {"fp8": 120, "int8": 74, "int4": 4.6}[stored.packing] * width**0.5
    shape = (count, width // stored.block) if stored.block else (count,)
    return values, (random.uniform(0.5, 1.5, shape) / most).astype(np.float16)


class DecodeBench:
    """A model of random weights, the buffers of a step, and what the reference computes it from.

    What no step has written is NaN.
    """

    def __init__(self, config: TextConfig, computed: str, stored: WeightFormat, visual: str) -> None:
        self.config, self.computed, self.stored = config, computed, stored
        self.shapes = Shapes.of(config)
        self._kept: list[Any] = []
        random = np.random.default_rng(7)
        cached = random.standard_normal((config.num_layers, 2, CAPACITY, config.num_kv_heads, config.head_dim))
        self.past = to_words(cached, computed)
        self.cache = self.past.copy()
        self.layers, self.biases, table = [], [], []
        for layer in range(config.num_layers):
            matrices, values, scales = zip(
                *(self._matrix(random, shape, stored) for shape in self.shapes.matrices()), strict=True
            )
            bias = 0.2 * random.standard_normal(self.shapes.qkv_width)
            bias_words: Any = to_words(bias, "bf16") if computed == "bf16" else bias.astype(np.float32)
            wide_bias = from_words(bias_words, "bf16") if computed == "bf16" else bias_words
            norms = [(1 + 0.1 * random.standard_normal(config.hidden_size)).astype(np.float32) for _ in range(2)]
            of_heads = [random.uniform(0.5, 1.5, config.head_dim).astype(np.float32) for _ in range(2)]
            self.layers.append(LayerWeights(
                matrices, wide_bias.astype(np.float64) if config.qkv_bias else None, *map(np.float64, norms),
                *(map(np.float64, of_heads) if config.qk_norm else (None, None)),
            ))  # fmt: skip
            self.biases.append(bias_words)
            places = [*norms, *(of_heads if config.qk_norm else ())]
            addresses = [self._address(bias_words) if config.qkv_bias else 0, *map(self._address, places)]
            addresses += [0] * (5 - len(addresses))
            table.append([*values, 0, *scales, 0, *addresses, *map(self._address, self.cache[layer])])
        words = WeightFormat(stored.words)
        self.embedding, *addresses = self._matrix(random, (self.shapes.padded, config.hidden_size), words)
        table[0][4], table[0][9] = addresses
        self.visual_words = to_words(random.standard_normal((VISUAL, config.hidden_size)), visual)
        self.visual = from_words(self.visual_words, visual).astype(np.float64)
        self.final_norm = (1 + 0.1 * random.standard_normal(config.hidden_size)).astype(np.float32)
        size = config.head_dim
        self.frequencies = (config.rope_theta ** -(np.arange(0, size, 2) / size)).astype(np.float32)
        self.ids, self.positions, self.next_tokens = (np.zeros(ROWS, np.int64) for _ in range(3))
        self.lengths, self.bad = np.zeros(2, np.int32), np.zeros(config.num_layers + 1, np.int32)
        self.counts = np.zeros(COUNT_BYTES // 4, np.uint32)
        self.sums = np.zeros(sum_words(config), np.float32)
        """The sums that a step leaves to the next one, which needs zeros in one place alone."""
        self.logits = np.full((ROWS, self.shapes.padded), NOT_A_NUMBER, np.uint16)
        self.table = np.array(table, np.uint64)

    def _matrix(self, random: Any, shape: tuple[int, int], stored: WeightFormat) -> tuple[Any, int, int]:
        """The numbers of a matrix, and the addresses of what is stored of it: values, and scales or 0."""
        weight = random.standard_normal(shape) / shape[1] ** 0.5
        if not stored.packing:
            words = to_words(weight, self.computed)
            return from_words(words, self.computed).astype(np.float64), self._address(words), 0
        values, scales = packed(weight, stored)
        return restored(values, scales, stored.packing), self._address(values), self._address(scales)

    def _address(self, array: Any) -> int:
        self._kept.append(array)
        return int(array.ctypes.data)

    def run(self, tokens: int, warps: int, teams: Teams, **changes: Any) -> None:
        """Runs a step of up to `tokens` tokens with what the buffers hold."""
        macros = {**decode_macros(self.config, self.computed, self.stored, tokens, teams, 90000), "WARPS": f"{warps}"}
        best = np.full(teams.blocks * ROWS, np.nan, np.float32)
        best_at = np.full(teams.blocks * ROWS, -1, np.int32)
        names = ("visual_words", "final_norm", "frequencies", "ids", "positions", "lengths", "sums", "counts", "logits",
                 "next_tokens", "bad")  # fmt: skip
        given = {
            **dict.fromkeys((each.name for each in fields(Step)), 0),
            **{name.removesuffix("_words"): getattr(self, name) for name in names},
            **{"layers": self.table, "embedding": int(self.table[0, 4]), "word_scales": int(self.table[0, 9])},
            "eps": self.config.rms_norm_eps,
            **{"best": best, "best_at": best_at},
            **changes,
        }
        step = Step(
            **{name: each.ctypes.data if isinstance(each, np.ndarray) else each for name, each in given.items()}
        )
        run_decode(macros, step)
        assert not self.counts.any(), "the next step needs zeros"

    def set(self, ids: Any, past: int) -> None:
        """Sets the tokens of a step behind `past` rows, at positions that differ from the rows."""
        count = len(ids)
        self.ids[:], self.positions[:] = -1, -1
        self.ids[:count], self.positions[:count] = ids, 3 + past + 2 * np.arange(count)
        self.lengths[:] = count, past + count
        self.cache[:] = NOT_A_NUMBER
        self.cache[:, :, :past] = self.past[:, :, :past]
        self.logits[:], self.next_tokens[:], self.bad[:] = NOT_A_NUMBER, -1, 0

    def numbers(self, words: Any) -> Any:
        return from_words(words, self.computed).astype(np.float64)

    def some_logits(self) -> Any:
        return self.numbers(self.logits[: self.lengths[0]])[:, : self.config.vocab_size]

    def check(self) -> None:
        """Compares all that a step has written with the reference."""
        (count, valid), words = self.lengths.tolist(), self.config.vocab_size
        rows = [self.visual[each - words] if each >= words else self.embedding[each] for each in self.ids[:count]]
        past: Any = [self.numbers(both) for both in self.past[:, :, : valid - count]]
        expected = decode(
            self.shapes, self.layers, past, np.stack(rows), self.positions[:count], self.frequencies,
            self.final_norm.astype(np.float64), self.embedding[:words], self.config.rms_norm_eps,
            rounding(self.computed),
        )  # fmt: skip
        assert not self.bad.any()
        self.hold(self.some_logits(), expected.logits, "logits")
        np.testing.assert_array_equal(self.next_tokens[:count], self.some_logits().argmax(-1))
        assert (self.logits[count:] == NOT_A_NUMBER).all(), "only new tokens have logits"
        assert (self.next_tokens[count:] == -1).all()
        for layer, both in enumerate(zip(expected.keys, expected.values, strict=True)):
            for cache, before, new in zip(self.cache[layer], self.past[layer], both, strict=True):
                self.hold(self.numbers(cache[valid - count : valid]), new, f"the cache of layer {layer}")
                np.testing.assert_array_equal(cache[: valid - count], before[: valid - count])
                assert (cache[valid:] == NOT_A_NUMBER).all()

    def hold(self, found: Any, expected: Any, what: str) -> None:
        found, expected = found.reshape(len(found), -1), expected.reshape(len(expected), -1)
        worst = relative_error(found, expected)
        assert worst < TOLERANCES[self.computed], f"{what}: relative error {worst:.1e}"
