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
from torch import Tensor, nn

from litevlm_ros.convert.calibration import CalibrationData, InputStatistics, measure_inputs
from litevlm_ros.convert.quantized_graph import QuantizedLayer, quantize_graph
from litevlm_ros.convert.quantized_weights import (
    FP8_MAX,
    INT8_MAX,
    int4_block,
    to_fp8,
    to_fp8_by_output,
    to_int4,
    to_int8,
)
from litevlm_ros.model_directory import TEXT
from litevlm_ros.precision import FP8_FORMS

_KEPT = ("lm_head", "patch_embedding")
_ALIGNMENT = 16
"""Inputs and outputs of a layer in 8 bits are multiples of this number, for TensorRT's matrix products."""


@dataclass(frozen=True)
class QuantizationReport:
    """Remarks on a graph for the person who waits.

    `calibration` says in words what quantized values were scaled with, '' without any. `notes` say how many layers are
    quantized, and which stayed in fp16 and why.
    """

    calibration: str = ""
    notes: tuple[str, ...] = ()


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
        if not isinstance(layer, nn.Linear) or name in _KEPT:
            continue
        if not _fits(layer, precision):
            skipped.append(name)
            continue
        layers[name] = _layer(layer.weight.detach(), precision, inputs.get(name), fp8_form)
    quantize_graph(graph, layers)
    notes = [f"{len(layers)} layers in {precision}"]
    if skipped:
        notes.append(f"{len(skipped)} layers stay in fp16, their widths do not allow {precision}: {', '.join(skipped)}")
    calibration = "none needed: weights alone" if weights_only else data.description
    return QuantizationReport(calibration, tuple(notes))


def _fits(layer: nn.Linear, precision: str) -> bool:
    if precision == "int4":
        return int4_block(layer.in_features) is not None
    return layer.in_features % _ALIGNMENT == 0 and layer.out_features % _ALIGNMENT == 0


def _layer(weight: Tensor, precision: str, inputs: InputStatistics | None, fp8_form: str) -> QuantizedLayer:
    if precision == "int4":
        return QuantizedLayer(to_int4(weight, inputs.importance if inputs else None))
    if precision == "fp8":
        quantized = to_fp8_by_output(weight) if fp8_form in FP8_FORMS[1:] else to_fp8(weight)
        return QuantizedLayer(quantized, _step(inputs, FP8_MAX))
    return QuantizedLayer(to_int8(weight), _step(inputs, INT8_MAX))


def _step(inputs: InputStatistics | None, most: float) -> float | None:
    return max(inputs.largest / most, 2.0**-14) if inputs else None
