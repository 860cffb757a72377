"""Export of a model directory to ONNX graphs, which are checked against torch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import onnx_ir as ir
import torch
from torch import nn

from litevlm_ros.checkpoint.check import find_text_sources, find_vision_sources
from litevlm_ros.checkpoint.files import SafetensorsDirectory
from litevlm_ros.checkpoint.keys import Sources
from litevlm_ros.convert.calibration import Calibration, data_for
from litevlm_ros.convert.checkpoint import (
    load_draft_head,
    load_text_decoder,
    load_vision_encoder,
    stored_text_decoder,
    stored_vision_encoder,
)
from litevlm_ros.convert.cpu_graph import store_for_cpu
from litevlm_ros.convert.draft_head import stored_name
from litevlm_ros.convert.intern_vit import InternVisionEncoder
from litevlm_ros.convert.model_description import copy_description
from litevlm_ros.convert.onnx_check import (
    EIGHT_BIT_TOLERANCE,
    TOLERANCE,
    check_draft_graph,
    check_text_graph,
    check_vision_graph,
)
from litevlm_ros.convert.onnx_graphs import (
    MAPPED_BYTES,
    PACKED_OPSET,
    draft_graph,
    save_graph,
    vision_graph,
)
from litevlm_ros.convert.packed_graph import give_weights, store_packed
from litevlm_ros.convert.packed_weights import stored_weights
from litevlm_ros.convert.quantized_weights import QuantizedWeight
from litevlm_ros.convert.shared_weights import check_location, share_weights
from litevlm_ros.convert.text_graph import text_graph
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.files import explaining_full_disk
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import HEAD_DIRECTORY, HEAD_GRAPH, PLAIN, TEXT, VISION, graph_name
from litevlm_ros.precision import CPU_PRECISIONS, PACKED_PRECISIONS, exact_precision

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class ExportedGraph:
    """One written graph.

    `bytes` is its size with the weights beside it, `shared_bytes` that of weights that it reads from the checkpoint.
    `error` is the largest relative difference from torch, None if it was not checked; `seconds` the duration of the
    export. Of a packed precision, `packed` is the number of matrices in it, and `calibration` says in words what their
    scales were chosen with, '' if nothing was needed.
    """

    file: Path
    precision: str
    bytes: int
    shared_bytes: int
    error: float | None
    seconds: float
    packed: int = 0
    calibration: str = ""


def export_graphs(
    model: Path,
    output: Path,
    precisions: Mapping[str, str],
    *,
    share: bool = False,
    check: bool = True,
    calibration: Calibration | None = None,
    exact: bool = False,
) -> Iterator[ExportedGraph]:
    """Exports the parts in `precisions` (VISION, TEXT), each in its precision, and yields each graph once written.

    A text decoder in fp32 comes with the model's draft head, if it has one. fp32 and fp16 are as
    `export_vision_encoder` and `export_text_decoder` make them. fp8, int8 and int4 give graphs that hold the packed
    weights of an engine; `calibration` makes what INT4's scales are chosen with. Graphs in int8 and int4 multiply in 8
    bits (`cpu_graph`). With `exact`, and in fp8, graphs compute in fp32 with the very numbers that an engine has
    (`packed_graph`), as an engine's accuracy is measured; `exact_precision` names them. `output` becomes a model
    directory of its own: with `PipelineConfig(output, backend="onnxruntime", vision_precision="fp8",
    text_precision="fp8")` a pipeline runs it.
    Raises LiteVLMError, which names `output` if its disk is full, and OSError.
    """
    ModelConfig.from_directory(model)  # refuses what cannot run before anything is written
    with explaining_full_disk(output):
        copy_description(model, output)
        for part, asked in precisions.items():
            if asked not in PACKED_PRECISIONS:
                export = export_vision_encoder if part == VISION else export_text_decoder
                yield export(model, output, asked, share=share, check=check)
                if part == TEXT and asked == PLAIN and (model / HEAD_DIRECTORY).is_dir():
                    yield export_draft_head(model, output, share=share, check=check)
            elif share:
                raise ConfigError("weights can be shared in fp32 and fp16 only: packed ones are not in the checkpoint")
            else:
                yield _export_packed(part, asked, model, output, check, calibration, exact)


def _export_packed(
    part: str,
    precision: str,
    model: Path,
    output: Path,
    check: bool,
    calibration: Calibration | None,
    exact: bool,
) -> ExportedGraph:
    started = time.monotonic()
    exact = exact or precision not in CPU_PRECISIONS
    name = exact_precision(precision) if exact else precision
    file = output / graph_name(part, name)
    data = data_for(precision, calibration)
    stored = dict(stored_weights(part, model, precision, data))
    module = (stored_vision_encoder(model) if part == VISION else stored_text_decoder(model)).module
    give_weights(module, stored, placeholders=True)
    tolerance = TOLERANCE[torch.float32] if exact else EIGHT_BIT_TOLERANCE
    compare: Callable[[Path], float]
    if isinstance(module, InternVisionEncoder):
        graph = vision_graph(module, PACKED_OPSET)
        compare = partial(check_vision_graph, module=module, tolerance=tolerance)
    else:
        graph = text_graph(module, PACKED_OPSET)
        compare = partial(check_text_graph, module=module, tolerance=tolerance)
    store = store_packed if exact else store_for_cpu
    store(graph, module, stored)

    def check_with_weights(unfinished: Path) -> float:
        give_weights(module, stored)
        return compare(unfinished)

    error = _save(graph, file, check_with_weights if check else None, MAPPED_BYTES)
    return ExportedGraph(
        file=file,
        precision=name,
        bytes=_size(file),
        shared_bytes=0,
        error=error,
        seconds=time.monotonic() - started,
        packed=sum(isinstance(weight, QuantizedWeight) for weight in stored.values()),
        calibration=data.description if data else "",
    )


def export_vision_encoder(
    model: str | Path, output: str | Path, dtype: str = PLAIN, *, share: bool = False, check: bool = True
) -> ExportedGraph:
    """Writes `vision_encoder.onnx`, or `vision_encoder_fp16.onnx`, of the model directory `model` into `output`.

    `dtype` is 'fp32' (ONNX Runtime on the CPU) or 'fp16' (GPU). With `share` the graph reads its weights from `model`'s
    safetensors files, which must then lie below `output`. Raises CheckpointError, ConfigError, and EngineError if
    the graph does not compute what torch does; then no graph is left behind, but an older one stays.
    """
    config = ModelConfig.from_directory(model)
    started = time.monotonic()
    shared = []
    if share:
        files = _shareable(Path(model) / VISION, output)
        shared = [(files, find_vision_sources(files, config.vision)[0])]
    module = load_vision_encoder(model, _dtype(dtype))
    file = Path(output) / graph_name(VISION, dtype)
    return _write(module, vision_graph, check_vision_graph if check else None, file, dtype, shared, started)


def export_text_decoder(
    model: str | Path, output: str | Path, dtype: str = PLAIN, *, share: bool = False, check: bool = True
) -> ExportedGraph:
    """Writes `text_decoder.onnx`, or `text_decoder_fp16.onnx`; as `export_vision_encoder` otherwise."""
    config = ModelConfig.from_directory(model)
    started = time.monotonic()
    shared = []
    if share:
        files = _shareable(Path(model) / TEXT, output)
        shared = [(files, find_text_sources(files, config.text))]
    module = load_text_decoder(model, _dtype(dtype))
    file = Path(output) / graph_name(TEXT, dtype)
    return _write(module, text_graph, check_text_graph if check else None, file, dtype, shared, started)


def export_draft_head(
    model: str | Path, output: str | Path, *, share: bool = False, check: bool = True
) -> ExportedGraph:
    """Writes `draft_head.onnx` in fp32, as it runs on the CPU; as `export_vision_encoder` otherwise."""
    config = ModelConfig.from_directory(model)
    started = time.monotonic()
    module = load_draft_head(model)
    shared = []
    if share:
        text, own = (_shareable(Path(model) / directory, output) for directory in (TEXT, HEAD_DIRECTORY))
        text_sources: Sources = {f"text.{name}": keys for name, keys in find_text_sources(text, config.text).items()}
        own_sources: Sources = {name: (stored_name(name),) for name in module.own.state_dict()}
        shared = [(text, text_sources), (own, own_sources)]
    file = Path(output) / HEAD_GRAPH
    return _write(module, draft_graph, check_draft_graph if check else None, file, PLAIN, shared, started)


def _shareable(directory: Path, output: str | Path) -> SafetensorsDirectory:
    """Opens the weights of `directory`. Raises ConfigError if a graph in `output` cannot point at them."""
    files = SafetensorsDirectory(directory)
    check_location(files, Path(output))
    return files


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise ConfigError(f"dtype is {name!r}; supported: {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _write(
    module: _Module,
    graph_of: Callable[[_Module], ir.Model],
    check: Callable[[Path, _Module], float] | None,
    file: Path,
    precision: str,
    shared: Sequence[tuple[SafetensorsDirectory, Sources]],
    started: float,
) -> ExportedGraph:
    if not shared:
        _check_space(module, file)
    graph = graph_of(module)
    shared_bytes = sum(share_weights(graph, sources, files, file.parent) for files, sources in shared)
    error = _save(graph, file, None if check is None else lambda unfinished: check(unfinished, module))
    return ExportedGraph(
        file=file,
        precision=precision,
        bytes=_size(file),
        shared_bytes=shared_bytes,
        error=error,
        seconds=time.monotonic() - started,
    )


def _save(
    graph: ir.Model, file: Path, check: Callable[[Path], float] | None, most_inline: int | None = None
) -> float | None:
    """Saves a graph as `save_graph` does. An EngineError of `check` names the file that was not written."""
    try:
        return save_graph(graph, file, check, most_inline)
    except EngineError as problem:
        raise type(problem)(f"{file} was not written: {problem}") from problem


def _size(file: Path) -> int:
    """Returns the size in bytes of a graph and of the weights beside it."""
    data = file.with_name(f"{file.name}.data")
    return file.stat().st_size + (data.stat().st_size if data.exists() else 0)


def _check_space(module: nn.Module, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(parameter.nbytes for parameter in module.parameters())
    free = shutil.disk_usage(file.parent).free
    if needed > free:
        raise ConfigError(
            f"{file} needs {needed / 1e9:.1f} GB and its directory has {free / 1e9:.1f} GB free; "
            "make room or choose another --output"
        )
