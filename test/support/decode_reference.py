"""A step of decode.cu in float64, which the kernel is compared with, and which the fake GPU runs instead.

numpy computes it, or torch where a GPU is to do that (`Arrays`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.kernels.decode import COUNT_BYTES, STEP_LAYOUT, Step
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words

Floats = npt.NDArray[np.float64]
ROWS = 16
"""The tokens that the buffers of a step have room for."""


@dataclass(frozen=True)
class Shapes:
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    layers: int
    vocabulary: int

    @classmethod
    def of(cls, config: TextConfig) -> Shapes:
        return cls(
            config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim, config.intermediate_size,
            config.num_layers, config.vocab_size,
        )  # fmt: skip

    @property
    def padded(self) -> int:
        return -(-self.vocabulary // 8) * 8

    @property
    def qkv_width(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def mixed(self) -> int:
        return self.heads * self.head_dim

    def matrices(self) -> tuple[tuple[int, int], ...]:
        """The shapes [N, K] of a layer's matrices: qkv, o_proj, gate_up, down."""
        inner = (2 * self.inner, self.hidden), (self.hidden, self.inner)
        return (self.qkv_width, self.hidden), (self.hidden, self.mixed), *inner


@dataclass(frozen=True)
class LayerWeights:
    """`matrices` are float64 [N, K] as `Shapes.matrices` names them. None stands for what a model does not have."""

    matrices: Sequence[Any]
    qkv_bias: Any
    input_norm: Any
    post_norm: Any
    q_norm: Any = None
    k_norm: Any = None


@dataclass(frozen=True)
class Result:
    """The keys and values of the new tokens [S, G, D] of each layer, and their logits [S, V]."""

    keys: list[Any]
    values: list[Any]
    logits: Any


@dataclass(frozen=True)
class Arrays:
    """The library that computes: numpy, or torch on a GPU. `place` takes an array of numpy to where it computes."""

    library: Any
    place: Callable[[Any], Any]


NUMPY = Arrays(np, lambda array: array)


def restored(values: Any, scales: Any, packing: str, arrays: Arrays = NUMPY) -> Any:
    """The numbers [N, K] of a packed weight: `values` are its bytes [N, bytes], `scales` [N] or [N, K / block]."""
    library = arrays.library
    numbers = arrays.place(_NUMBERS[packing])[library.asarray(values, dtype=library.int64)]
    by_row = library.asarray(scales, dtype=library.float64).reshape(len(values), -1, 1)
    return (numbers.reshape(len(values), by_row.shape[1], -1) * by_row).reshape(len(values), -1)


def _e4m3() -> Floats:
    codes = np.arange(256)
    exponents, fractions = codes >> 3 & 15, (codes & 7) / 8
    sizes = np.where(exponents, (1 + fractions) * 2.0 ** (exponents - 7), fractions * 2.0**-6)
    return np.where(codes & 128, -sizes, sizes)


def _nibbles() -> Floats:
    codes = np.arange(256)
    return ((np.stack([codes & 15, codes >> 4], -1) ^ 8) - 8).astype(np.float64)


_NUMBERS = {
    "fp8": _e4m3(),
    "int8": np.arange(256).astype(np.int8).astype(np.float64),
    "int4": _nibbles(),
}
"""Packing → the numbers in a byte: [256], or [256, 2] of int4."""


def rounding(computed: str) -> Callable[[Floats], Floats]:
    """Returns what rounds to fp16 or bf16, beyond whose largest number is infinity."""

    def rounded(numbers: Floats) -> Floats:
        return from_words(to_words(numbers.astype(np.float32), computed), computed).astype(np.float64)

    return rounded


def _exact(numbers: Floats) -> Floats:
    return numbers


