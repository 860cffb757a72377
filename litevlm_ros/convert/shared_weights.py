"""Graphs that read their weights from the checkpoint's own safetensors files, so that they exist once on disk.

ONNX external data is a file, an offset and a length; a safetensors file is raw little-endian tensors behind a header.
So an initializer can point straight into the checkpoint. Parameters that our modules fuse (Q, K and V; gate and up)
become a Concat, other dtypes a Cast; ONNX Runtime and TensorRT fold both when they load the graph.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from litevlm_ros.checkpoint.files import SafetensorsDirectory, StoredTensor
from litevlm_ros.checkpoint.keys import Sources
from litevlm_ros.errors import ConfigError

_DTYPES = {"F32": ir.DataType.FLOAT, "F16": ir.DataType.FLOAT16, "BF16": ir.DataType.BFLOAT16}
_INLINE_BYTES = 4096
"""Smaller parameters stay in the graph: pointing at them would take more bytes than they have."""


def share_weights(model: ir.Model, sources: Sources, files: SafetensorsDirectory, base: Path) -> int:
    """Replaces the large initializers of `model` by pointers into `files`; returns the number of bytes they point at.

    `sources` maps the name of each initializer to its tensors. `base` is the directory the graph will be saved
    in; raises ConfigError unless `files` lie inside it, for ONNX Runtime reads nothing outside the model's directory.
    """
    check_location(files, base)
    shared = 0
    for name, keys in sources.items():
        value = model.graph.initializers.get(name)
        if value is None or value.const_value is None or value.const_value.nbytes < _INLINE_BYTES:
            continue
        shape = tuple(value.const_value.shape.numpy())
        parts = [_pointer(files.tensors[key], key, shape, base) for key in keys]
        shared += sum(files.tensors[key].length for key in keys)
        _replace(model.graph, name, parts)
    return shared


def check_location(files: SafetensorsDirectory, base: Path) -> None:
    """Raises ConfigError unless a graph saved in `base` may point at `files`."""
    for file in {stored.file for stored in files.tensors.values()}:
        if not file.resolve().is_relative_to(base.resolve()):
            raise ConfigError(
                f"weights can be shared only from below {base}, but they are in {file}; set --output to --model"
            )


def _pointer(stored: StoredTensor, key: str, shape: tuple[int, ...], base: Path) -> ir.Value:
    """Makes an initializer `key` of the stored bytes, which are some rows of a parameter of shape `shape`."""
    file, root = stored.file.resolve(), base.resolve()
    dims = ir.Shape((stored.shape[0], *shape[1:]))
    dtype = _DTYPES[stored.dtype]
    tensor = ir.ExternalTensor(
        file.relative_to(root).as_posix(), stored.offset, stored.length, dtype, shape=dims, name=key, base_dir=root
    )
    return ir.Value(name=key, shape=dims, type=ir.TensorType(dtype), const_value=tensor)


def _replace(graph: ir.Graph, name: str, parts: list[ir.Value]) -> None:
    value = graph.initializers[name]
    wanted = value.dtype
    nodes = []
    current = parts[0]
    if len(parts) > 1:
        nodes.append(ir.node("Concat", parts, {"axis": 0}))
        current = nodes[-1].outputs[0]
    if parts[0].dtype != wanted:
        nodes.append(ir.node("Cast", [current], {"to": wanted}))
        current = nodes[-1].outputs[0]
    graph.initializers.pop(name)
    for part in parts:
        graph.register_initializer(part)
    if nodes:
        current.name, current.shape, current.type = name, value.shape, value.type
        graph.insert_before(graph[0], nodes)
    ir.convenience.replace_all_uses_with(value, current)
