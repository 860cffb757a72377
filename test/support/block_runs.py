"""Runs blocks of engines with ONNX Runtime on the CPU, with the parameters of a torch module as their weights.

ONNX Runtime does not multiply in bf16 on a CPU. So blocks in bf16 run in fp32, which shows that their graphs are right,
but not how they round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime

from litevlm_ros.engines.block_graph import FLOAT, UNIT, BlockGraph, BlockTensor
from litevlm_ros.engines.block_parameters import BlockParameter

_TYPES = {"float": np.float32, "float16": np.float16}

Array = np.ndarray[Any, Any]


class BlockRunner:
    """A block as ONNX Runtime computes it."""

    def __init__(self, block: BlockGraph) -> None:
        self._block = _without_bf16(block)
        self._session = onnxruntime.InferenceSession(self._block.serialized(), providers=["CPUExecutionProvider"])

    def __call__(self, weights: Mapping[str, Array], **activations: Array) -> tuple[Array, ...]:
        """Returns the outputs in the block's order. Inputs are rounded to the block's types."""
        given = {UNIT: np.ones((1, 1)), **weights, **activations}
        inputs = (*self._block.activations, *self._block.weights)
        feed = {tensor.name: np.asarray(given[tensor.name], _TYPES[tensor.type]) for tensor in inputs}
        return tuple(self._session.run([tensor.name for tensor in self._block.outputs], feed))


def _without_bf16(block: BlockGraph) -> BlockGraph:
    """Returns a block with fp32 in place of bf16."""

    def widened(tensors: Sequence[BlockTensor]) -> tuple[BlockTensor, ...]:
        return tuple(replace(each, type=FLOAT) if each.type == "bfloat16" else each for each in tensors)

    to_float, to_bf16 = (f"to = {number}>" for number in (onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16))
    return replace(
        block,
        activations=widened(block.activations),
        weights=widened(block.weights),
        outputs=widened(block.outputs),
        body=block.body.replace(to_bf16, to_float),
    )


def run_blocks(
    blocks: Sequence[BlockGraph],
    runs: Sequence[Sequence[BlockParameter]],
    parameters: Mapping[str, Array],
    first: Mapping[str, Array],
    attend: Callable[[int, Array], Array],
) -> Array:
    """Returns the output of the last block, when all layers run as on the GPU.

    `first` are the activations of the first block: the vision encoder's `patches`, or the text decoder's `sum`.
    `attend(layer, qkv)` computes the attention between blocks.
    """
    *before, qkv, mlp, last = map(BlockRunner, blocks)
    weights = ({each.tensor.name: _padded(parameters[each.name], each) for each in run} for run in runs)
    (total,) = before[0](next(weights), **first) if before else first.values()
    change = np.zeros_like(total)
    for layer in range((len(runs) - len(before) - 1) // 2):
        residual, packed = qkv(next(weights), sum=total, change=change)
        total, change = mlp(next(weights), attention=attend(layer, packed), residual=residual)
    (result,) = last(next(weights), sum=total, change=change)
    assert next(weights, None) is None, "every run has had its turn"
    return np.asarray(result, np.float32)


def _padded(values: Array, parameter: BlockParameter) -> Array:
    """Returns a parameter as the block's input: a bias as one row, and zeros behind what is padded."""
    shape = tuple(map(int, parameter.tensor.shape))
    rows = values.reshape(shape[: len(shape) - values.ndim] + values.shape)
    return np.pad(rows, [(0, wanted - there) for wanted, there in zip(shape, rows.shape, strict=True)])


def relative(result: Array, expected: Array) -> float:
    """Returns the norm of the difference by the norm of `expected`."""
    assert result.shape == expected.shape
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))