@np.errstate(over="ignore", invalid="ignore")
def decode(
    shapes: Shapes,
    layers: Sequence[LayerWeights],
    past: Sequence[tuple[Any, Any]],
    embedded: Any,
    positions: npt.NDArray[np.int64],
    frequencies: npt.NDArray[np.float32],
    final_norm: Any,
    head: Any,
    eps: float,
    rounded: Callable[[Any], Any] = _exact,
    arrays: Arrays = NUMPY,
) -> Result:
    """Reads `embedded` tokens [S, H] behind the `past` keys and values [rows, G, D] of each layer.

    `head` is [V, H]. `rounded` is applied where the kernel holds fp16 or bf16 numbers. All but `positions` and
    `frequencies` are float64 arrays of `arrays`, and so is the result.
    """
    library, place = arrays.library, arrays.place
    count, size, sharing = len(embedded), shapes.head_dim, shapes.heads // shapes.kv_heads
    angles = (positions.astype(np.float32)[:, None] * frequencies).astype(np.float64)[:, None]
    cosines, sines = place(np.cos(angles)), place(np.sin(angles))

    def norm(rows: Any, weight: Any) -> Any:
        return rows / library.sqrt((rows * rows).mean(-1)[..., None] + eps) * weight

    def normalised(rows: Any, weight: Any) -> Any:
        return rounded(norm(rows, weight))

    def rotated(heads: Any) -> Any:
        first, second = heads[..., : size // 2], heads[..., size // 2 :]
        return library.concatenate((first * cosines - second * sines, second * cosines + first * sines), -1)

    total, result = embedded, Result([], [], np.empty(0))
    for weights, (past_keys, past_values) in zip(layers, past, strict=True):
        qkv_weight, o_proj, gate_up, down = weights.matrices
        qkv = normalised(total, weights.input_norm) @ qkv_weight.T
        if weights.qkv_bias is not None:
            qkv = qkv + weights.qkv_bias
        heads = qkv.reshape(count, -1, size)
        asked, kept = heads[:, : shapes.heads], heads[:, shapes.heads : -shapes.kv_heads]
        if weights.q_norm is not None:
            asked, kept = norm(asked, weights.q_norm), norm(kept, weights.k_norm)
        queries = rounded(rotated(asked)).reshape(count, shapes.kv_heads, sharing, size)
        result.keys.append(rounded(rotated(kept)))
        result.values.append(rounded(heads[:, -shapes.kv_heads :]))
        keys = library.concatenate((past_keys, result.keys[-1]))
        values = library.concatenate((past_values, result.values[-1]))
        scores = library.einsum("sgmd,kgd->gmsk", queries, keys) / size**0.5
        seen = place(np.arange(len(keys)) <= len(past_keys) + np.arange(count)[:, None])
        scores = library.where(seen, scores, -np.inf)
        shares = library.exp(scores - library.amax(scores, -1)[..., None])
        mixed = library.einsum("gmsk,kgd->sgmd", shares / shares.sum(-1)[..., None], values)
        total = total + rounded(mixed.reshape(count, -1)) @ o_proj.T
        inner = normalised(total, weights.post_norm) @ gate_up.T
        gate, up = inner[:, : shapes.inner], inner[:, shapes.inner :]
        total = total + rounded(gate / (1 + library.exp(-gate)) * up) @ down.T
    return Result(result.keys, result.values, rounded(normalised(total, final_norm) @ head.T))


def chosen(
    logits: Floats,
    allowed: npt.NDArray[np.bool_] | None = None,
    penalised: npt.NDArray[np.bool_] | None = None,
    penalty: float = 1,
) -> npt.NDArray[np.int64]:
    """The likeliest `allowed` tokens [S] of logits [S, V], of which those of `penalised` tokens [V] are scaled."""
    if penalised is not None:
        less = np.where(logits > 0, logits / penalty, logits * penalty)
        logits = np.where(penalised, less, logits)
    if allowed is not None:
        logits = np.where(allowed, logits, -np.inf)
    return logits.argmax(-1)


def bits(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """A bit for each token, as a step takes them."""
    padded = np.zeros(-(-len(flags) // 32) * 32, bool)
    padded[: len(flags)] = flags
    return np.packbits(padded, bitorder="little").view(np.uint32)


# --- the step as the fake GPU runs it


class _Memory:
    """Views of device memory, which is the host's."""

    def __init__(self, check_range: Callable[[int, int], None]) -> None:
        self._check_range = check_range

    def view(self, address: int, shape: tuple[int, ...], kind: Any) -> Any:
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        self._check_range(address, size)
        return np.frombuffer((ctypes.c_char * size).from_address(address), kind).reshape(shape)

    @np.errstate(invalid="ignore")
    def numbers(self, address: int, shape: tuple[int, ...], computed: str) -> Floats:
        kinds = {"fp32": np.float32, "fp16": np.float16}
        if computed in kinds:
            return self.view(address, shape, kinds[computed]).astype(np.float64)
        return from_words(self.view(address, shape, np.uint16), computed).astype(np.float64)


_PACKINGS = {"Plain": "", "Fp8": "fp8", "Int8": "int8", "Int4": "int4"}
"""Types of stored.cuh → packings."""


def run_step(check_range: Callable[[int, int], None], macros: Mapping[str, str], blocks: int, argument: bytes) -> None:
    """Does what the kernel with these macros does with the structure `argument`, at addresses of the host's memory.

    `check_range` raises for an address and a number of bytes that are not allocated.
    """
    step, memory = Step(*STEP_LAYOUT.unpack(argument)), _Memory(check_range)
    names = ("HIDDEN", "HEADS", "KV_HEADS", "HEAD_DIM", "INNER", "LAYERS", "VOCABULARY")
    shapes = Shapes(*(int(macros[name]) for name in names))
    computed = "bf16" if "NUMBER_IS_BF16" in macros else "fp16"
    assert int(macros["ROWS_OF_HEAD"]) == shapes.padded
    assert not memory.view(step.counts, (COUNT_BYTES // 4,), np.uint32).any(), "counts of a step before"
    sums = memory.view(step.sums, (3, ROWS, shapes.hidden), np.float32)
    assert not sums[1].any(), "a sum of a step before"
    sums[::2] = np.nan  # nobody may need it afterwards
    for address in (step.best, step.best_at):
        memory.view(address, (ROWS * blocks,), np.uint32)[:] = 0xABABABAB
    fresh, valid = memory.view(step.lengths, (2,), np.int32).tolist()
    assert 1 <= fresh <= int(macros["TOKENS"])
    table = memory.view(step.layers, (shapes.layers, 17), np.uint64).tolist()
    packing = _PACKINGS[macros["FORMAT"]]
    stored = _PACKINGS[macros["WORD_FORMAT"]], computed
    layers = [_layer(memory, shapes, row, packing, int(macros["GROUP"]), computed) for row in table]
    cached = [
        [memory.view(address, (valid, shapes.kv_heads, shapes.head_dim), np.uint16) for address in row[-2:]]
        for row in table
    ]
    past = [tuple(from_words(each[: valid - fresh], computed).astype(np.float64) for each in both) for both in cached]
    head = _words(memory, shapes, (table[0][4], table[0][9]), slice(0, shapes.padded), *stored)
    ids = memory.view(step.ids, (fresh,), np.int64)
    result = decode(
        shapes, layers, past, _embedded(memory, shapes, step, ids, *stored),  # type: ignore[arg-type]
        memory.view(step.positions, (fresh,), np.int64),
        memory.view(step.frequencies, (shapes.head_dim // 2,), np.float32),
        memory.numbers(step.final_norm, (shapes.hidden,), "fp32"), head, step.eps, rounding(computed),
    )  # fmt: skip
    bad = memory.view(step.bad, (shapes.layers + 1,), np.int32)
    for layer, both in enumerate(zip(result.keys, result.values, strict=True)):
        for target, found in zip(cached[layer], both, strict=True):
            target[valid - fresh :] = to_words(found, computed)
            bad[layer] |= not np.isfinite(found).all()
    words = result.logits[:, : shapes.vocabulary]
    bad[-1] |= not np.isfinite(words).all()
    memory.view(step.logits, (ROWS, shapes.padded), np.uint16)[:fresh] = to_words(result.logits, computed)
    next_tokens = memory.view(step.next_tokens, (ROWS,), np.int64)
    next_tokens[:fresh] = chosen(np.nan_to_num(words), *_masks(memory, shapes, step))
    if step.ring:
        _advance(memory, step, int(next_tokens[0]), bool(bad.any()))


def _layer(
    memory: _Memory, shapes: Shapes, row: Sequence[int], packing: str, group: int, computed: str
) -> LayerWeights:
    matrices = []
    for index, (rows, columns) in enumerate(shapes.matrices()):
        values, scales = row[index], row[5 + index]
        if not packing:
            assert not scales
            matrices.append(memory.numbers(values, (rows, columns), computed))
            continue
        stored = memory.view(values, (rows, columns // 2 if packing == "int4" else columns), np.uint8)
        shape = (rows, columns // group) if packing == "int4" else (rows,)
        matrices.append(restored(stored, memory.view(scales, shape, np.float16), packing))
    wide = "fp32" if computed == "fp16" else "bf16"
    bias = memory.numbers(row[10], (shapes.qkv_width,), wide) if row[10] else None
    norms = (memory.numbers(address, (shapes.hidden,), "fp32") for address in row[11:13])
    of_heads = (memory.numbers(address, (shapes.head_dim,), "fp32") if address else None for address in row[13:15])
    return LayerWeights(matrices, bias, *norms, *of_heads)


def _words(memory: _Memory, shapes: Shapes, table: tuple[int, int], some: slice, packing: str, computed: str) -> Floats:
    """Some rows of a table of words, whose values and scales, if it is packed, lie at the addresses `table`."""
    values, scales = table
    count, width = some.stop - some.start, shapes.hidden
    assert bool(scales) == bool(packing)
    if not packing:
        return memory.numbers(values + 2 * width * some.start, (count, width), computed)
    stored = memory.view(values + width * some.start, (count, width), np.uint8)
    return restored(stored, memory.view(scales + 2 * some.start, (count,), np.float16), packing)


def _embedded(
    memory: _Memory, shapes: Shapes, step: Step, ids: npt.NDArray[np.int64], packing: str, computed: str
) -> Floats:
    visual = "bf16" if step.visual_is_bf16 else "fp16"
    table, words, width = (step.embedding, step.word_scales), shapes.vocabulary, shapes.hidden
    return np.concatenate([
        memory.numbers(step.visual + 2 * width * (one - words), (1, width), visual)
        if one >= words
        else _words(memory, shapes, table, slice(one, one + 1), packing, computed)
        for one in ids.tolist()
    ])  # fmt: skip


def _masks(memory: _Memory, shapes: Shapes, step: Step) -> tuple[Any, Any, float]:
    def flags(address: int) -> Any:
        words = memory.view(address, (-(-shapes.vocabulary // 32),), np.uint32)
        return np.unpackbits(words.view(np.uint8), bitorder="little")[: shapes.vocabulary].astype(bool)

    penalty = float(memory.view(step.penalty, (1,), np.float32)[0]) if step.penalised else 1
    return flags(step.allowed) if step.allowed else None, flags(step.penalised) if step.penalised else None, penalty


def _advance(memory: _Memory, step: Step, token: int, is_bad: bool) -> None:
    steps = memory.view(step.steps, (1,), np.int64)
    memory.view(step.ring, (step.ring_size,), np.int64)[steps[0] % step.ring_size] = -1 if is_bad else token
    if step.penalised:
        memory.view(step.penalised + token // 32 * 4, (1,), np.uint32)[0] |= np.uint32(1 << token % 32)
    memory.view(step.ids, (1,), np.int64)[0] = token
    memory.view(step.positions, (1,), np.int64)[0] += 1
    memory.view(step.lengths, (2,), np.int32)[1] += 1
    steps[0] += 1
