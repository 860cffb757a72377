"""Rewrites linear layers of an exported fp16 graph to quantized ones, in the explicit form that every TensorRT reads.

    fp8, int8   x → QuantizeLinear → DequantizeLinear → Gemm ← DequantizeLinear ← weight in 8 bits
    weight only x ────────────────────────────────────→ Gemm ← DequantizeLinear ← weight in 8 or 4 bits

TensorRT fuses each such group into one kernel. Nothing else changes: attention, norms, embedding and head stay as they
were. There are no precision flags and no calibrators, which TensorRT 11 no longer has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch

from litevlm_ros.convert.quantized_weights import QuantizedWeight
from litevlm_ros.errors import EngineError

_FP8 = ir.DataType.FLOAT8E4M3FN


@dataclass(frozen=True)
class QuantizedLayer:
    """A linear layer. `input_scale` is the step of the quantized activations; None leaves them in fp16."""

    weight: QuantizedWeight
    input_scale: float | None = None


def quantize_graph(model: ir.Model, layers: dict[str, QuantizedLayer]) -> None:
    """Quantizes the weights of `layers`, by module name such as 'layers.0.qkv', and the activations that meet them.

    `model` was exported with QUANTIZED_OPSET and is changed in place. Raises EngineError if it lacks such a layer.
    """
    gemms = {
        node.inputs[1].name: node
        for node in model.graph
        if node.op_type == "Gemm" and node.inputs[1] is not None and node.inputs[1].is_initializer()
    }
    for name, layer in layers.items():
        node = gemms.get(f"{name}.weight")
        if node is None:
            raise EngineError(f"the graph has no linear layer {name} to quantize; export it again with this version")
        _replace(model.graph, node, name, layer)


def _replace(graph: ir.Graph, node: ir.Node, name: str, layer: QuantizedLayer) -> None:
    weight = node.inputs[1]
    assert weight is not None
    values, scale = _constants(graph, name, layer.weight)
    inputs = [values, scale]
    attributes = {"axis": 1, "block_size": layer.weight.block} if layer.weight.block else {"axis": 0}
    if not layer.weight.scale.dim():
        attributes = {}
    restored = ir.node("DequantizeLinear", inputs, attributes)
    _describe(restored.outputs[0], f"{name}.weight.restored", weight)
    before = [restored]
    node.replace_input_with(1, restored.outputs[0])
    source = node.inputs[0]
    if layer.input_scale is not None and source is not None:
        before += _quantized_input(graph, source, name, layer)
        node.replace_input_with(0, before[-1].outputs[0])
    graph.insert_before(node, before)
    if not weight.uses():
        graph.initializers.pop(str(weight.name))


def _constants(graph: ir.Graph, name: str, weight: QuantizedWeight) -> tuple[ir.Value, ir.Value]:
    if weight.values.dtype == torch.float8_e4m3fn:
        values = ir.Tensor(weight.values.view(torch.uint8).numpy().view(ml_dtypes.float8_e4m3fn), dtype=_FP8)
    elif weight.block:
        values = ir.Tensor(weight.values.numpy().astype(ml_dtypes.int4), dtype=ir.DataType.INT4)
    else:
        values = ir.Tensor(weight.values.numpy())
    return (
        _initializer(graph, f"{name}.weight.quantized", values),
        _initializer(graph, f"{name}.weight.scale", ir.Tensor(weight.scale.numpy())),
    )


def _quantized_input(graph: ir.Graph, source: ir.Value, name: str, layer: QuantizedLayer) -> list[ir.Node]:
    scale = _initializer(graph, f"{name}.input.scale", ir.Tensor(np.array(layer.input_scale, np.float16)))
    fp8 = layer.weight.values.dtype == torch.float8_e4m3fn
    zero = np.zeros((), ml_dtypes.float8_e4m3fn if fp8 else np.int8)
    zero_point = _initializer(graph, f"{name}.input.zero", ir.Tensor(zero))
    quantized = ir.node("QuantizeLinear", [source, scale, zero_point])
    _describe(quantized.outputs[0], f"{name}.input.quantized", source, zero_point.dtype)
    restored = ir.node("DequantizeLinear", [quantized.outputs[0], scale, zero_point])
    _describe(restored.outputs[0], f"{name}.input.restored", source)
    return [quantized, restored]


def _initializer(graph: ir.Graph, name: str, tensor: ir.Tensor[Any]) -> ir.Value:
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _describe(value: ir.Value, name: str, like: ir.Value, dtype: ir.DataType | None = None) -> None:
    value.name, value.shape = name, like.shape
    value.type = ir.TensorType(dtype) if dtype else like.type
