"""ONNX graphs of the torch modules, with the inputs and outputs that `docs/architecture.md` lists.

torch's exporter gives a graph without shape noise but writes opset 18 at the lowest; the three operators that differ
are rewritten so that the files declare opset 17, which TensorRT 10.3 reads. Packed weights need opset 21.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from litevlm_ros.checksums import rewriting
from litevlm_ros.convert.draft_head import DraftHead
from litevlm_ros.convert.intern_vit import InternVisionEncoder
from litevlm_ros.convert.qwen import QwenDecoder
from litevlm_ros.errors import EngineError
from litevlm_ros.files import replacing

OPSET = 17
PACKED_OPSET = 21
"""The first with 4-bit types and blocks in DequantizeLinear."""
_IR_VERSIONS = {OPSET: 8, PACKED_OPSET: 10}  # the IR versions that belong to the opsets
_EXPORTER_OPSET = 18
_PROTOBUF_LIMIT = 2**31 - 2**26  # bytes; leaves 64 MiB of the 2 GiB for the graph itself
MAPPED_BYTES = 2**25
"""The bytes from which packed weights lie beside a graph: ONNX Runtime maps them, and keeps no copies of its own."""


def vision_graph(module: InternVisionEncoder, opset: int = OPSET) -> ir.Model:
    """Draws `vision_encoder.onnx`; N is dynamic. `opset` is OPSET or PACKED_OPSET."""
    size = module.config.image_size
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    return export_graph(module, (pixels,), ({0: "N"},), ["pixels"], ["visual_tokens"], opset)


def draft_graph(module: DraftHead) -> ir.Model:
    """Draws `draft_head.onnx`; S and C are dynamic."""
    shapes = ({0: "S"}, {0: "S"}, None, {0: "C"}, {0: "C"})
    names = ["input_ids", "hidden", "past_length", "past_key", "past_value"]
    results = ["next_token", "next_hidden", "new_key", "new_value"]
    return export_graph(module, draft_inputs(module, new=5, rows=7), shapes, names, results, OPSET)


def draft_inputs(module: DraftHead, new: int, rows: int) -> tuple[Tensor, ...]:
    """Returns random inputs of `DraftHead.forward` for S = `new` and C = `rows`, the same in every call."""
    ids, _, past_length, _, hidden, keys, values = text_inputs(module.text, new, rows, wanted=1, visual=new)
    return ids % module.text.config.vocab_size, hidden, past_length, keys[0], values[0]


def text_inputs(module: QwenDecoder, new: int, rows: int, wanted: int, visual: int) -> tuple[Any, ...]:
    """Returns random inputs of `QwenDecoder.forward` for S = `new`, C = `rows`, K = `wanted` and M = `visual`.

    They are the same in every call.
    """
    config, random = module.config, torch.Generator().manual_seed(0)
    dtype = module.norm.weight.dtype
    visual_rows = min(visual, new)
    ids = torch.randint(0, config.vocab_size, (new,), generator=random)
    ids[:visual_rows] = config.vocab_size + torch.arange(visual_rows)
    valid = rows - rows // 4

    def cache() -> list[Tensor]:
        shape = (rows, config.num_kv_heads, config.head_dim)
        return [torch.randn(shape, generator=random).to(dtype) for _ in range(config.num_layers)]

    return (
        ids,
        torch.arange(valid, valid + new),
        torch.tensor([valid]),
        torch.arange(new - wanted, new),
        torch.randn(visual, config.hidden_size, generator=random).to(dtype),
        cache(),
        cache(),
    )


def save_graph(
    model: ir.Model,
    file: Path,
    check: Callable[[Path], float] | None = None,
    most_inline: int | None = None,
) -> float | None:
    """Writes `file`, and weights to `<file>.data` beside it if they have more than
    `most_inline` bytes, by default what one protobuf file can hold.

    The same model gives the same bytes. Before the graph takes the place of an older one, `check` gets its path. If
    that raises anything, the older graph and its weights stay as they were, and nothing of the new one is left. The
    files are entered in their directory's list of checksums. Returns what `check` returns. Raises OSError,
    CheckpointError if that list is damaged, and onnx.checker.ValidationError if the graph is not valid ONNX.
    """
    inline = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None and not isinstance(value.const_value, ir.ExternalTensor)
    )
    most_inline = _PROTOBUF_LIMIT if most_inline is None else most_inline
    data = file.with_name(f"{file.name}.data")
    file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as listing:
        with replacing(file) as unfinished:
            if inline <= most_inline:
                ir.save(model, unfinished)
                found = _checked(unfinished, check)
                listing.enter_context(rewriting(file.parent, file.name, data.name))
            else:
                with replacing(data) as unfinished_data:
                    ir.save(model, unfinished, external_data=unfinished_data.name)
                    found = _checked(unfinished, check)
                    _rename_data(unfinished, unfinished_data.name, data.name)
                    listing.enter_context(rewriting(file.parent, file.name, data.name))
                    file.unlink(missing_ok=True)  # an older graph must not read the new weights
        if inline <= most_inline:
            data.unlink(missing_ok=True)
    return found


def _checked(file: Path, check: Callable[[Path], float] | None) -> float | None:
    onnx.checker.check_model(file, full_check=True)
    return check(file) if check else None


def _rename_data(file: Path, before: str, after: str) -> None:
    """Makes the graph in `file` read the file `after` where it reads `before`, without loading any weights."""
    graph = onnx.load(file, load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value == before:
                entry.value = after
    onnx.save(graph, file)


def export_graph(
    module: nn.Module,
    inputs: tuple[Any, ...],
    shapes: tuple[Any, ...],
    names: list[str],
    results: list[str],
    opset: int = OPSET,
) -> ir.Model:
    """Draws the graph of any module, with `names` as its inputs and `results` as its outputs.

    `shapes` names the dynamic axes of each input in the form that torch.export wants. Raises EngineError.
    """
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=names,
            output_names=results,
            opset_version=max(opset, _EXPORTER_OPSET),
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise EngineError("torch.onnx.export returned nothing; install the torch version this package is pinned to")
    model: ir.Model = program.model
    if opset == OPSET:
        _lower_to_opset_17(model)
    model.ir_version = _IR_VERSIONS[opset]
    _strip_origins(model)
    return model


def _lower_to_opset_17(model: ir.Model) -> None:
    """Reverts what opset 18 changed in the operators that these graphs use."""
    for node in model.graph:
        if node.op_type == "Split":
            node.attributes.pop("num_outputs", None)  # without sizes, opset 13 splits evenly as well
        elif node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and len(node.inputs) == 2:
            axes = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
            if axes is None:
                raise EngineError(
                    f"{node.op_type} reduces over axes that are not constant; opset {OPSET} cannot say that"
                )
            node.resize_inputs(1)
            node.attributes.pop("noop_with_empty_axes", None)
            node.attributes.add(ir.AttrInt64s("axes", [int(axis) for axis in axes.numpy().reshape(-1)]))
    model.graph.opset_imports[""] = OPSET


def _strip_origins(model: ir.Model) -> None:
    """Removes the exporter's notes on where each node came from: they hold paths of this machine and change nothing."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    used = {value for node in model.graph for value in node.inputs if value is not None}
    for name, value in list(model.graph.initializers.items()):
        if value not in used:
            del model.graph.initializers[name]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress and its remarks on other packages off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
