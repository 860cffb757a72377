"""A model directory → its graphs, checked."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import onnx_ir as ir
import torch
from torch import nn

from litevlm_ros.convert.checkpoint import (
    find_text_sources,
    find_vision_sources,
    load_text_decoder,
    load_vision_encoder,
)
from litevlm_ros.convert.checkpoint_keys import Sources
from litevlm_ros.convert.onnx_check import check_text_graph, check_vision_graph
from litevlm_ros.convert.onnx_export import save_graph, text_graph, vision_graph
from litevlm_ros.convert.safetensors_files import SafetensorsDirectory
from litevlm_ros.convert.shared_weights import check_location, share_weights
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_config import TEXT_DIRECTORY, VISION_DIRECTORY, ModelConfig

VISION_GRAPH = "vision_encoder.onnx"
TEXT_GRAPH = "text_decoder.onnx"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class ExportedGraph:
    """One written graph. `error` is relative, against torch; None if the check was skipped. `seconds` covers it all."""

    file: Path
    nodes: int
    bytes: int
    shared_bytes: int
    error: float | None
    seconds: float


def export_vision_encoder(
    model: str | Path, output: str | Path, dtype: str = "fp32", *, share: bool = False, check: bool = True
) -> ExportedGraph:
    """Write `vision_encoder.onnx` of the model directory `model` into `output`.

    `dtype` is 'fp32' (ONNX Runtime on the CPU) or 'fp16' (GPU). With `share` the graph reads its weights from `model`'s
    safetensors files, which must then lie below `output`. Raises CheckpointError, ConfigError, and EngineError if
    the graph does not compute what torch does.
    """
    config = ModelConfig.from_directory(model)
    started = time.monotonic()
    shared = None
    if share:
        files = SafetensorsDirectory(Path(model) / VISION_DIRECTORY)
        check_location(files, Path(output))
        shared = files, find_vision_sources(files, config.vision)[0]
    module = load_vision_encoder(model, _dtype(dtype))
    return _write(
        module, vision_graph, check_vision_graph if check else None, Path(output) / VISION_GRAPH, shared, started
    )


def export_text_decoder(
    model: str | Path, output: str | Path, dtype: str = "fp32", *, share: bool = False, check: bool = True
) -> ExportedGraph:
    """Write `text_decoder.onnx` of the model directory `model` into `output`; as `export_vision_encoder` otherwise."""
    config = ModelConfig.from_directory(model)
    started = time.monotonic()
    shared = None
    if share:
        files = SafetensorsDirectory(Path(model) / TEXT_DIRECTORY)
        check_location(files, Path(output))
        shared = files, find_text_sources(files, config.text)
    module = load_text_decoder(model, _dtype(dtype))
    return _write(module, text_graph, check_text_graph if check else None, Path(output) / TEXT_GRAPH, shared, started)


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ConfigError(f"dtype is {name!r}; supported: {', '.join(DTYPES)}")
    return DTYPES[name]


def _write(
    module: _Module,
    graph_of: Callable[[_Module], ir.Model],
    check: Callable[[Path, _Module], float] | None,
    file: Path,
    shared: tuple[SafetensorsDirectory, Sources] | None,
    started: float,
) -> ExportedGraph:
    if shared is None:
        _check_space(module, file)
    graph = graph_of(module)
    shared_bytes = 0
    if shared is not None:
        files, sources = shared
        shared_bytes = share_weights(graph, sources, files, file.parent)
    save_graph(graph, file)
    data = file.with_name(f"{file.name}.data")
    return ExportedGraph(
        file=file,
        nodes=len(graph.graph),
        bytes=file.stat().st_size + (data.stat().st_size if data.exists() else 0),
        shared_bytes=shared_bytes,
        error=check(file, module) if check else None,
        seconds=time.monotonic() - started,
    )


def _check_space(module: nn.Module, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(parameter.nbytes for parameter in module.parameters())
    free = shutil.disk_usage(file.parent).free
    if needed > free:
        raise ConfigError(
            f"{file} needs {needed / 1e9:.1f} GB and its directory has {free / 1e9:.1f} GB free; "
            "make room or choose another --output"
        )
