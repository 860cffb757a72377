"""Choice of the layers of a part that are quantized, and of their scales; `quantized_graph` then rewrites the graph.

    fp8   weights and activations, one scale each (W8A8), or in another of FP8_FORMS
    int8  vision encoder: weights with a scale for each output, activations with one (W8A8); text decoder: weights only
    int4  text decoder: weights only, one scale for 64 or 128 inputs

Activations of a Qwen2 decoder have outliers that INT8 with one scale does not hold (arXiv 2211.10438), which FP8's
exponent does. Embedding, norms, attention and the patch embedding stay in fp16, and so does the output projection,
which in small models is the embedding's own table.

Why not nvidia-modelopt: it quantizes modules of known classes or exported graphs of its own making, and the layers
fused here are neither; the scales below are a page of code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

from litevlm_ros.convert.calibration import Calibration, CalibrationData, InputStatistics, measure_inputs
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.onnx_graphs import QUANTIZED_OPSET, save_graph, text_graph, vision_graph
from litevlm_ros.convert.quantized_graph import QuantizedLayer, quantize_graph
from litevlm_ros.convert.quantized_weights import FP8_MAX, INT8_MAX, is_quantizable, quantize_weight
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import TEXT, VISION

KEPT = ("lm_head", "patch_embedding")
"""The linear layers that are never quantized, by module name."""


@dataclass(frozen=True)
class QuantizationReport:
    """Remarks on a graph for the person who waits.

    `calibration` says in words what quantized values were scaled with, '' without any. `notes` say how many layers are
    quantized, and which stayed in fp16 and why.
    """

    calibration: str = ""
    notes: tuple[str, ...] = ()


def write_quantized_graph(
    part: str, model: Path, precision: str, file: Path, calibration: Calibration | None
) -> QuantizationReport:
    """Writes the graph of `part` (VISION or TEXT) of the model directory `model`, in fp8, int8 or int4, to `file`.

    Raises CheckpointError, ConfigError (without `calibration`; and an INT4 vision encoder is not supported), and
    OSError.
    """
    if precision == "int4" and part == VISION:
        raise ConfigError("vision-precision is int4; allowed: fp16, fp8, int8. Use int8 for the smallest")
    if calibration is None:
        raise ConfigError(f"precision is {precision}, which needs calibration data; give some, or use fp16")
    module: nn.Module
    if part == VISION:
        encoder = load_vision_encoder(model, torch.float16)
        module, graph = encoder, vision_graph(encoder, QUANTIZED_OPSET)
    else:
        decoder = load_text_decoder(model, torch.float16)
        # Only draft heads read the hidden states, and they do not run beside a decoder in these precisions.
        module, graph = decoder, text_graph(decoder, QUANTIZED_OPSET, hidden=False)
    report = quantize(part, module, graph, precision, model, calibration())
    save_graph(graph, file)
    return report


def quantize(
    part: str,
    module: nn.Module,
    graph: ir.Model,
    precision: str,
    model: Path,
    data: CalibrationData,
    fp8_form: str = "",
) -> QuantizationReport:
    """Quantizes `graph`, which was drawn from `module` (fp16 weights) with QUANTIZED_OPSET, in place.

    `part` is VISION or TEXT of the model directory `model`, `precision` one of fp8, int8 and int4. `fp8_form` is one
    of FP8_FORMS, of which '' is the first. Raises CheckpointError.
    """
    weights_only = fp8_form == "weights" or (part == TEXT and precision == "int8")
    inputs = {} if weights_only else measure_inputs(part, model, data)
    layers, skipped = {}, []
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Linear) or name in KEPT:
            continue
        if not is_quantizable(layer.in_features, layer.out_features, precision):
            skipped.append(name)
            continue
        layers[name] = _layer(layer.weight.detach(), precision, inputs.get(name), fp8_form)
    quantize_graph(graph, layers)
    notes = [f"{len(layers)} layers in {precision}"]
    if skipped:
        notes.append(f"{len(skipped)} layers stay in fp16, their widths do not allow {precision}: {', '.join(skipped)}")
    calibration = "none needed: weights alone" if weights_only else data.description
    return QuantizationReport(calibration, tuple(notes))


def _layer(weight: Tensor, precision: str, inputs: InputStatistics | None, fp8_form: str) -> QuantizedLayer:
    quantized = quantize_weight(weight, precision, fp8_form, inputs.importance if inputs else None)
    most = {"fp8": FP8_MAX, "int8": INT8_MAX}.get(precision)
    return QuantizedLayer(quantized, _step(inputs, most) if most else None)


def _step(inputs: InputStatistics | None, most: float) -> float | None:
    return max(inputs.largest / most, 2.0**-14) if inputs else None
