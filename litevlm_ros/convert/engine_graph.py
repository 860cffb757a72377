"""A part of a model directory → the graph that its engine is built from, with fp16 weights or quantized ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.onnx_graphs import OPSET, QUANTIZED_OPSET, save_graph, text_graph, vision_graph
from litevlm_ros.model_directory import TEXT, VISION

_ALIGNMENT = 8
"""TensorRT's of the columns of an fp16 matrix product."""


@dataclass(frozen=True)
class EngineGraph:
    """A written graph. `calibration` says in words what the quantized values were scaled with; '' if none are."""

    file: Path
    calibration: str
    notes: tuple[str, ...] = ()
    """What a person should know: layers that stayed in fp16, and why."""


def write_engine_graph(
    part: str, model: Path, precision: str, file: Path, images: Path | None, fp8_form: str = ""
) -> EngineGraph:
    """Writes the graph of `part` (VISION or TEXT) of the model directory `model` to `file`.

    `images` is a directory of pictures to calibrate with; None for rendered ones. `fp8_form` is one of FP8_FORMS, of
    which '' is the first. Raises CheckpointError, ConfigError,
    and EngineError.
    """
    module, graph_of = _parts[part](model)
    if precision == "fp16":
        save_graph(graph_of(module, OPSET), file)
        return EngineGraph(file, "")
    # Imported here: fp16 needs no pictures.
    from litevlm_ros.convert.calibration import calibration_data
    from litevlm_ros.convert.quantization import quantize

    graph = graph_of(module, QUANTIZED_OPSET)
    report = quantize(part, module, graph, precision, model, calibration_data(images), fp8_form)
    save_graph(graph, file)
    return EngineGraph(file, report.calibration, report.notes)


def _vision(model: Path) -> tuple[Any, Callable[[Any, int], ir.Model]]:
    return load_vision_encoder(model, torch.float16), vision_graph


def _text(model: Path) -> tuple[Any, Callable[[Any, int], ir.Model]]:
    module = load_text_decoder(model, torch.float16)
    module.pad_vocabulary(_ALIGNMENT)
    # TensorRT's decoder keeps its hidden states to itself.
    return module, functools.partial(text_graph, hidden=False)


_parts = {VISION: _vision, TEXT: _text}
