"""ONNX graphs of a packed precision, which compute in fp32 with the very numbers that an engine has.

    weight in 8 or 4 bits, scale → DequantizeLinear to fp16 → Cast to fp32 → Gemm
    table in fp16 → Cast to fp32 → Gather, Gemm

So the answers of a precision can be examined on a CPU. DequantizeLinear rounds to fp16, as an engine's kernels do. The
file is as small as the packed weights, whose tensors have the same names as in an engine file. ONNX Runtime restores
them once, when it loads the graph (`runtime/onnx/session.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import onnx_ir as ir
import torch
from torch import nn

from litevlm_ros.convert.packed_weights import StoredWeight
from litevlm_ros.convert.quantized_weights import QuantizedWeight
from litevlm_ros.errors import EngineError


def give_weights(module: nn.Module, stored: Mapping[str, StoredWeight], *, placeholders: bool = False) -> None:
    """Gives the parameters of `module` the numbers that are `stored` under their names, in fp32.

    `module` may be on the meta device. With `placeholders`, packed matrices get one number each, seen as often as they
    are large: enough to draw a graph, and it takes no memory.
    """
    names: dict[int, list[str]] = {}
    for alias, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(alias)
    for number, aliases in enumerate(names.values()):
        weight = stored[aliases[0]]
        if not isinstance(weight, QuantizedWeight):
            numbers = weight.float()
        elif placeholders:
            # Not the same number for all, or the exporter makes one of equal small matrices.
            numbers = torch.tensor(float(number)).expand(weight.values.shape)
        else:
            numbers = weight.restored().float()
        parameter = nn.Parameter(numbers, requires_grad=False)
        for alias in aliases:
            owner, _, attribute = alias.rpartition(".")
            setattr(module.get_submodule(owner), attribute, parameter)


def store_packed(graph: ir.Model, module: nn.Module, stored: Mapping[str, StoredWeight]) -> None:
    """Makes `graph` hold its matrices as they are `stored`. It was drawn from `module` with PACKED_OPSET.

    `stored` has the names of the parameters of `module`. Raises EngineError if the graph lacks a packed weight.
    """
    parameters = {id(parameter): name for name, parameter in module.named_parameters()}
    left = {name for name, weight in stored.items() if isinstance(weight, QuantizedWeight)}
    # The graph knows tied weights by one of their names, which need not be the first.
    for alias, parameter in module.named_parameters(remove_duplicate=False):
        name = parameters[id(parameter)]
        weight, value = stored[name], graph.graph.initializers.get(alias)
        if value is None:
            continue
        if isinstance(weight, QuantizedWeight):
            _replace(graph.graph, value, *_dequantized(graph.graph, name, weight))
            left.discard(name)
        elif weight.dtype == torch.half and weight.dim() > 1:  # biases are too small to matter
            _replace(graph.graph, value, add_initializer(graph.graph, f"{name}.fp16", ir.Tensor(weight.numpy())))
    if left:
        raise EngineError(f"the graph has no weight {min(left)} to pack; export it again with this version")


def _dequantized(graph: ir.Graph, name: str, weight: QuantizedWeight) -> tuple[ir.Value, ir.Node]:
    """Adds the values and scales of a weight. Returns their product in fp16, and the node that computes it."""
    values: ir.Tensor[Any]
    if weight.precision == "fp8":
        bits = weight.values.view(torch.uint8).numpy().view(ml_dtypes.float8_e4m3fn)
        values = ir.Tensor(bits, dtype=ir.DataType.FLOAT8E4M3FN)
    elif weight.precision == "int4":
        values = ir.Tensor(weight.values.numpy().astype(ml_dtypes.int4), dtype=ir.DataType.INT4)
    else:
        values = ir.Tensor(weight.values.numpy())
    inputs = [
        add_initializer(graph, f"{name}.{weight.precision}", values),
        add_initializer(graph, f"{name}.scale", ir.Tensor(weight.scale.numpy())),
    ]
    axes = {"axis": 1, "block_size": weight.block} if weight.block else {"axis": 0}
    node = ir.node("DequantizeLinear", inputs, axes)
    product = node.outputs[0]
    product.name, product.shape, product.type = f"{name}.fp16", inputs[0].shape, ir.TensorType(ir.DataType.FLOAT16)
    return product, node


def _replace(graph: ir.Graph, weight: ir.Value, half: ir.Value, *before: ir.Node) -> None:
    """Replaces the initializer `weight` by `half`, which `before` computes, converted to the initializer's type."""
    node = ir.node("Cast", [half], {"to": weight.dtype})
    wide = node.outputs[0]
    wide.name, wide.shape, wide.type = weight.name, weight.shape, weight.type
    graph.initializers.pop(str(weight.name))
    graph.insert_before(graph[0], [*before, node])
    ir.convenience.replace_all_uses_with(weight, wide)


def add_initializer(graph: ir.Graph, name: str, tensor: ir.Tensor[Any]) -> ir.Value:
    """Adds an initializer to `graph` and returns it."""
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
