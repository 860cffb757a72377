"""Weights of a part for the engine file of a quantized precision, which then needs no checkpoint beside it.

Packed are the linear layers that `quantization` quantizes. Engines compute with them in fp16: kernels unpack the values
and multiply them by their scales. By the name of a parameter, the tensors are:

    NAME.fp8    uint8 [N, K]       bits of E4M3 numbers
    NAME.int8   int8 [N, K]
    NAME.int4   uint8 [N, K / 2]   two values a byte, the one of the lower input in the lower half
    NAME.scale  fp16               [] or [N], or [N, K / block] for int4
    NAME        fp16; fp32 for norms, layer scales and positions    what is not packed
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from litevlm_ros.convert.calibration import CalibrationData, measure_inputs
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.quantization import KEPT
from litevlm_ros.convert.quantized_weights import QuantizedWeight, is_quantizable, quantize_weight
from litevlm_ros.errors import CheckpointError, ConfigError
from litevlm_ros.model_directory import VISION

Arrays = dict[str, npt.NDArray[Any]]


def pack(part: str, model: Path, precision: str, data: CalibrationData | None, fp8_form: str = "") -> Arrays:
    """Returns all parameters of `part` (VISION or TEXT) of a model directory as the tensors that the module names.

    `precision` is fp8, int8 or int4; INT4's scales are chosen with `data`, which others do not need. `fp8_form` is one
    of FP8_FORMS, of which '' is the first; all but the first give each output its own scale.

    Raises CheckpointError, also for numbers beyond fp16's range, and ConfigError for an INT4 vision encoder.
    """
    if precision == "int4" and part == VISION:
        raise ConfigError("vision-precision is int4; allowed: fp16, bf16, fp8, int8. Use int8 for the smallest")
    importance = {}
    if precision == "int4" and data is not None:
        importance = {name: inputs.importance for name, inputs in measure_inputs(part, model, data).items()}
    module: nn.Module = load_vision_encoder(model) if part == VISION else load_text_decoder(model)
    layers = {
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
        and name not in KEPT
        and is_quantizable(layer.in_features, layer.out_features, precision)
    }
    arrays: Arrays = {}
    for name, parameter in module.named_parameters():
        owner, _, kind = name.rpartition(".")
        values = parameter.detach()
        if isinstance(module.get_submodule(owner), (nn.Linear, nn.Embedding)):
            half = _half(values, name, model / part)
            if owner in layers and kind == "weight":
                arrays |= _packed(name, quantize_weight(values, precision, fp8_form, importance.get(owner)))
            else:
                arrays[name] = half.numpy()
        else:
            arrays[name] = values.numpy()
    return arrays


def _half(values: Tensor, name: str, directory: Path) -> Tensor:
    half = values.half()
    if not half.isfinite().all():
        raise CheckpointError(
            f"{name} in {directory} holds numbers beyond fp16's range, in which packed weights are computed with; "
            "use `--precision bf16`"
        )
    return half


def _packed(name: str, weight: QuantizedWeight) -> Arrays:
    if weight.values.dtype == torch.float8_e4m3fn:
        kind, values = "fp8", weight.values.view(torch.uint8).numpy()
    elif weight.block:
        signed = weight.values.numpy().view(np.uint8)
        kind, values = "int4", (signed[:, ::2] & 15) | (signed[:, 1::2] << 4)
    else:
        kind, values = "int8", weight.values.numpy()
    return {f"{name}.{kind}": values, f"{name}.scale": weight.scale.numpy()}
