"""Graphs that engines are built from: one part of a model, with fp16 weights or quantized ones."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

from litevlm_ros.convert.calibration import Calibration
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.onnx_graphs import OPSET, QUANTIZED_OPSET, save_graph, text_graph, vision_graph
from litevlm_ros.convert.quantization import QuantizationReport, quantize
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import VISION

_ALIGNMENT = 8
"""TensorRT aligns the columns of an fp16 matrix product to this number."""


def write_engine_graph(
    part: str, model: Path, precision: str, file: Path, calibration: Calibration | None = None, fp8_form: str = ""
) -> QuantizationReport:
    """Writes the graph of `part` (VISION or TEXT) of the model directory `model` to `file`.

    `precision` is fp16, fp8, int8 or int4; all but fp16 need `calibration`. `fp8_form` is one of FP8_FORMS, of which
    '' is the first. Raises CheckpointError, ConfigError (an INT4 vision encoder is not supported), EngineError and
    OSError.
    """
    if precision == "int4" and part == VISION:
        raise ConfigError("vision-precision is int4; allowed: fp16, fp8, int8. Use int8 for the smallest")
    if precision == "fp16":
        _, graph = _draw(part, model, OPSET)
        report = QuantizationReport()
    elif calibration is None:
        raise ConfigError(f"precision is {precision}, which needs calibration data; give some, or use fp16")
    else:
        module, graph = _draw(part, model, QUANTIZED_OPSET)
        report = quantize(part, module, graph, precision, model, calibration(), fp8_form)
    save_graph(graph, file)
    return report


def _draw(part: str, model: Path, opset: int) -> tuple[nn.Module, ir.Model]:
    if part == VISION:
        encoder = load_vision_encoder(model, torch.float16)
        return encoder, vision_graph(encoder, opset)
    decoder = load_text_decoder(model, torch.float16)
    decoder.pad_vocabulary(_ALIGNMENT)
    # Only draft heads read the hidden states, and they do not run beside a decoder on TensorRT.
    return decoder, text_graph(decoder, opset, hidden=False)
