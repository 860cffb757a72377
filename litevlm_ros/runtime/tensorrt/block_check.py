"""Runs a new block on sample numbers, and compares rows of what it computes with numpy.

TensorRT is not trusted more than cuDNN is: on an H100, TensorRT-RTX 1.4 computed nonsense in bf16 in an earlier form of
the blocks, without an error. The samples have nothing to do with a model's weights, so a sound block passes with every
model.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from litevlm_ros.engines.block_graph import FLOAT, ROWS, UNIT, BlockGraph, BlockTensor
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.model_directory import VISION
from litevlm_ros.runtime.tensorrt.attention_reference import SampleNumbers, edges, relative_error
from litevlm_ros.runtime.tensorrt.block import Block
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, aligned, places
from litevlm_ros.runtime.tensorrt.numbers import from_words

TOLERANCES = {"fp16": 2e-2, "bf16": 6e-2}
"""Type in which a block multiplies → the largest relative error of a row. Sums in fp16 are off by 3e-3."""

_FLOAT_SCALE = 1 / 16
"""fp32 samples are so much smaller, norms' weights among them, so that an MLP of any width stays within fp16."""
_SHIFT = 2048
"""Bytes between the places at which the inputs begin, which overlap to save memory."""
_BYTES = {True: 4, False: 2}
_ERF_TERMS = np.vectorize(math.erf, otypes=[np.float64])

