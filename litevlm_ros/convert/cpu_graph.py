"""ONNX graphs whose matrix products a CPU computes in 8 bits, with the integers that an engine stores.

    int8   rows of the input in 8 bits, each with a scale of its own → MatMulIntegerToFloat → times that scale
    int4   MatMulNBits, which keeps weights in 4 bits and takes blocks of the input in 8 bits
    word tables (int8)   the head is a MatMulNBits of 8 bits, and the embedding gathers rows of the same bytes

The weights are the numbers of an engine, but for its rounding to fp16. What differs is the input of each product, which
is rounded to 8 bits. Both operators belong to ONNX Runtime. A row is rounded by itself alone, so a token is computed
alike whichever tokens are read beside it. The zero of a row is 128, because ONNX Runtime's fast kernels multiply
unsigned inputs by signed weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import nn

from litevlm_ros.convert.packed_graph import add_initializer
from litevlm_ros.convert.packed_weights import StoredWeight
from litevlm_ros.convert.quantized_weights import QuantizedWeight
from litevlm_ros.errors import EngineError
from litevlm_ros.precision import WORD_TABLES

_DOMAIN = "com.microsoft"
_EIGHT_BITS = 127
_LEAST_SCALE = 1e-30
"""The scale of a row of zeros, which fp32 can divide by."""
_WORD_BLOCKS = (128, 64, 32, 16)
"""The numbers of inputs of the head that ONNX Runtime may round with one scale, in the order of preference."""
_COMPUTE_IN_8_BITS = 4
"""The accuracy level of MatMulNBits at which its input is rounded to 8 bits."""


def store_for_cpu(graph: ir.Model, module: nn.Module, stored: Mapping[str, StoredWeight]) -> None:
    """Makes `graph` multiply in 8 bits by the int8 and int4 matrices among `stored`.

    `graph` was drawn from `module` with PACKED_OPSET, and `stored` has the names of its parameters. Raises EngineError
    if the graph lacks a packed weight, or uses it in another way than these modules do.
    """
    graph.graph.opset_imports[_DOMAIN] = 1
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for alias, parameter in module.named_parameters(remove_duplicate=False):
        name, value = names[id(parameter)], graph.graph.initializers.get(alias)
        weight = stored[name]
        if value is None or not isinstance(weight, QuantizedWeight):
            continue
        _Products(graph.graph, name, weight).replace(value)
    left = [name for name, weight in stored.items() if isinstance(weight, QuantizedWeight) and not _has(graph, name)]
    if left:
        raise EngineError(f"the graph has no weight {min(left)} to pack; export it again with this version")


def _has(graph: ir.Model, name: str) -> bool:
    return f"{name}.scale" in graph.graph.initializers


class _Products:
    """The nodes that replace those that read one matrix [N, K]."""

    def __init__(self, graph: ir.Graph, name: str, weight: QuantizedWeight) -> None:
        self._graph, self._name, self._weight = graph, name, weight
        self._outputs, self._inputs = weight.values.shape
        self._is_table = name in WORD_TABLES
        self._block = weight.block
        """The number of inputs that are rounded together; 0 for a whole row."""
        if self._is_table:
            self._block = next(block for block in _WORD_BLOCKS if self._inputs % block == 0)

    def replace(self, matrix: ir.Value) -> None:
        """Replaces all nodes that read the initializer `matrix`, and the initializer."""
        operands = self._operands()
        for node in [use.node for use in matrix.uses()]:
            first, second, *bias = node.inputs
            if node.op_type == "Gather" and self._is_table and second is not None:
                new = self._gathered(second, *operands)
            elif node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1 and first is not None:
                multiply = self._blockwise if self._block else self._rowwise
                new = multiply(first, bias[0] if bias else None, *operands)
            else:
                raise EngineError(f"{node.op_type} reads {self._name}, which packed weights do not serve")
            before, after = node.outputs[0], new[-1].outputs[0]
            after.name, after.shape, after.type = before.name, before.shape, before.type
            ir.convenience.replace_nodes_and_values(self._graph, node, [node], new, [before], [after])
        del self._graph.initializers[str(matrix.name)]

    def _operands(self) -> tuple[ir.Value, ir.Value]:
        """Adds the initializers for values and scales in the form that the operator reads."""
        scale = self._weight.scale.float().numpy()
        if self._weight.block:
            values = self._nibbles()
        elif self._is_table:
            unsigned = (self._weight.values.view(torch.uint8) ^ 128).numpy()
            values = unsigned.reshape(self._outputs, -1, self._block)
            scale = np.repeat(scale[:, None], values.shape[1], 1)
        else:
            values = np.ascontiguousarray(self._weight.values.numpy().T)
        return self._constant(self._weight.precision, values), self._constant("scale", scale)

    def _rowwise(self, rows: ir.Value, bias: ir.Value | None, values: ir.Value, scale: ir.Value) -> list[ir.Node]:
        """Multiplies `rows` [M, K], each rounded with a scale of its own, by int8 `values` [K, N] with `scale` [N]."""
        nodes: list[ir.Node] = []

        def add(op: str, *inputs: ir.Value, domain: str = "", **attributes: Any) -> ir.Value:
            node = ir.node(op, inputs, attributes, domain=domain)
            nodes.append(node)
            node.outputs[0].name = f"{rows.name}.{self._name}.{len(nodes)}"
            return node.outputs[0]

        axis = self._shared("last_axis", np.array([-1]))
        largest = add("ReduceMax", add("Abs", rows), axis, keepdims=1)
        scaled = add("Mul", largest, self._shared("eighth", np.float32(1 / _EIGHT_BITS)))
        row_scale = add("Max", scaled, self._shared("least_scale", np.float32(_LEAST_SCALE)))
        flat = add("Squeeze", row_scale, axis)
        zeros = add("ConstantOfShape", add("Shape", flat), value=ir.Tensor(np.array([128], np.uint8)))
        rounded = add("QuantizeLinear", rows, flat, zeros, axis=0)
        product = add(
            "MatMulIntegerToFloat", rounded, values, self._shared("one", np.float32(1)), scale,
            self._shared("zero", np.uint8(128)), domain=_DOMAIN,
        )  # fmt: skip
        result = add("Mul", product, row_scale)
        if bias is not None:
            add("Add", result, bias)
        return nodes

    def _blockwise(self, rows: ir.Value, bias: ir.Value | None, values: ir.Value, scale: ir.Value) -> list[ir.Node]:
        """Multiplies `rows` [M, K], rounded in blocks, by `values` uint8 [N, blocks, bytes], `scale` [N, blocks]."""
        attributes = {
            "K": self._inputs,
            "N": self._outputs,
            "bits": 4 if self._weight.block else 8,
            "block_size": self._block,
            "accuracy_level": _COMPUTE_IN_8_BITS,
        }
        inputs = [rows, values, scale, *([] if bias is None else [None, None, bias])]
        return [ir.node("MatMulNBits", inputs, attributes, domain=_DOMAIN)]

    def _gathered(self, ids: ir.Value, values: ir.Value, scale: ir.Value) -> list[ir.Node]:
        """Restores rows of a table in fp32 [S, K]: (value - 128) * scale."""
        rows = ir.node("Gather", [values, ids], {"axis": 0})
        wide = ir.node("Cast", rows.outputs, {"to": ir.DataType.FLOAT})
        centred = ir.node("Sub", [wide.outputs[0], self._shared("middle", np.float32(128))])
        scales = ir.node("Gather", [scale, ids], {"axis": 0})
        column = ir.node("Unsqueeze", [scales.outputs[0], self._shared("last_axis", np.array([-1]))])
        restored = ir.node("Mul", [centred.outputs[0], column.outputs[0]])
        shape = self._shared(f"row_of_{self._inputs}", np.array([-1, self._inputs]))
        flat = ir.node("Reshape", [restored.outputs[0], shape])
        return [rows, wide, centred, scales, column, restored, flat]

    def _nibbles(self) -> npt.NDArray[np.uint8]:
        """Returns int4 values as uint8 [N, blocks, block / 2], two a byte, the first in the lower half, 8 for zero."""
        shifted = (self._weight.values.view(torch.uint8) + 8).numpy() & 15
        pairs = np.bitwise_or(shifted[:, ::2], shifted[:, 1::2] << 4, dtype=np.uint8)
        return pairs.reshape(self._outputs, -1, self._weight.block // 2)

    def _constant(self, kind: str, array: npt.NDArray[Any]) -> ir.Value:
        name = f"{self._name}.{kind}"
        return self._graph.initializers.get(name) or add_initializer(self._graph, name, ir.Tensor(array))

    def _shared(self, kind: str, array: npt.ArrayLike) -> ir.Value:
        """Returns a small constant that the products of all matrices share."""
        name = f"cpu.{kind}"
        return self._graph.initializers.get(name) or add_initializer(self._graph, name, ir.Tensor(np.asarray(array)))