Array = npt.NDArray[np.float64]
Reference = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class BlockCheck:
    """Checks the blocks of one part that every layer runs: 'qkv' and 'mlp'. The device must be current."""

    def __init__(
        self,
        part: str,
        graphs: Sequence[BlockGraph],
        model: ModelConfig,
        computed: str,
        device: CudaDevice,
        memory: DeviceMemory,
    ) -> None:
        """`graphs` are those of `part` (VISION or TEXT), and `computed` is 'fp16' or 'bf16'."""
        self._graphs = {graph.name: graph for graph in graphs}
        self._references = vision_references(model.vision) if part == VISION else text_references(model.text)
        self._numbers = SampleNumbers(computed)
        self._computed, self._device, self._memory = computed, device, memory

    def wrong(self, name: str, rows: int, block: Block) -> str:
        """Returns what is wrong with the block `name` of so many rows; '' if it is right, or not checked.

        Raises EngineError if there is no room for the sample.
        """
        reference = self._references.get(name)
        if reference is None:
            return ""
        shown = edges(rows)
        found, given = self._run(self._graphs[name], rows, shown, block)
        expected = reference(given)
        worst = max(relative_error(found[output], expected[output]) for output in found)
        if worst <= TOLERANCES[self._computed]:
            return ""
        how = f"the relative error is {worst:.1e}" if math.isfinite(worst) else "some numbers are not finite"
        return f"it computes nonsense in {self._computed}: {how}"

    @contextlib.contextmanager
    def sample(self, name: str, rows: int) -> Iterator[dict[str, int]]:
        """Yields addresses for a run of the block `name` of so many rows, by the names of its graph.

        Its inputs hold sample numbers. All work is done, and the memory freed, when the context ends. Raises
        EngineError if there is no room.
        """
        graph = self._graphs[name]
        inputs = (*graph.activations, *graph.weights)
        sizes = {wide: self._reach(inputs, rows, wide=wide) for wide in (True, False)}
        outputs = {tensor.name: _BYTES[tensor.type == FLOAT] * _numbers(tensor, rows) for tensor in graph.outputs}
        base = self._memory.allocate("check", sum(sizes.values()) + aligned(4) + sum(map(aligned, outputs.values())))
        try:
            at = places(base, {"wide": sizes[True], "narrow": sizes[False], UNIT: 4, **outputs})
            self._memory.fill(at["wide"], sizes[True], (_FLOAT_SCALE * self._period()).astype(np.float32))
            self._memory.fill(at["narrow"], sizes[False], self._numbers.period)
            self._memory.write(at[UNIT], np.ones(1, np.float32))
            addresses = {output: at[output] for output in outputs}
            for index, tensor in enumerate(inputs):
                place = at["wide" if tensor.type == FLOAT else "narrow"] + index * _SHIFT
                addresses[tensor.name] = at[UNIT] if tensor.name == UNIT else place
            yield addresses
        finally:
            self._device.wait()
            self._memory.release(base)

    def _run(
        self, graph: BlockGraph, rows: int, shown: Sequence[int], block: Block
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Runs a block. Returns the rows `shown` of its outputs, and of its activations with all its weights."""
        given = {
            tensor.name: self._values(tensor, index * _SHIFT // _BYTES[tensor.type == FLOAT], shown)
            for index, tensor in enumerate((*graph.activations, *graph.weights))
        }
        given[UNIT] = np.ones((1, 1))
        with self.sample(graph.name, rows) as addresses:
            block.enqueue(addresses)
            found = {tensor.name: self._read(tensor, addresses[tensor.name], shown) for tensor in graph.outputs}
        return found, given

    def _reach(self, inputs: Sequence[BlockTensor], rows: int, *, wide: bool) -> int:
        """Returns the bytes from the first input of a type to the end of the one that ends last."""
        ends = [
            index * _SHIFT + _BYTES[wide] * _numbers(tensor, rows)
            for index, tensor in enumerate(inputs)
            if (tensor.type == FLOAT) == wide
        ]
        return aligned(max(ends, default=1))

    def _period(self) -> npt.NDArray[np.float32]:
        return from_words(self._numbers.period, self._computed)

    def _values(self, tensor: BlockTensor, start: int, shown: Sequence[int]) -> Array:
        """Returns an input from number `start` of the samples on: all of a weight, or some rows of an activation."""
        scale = _FLOAT_SCALE if tensor.type == FLOAT else 1.0
        width = int(tensor.shape[-1])
        if tensor.shape[0] == ROWS:
            return scale * self._numbers.matrix(start, shown, range(width), width)
        shape = tuple(map(int, tensor.shape))
        numbers = np.resize(np.roll(self._period(), -start), shape)
        return scale * numbers.astype(np.float64)

    def _read(self, tensor: BlockTensor, address: int, shown: Sequence[int]) -> Array:
        width, wide = int(tensor.shape[-1]), tensor.type == FLOAT
        rows = []
        for row in shown:
            words = self._memory.read(address + _BYTES[wide] * row * width, (width,), np.float32 if wide else np.uint16)
            rows.append(words if wide else from_words(words, self._computed))
        return np.stack(rows).astype(np.float64)


def text_references(config: TextConfig) -> dict[str, Reference]:
    """Returns the blocks 'qkv' and 'mlp' of `engines/text_blocks.py` in numpy."""
    eps, inner = config.rms_norm_eps, config.intermediate_size

    def norm(rows: Array, weight: Array) -> Array:
        return rows / np.sqrt(np.square(rows).mean(-1, keepdims=True) + eps) * weight

    def qkv(given: Mapping[str, Array]) -> Mapping[str, Array]:
        residual = given["sum"] + given["change"]
        packed = norm(residual, given["input_norm"]) @ given["qkv_weight"].T
        if config.qkv_bias:
            packed = packed + given["qkv_bias"]
        if config.qk_norm:
            heads = packed.reshape(len(packed), -1, config.head_dim)
            queries, keys, values = np.split(heads, [config.num_heads, config.num_heads + config.num_kv_heads], 1)
            parts = norm(queries, given["q_norm"]), norm(keys, given["k_norm"]), values
            packed = np.concatenate(parts, 1).reshape(packed.shape)
        return {"residual": residual, "qkv": packed}

    def mlp(given: Mapping[str, Array]) -> Mapping[str, Array]:
        total = given["residual"] + given["attention"] @ given["o_proj"].T
        both = norm(total, given["post_norm"]) @ given["gate_up"].T
        gate, up = both[:, :inner], both[:, inner:]
        return {"sum": total, "change": (gate / (1 + np.exp(-gate)) * up) @ given["down"].T}

    return {"qkv": qkv, "mlp": mlp}


def vision_references(config: VisionConfig) -> dict[str, Reference]:
    """Returns the blocks 'qkv' and 'mlp' of `engines/vision_blocks.py` in numpy."""

    def norm(rows: Array, weight: Array, bias: Array) -> Array:
        centred = rows - rows.mean(-1, keepdims=True)
        return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + config.layer_norm_eps) * weight + bias

    def qkv(given: Mapping[str, Array]) -> Mapping[str, Array]:
        residual = given["sum"] + given["change"]
        packed = norm(residual, given["norm1_weight"], given["norm1_bias"]) @ given["qkv_weight"].T
        return {"residual": residual, "qkv": packed + given["qkv_bias"] if config.qkv_bias else packed}

    def mlp(given: Mapping[str, Array]) -> Mapping[str, Array]:
        mixed = (given["attention"] @ given["proj"].T + given["proj_bias"]) * given["scale1"]
        total = given["residual"] + mixed
        wide = norm(total, given["norm2_weight"], given["norm2_bias"]) @ given["fc1"].T + given["fc1_bias"]
        active = 0.5 * wide * (1 + _ERF_TERMS(wide / math.sqrt(2)))
        return {"sum": total, "change": (active @ given["fc2"].T + given["fc2_bias"]) * given["scale2"]}

    return {"qkv": qkv, "mlp": mlp}


def _numbers(tensor: BlockTensor, rows: int) -> int:
    """Returns the numbers of a tensor. One that has fewer rows than the inputs is taken to have as many."""
    return math.prod(rows if isinstance(size, str) else size for size in tensor.shape)
