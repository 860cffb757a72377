"""Weights of a part as a packed precision stores them: in the engine file, which then needs no checkpoint beside it.

Packed are the matrices of the layers, and the tables of words in int8. Engines compute with them in fp16: kernels
multiply the values by their scales. By the name of a parameter, the tensors are:

    NAME.fp8    uint8 [N, K]       bits of E4M3 numbers
    NAME.int8   int8 [N, K]
    NAME.int4   uint8 [N, K / 2]   two values a byte, the one of the lower input in the lower half
    NAME.scale  fp16 [N], or [N, K / block] for int4
    NAME        fp16; fp32 for norms, layer scales and positions    what is not packed

INT4's block is 128 or 64 inputs: the larger one, if it divides the widths of all matrices that it packs. So all
layers of a text decoder have one format, which the kernel of a decode step needs.

Why not nvidia-modelopt: it quantizes modules of known classes or exported graphs of its own making, and the layers
fused here are neither; the scales are a page of code (`quantized_weights`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from litevlm_ros.convert.calibration import CalibrationData, measure_importance
from litevlm_ros.convert.checkpoint import holds, stored_text_decoder, stored_vision_encoder
from litevlm_ros.convert.quantized_weights import QuantizedWeight, int4_block, is_quantizable, quantize_weight
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_directory import VISION
from litevlm_ros.precision import PACKED_PRECISIONS, stored_in

Arrays = dict[str, npt.NDArray[Any]]
StoredWeight = QuantizedWeight | Tensor
"""A parameter in the type in which it is stored: packed, fp16 or fp32."""


def pack(part: str, model: Path, precision: str, data: CalibrationData | None) -> Arrays:
    """Returns all parameters of `part` (VISION or TEXT) of a model directory as the tensors that the module names.

    `precision` is fp8, int8 or int4. INT4's scales are chosen with `data`; without it, all inputs matter alike.

    Raises CheckpointError, also for numbers beyond fp16's range.
    """
    arrays: Arrays = {}
    for name, stored in stored_weights(part, model, precision, data):
        if isinstance(stored, QuantizedWeight):
            arrays |= _packed(name, stored)
        else:
            arrays[name] = stored.numpy()
    return arrays


def stored_weights(
    part: str, model: Path, precision: str, data: CalibrationData | None
) -> Iterator[tuple[str, StoredWeight]]:
    """Yields each parameter of `part` of a model directory by name and as it is stored.

    Arguments and errors are those of `pack`. Of tied weights there is one, by its first name. Parameters are read one
    at a time, so what is yielded takes more memory than anything else; only calibration has the whole part in fp32.
    """
    parameters = stored_vision_encoder(model) if part == VISION else stored_text_decoder(model)
    parameters.check(torch.float32)
    importance = measure_importance(part, model, data) if data else {}
    module = parameters.module
    packed = _packed_matrices(module, precision)
    block = int4_block(width for stored, width in packed.values() if stored == "int4")
    for name in parameters.shapes:
        owner = name.rpartition(".")[0]
        values = parameters.read(name)
        if not isinstance(module.get_submodule(owner), (nn.Linear, nn.Embedding)):
            yield name, values.to(torch.float32, copy=True)
            continue
        if not holds(torch.half, values):
            raise CheckpointError(
                f"{name} in {model / part} holds numbers beyond fp16's range, in which packed weights are computed "
                "with; use `--precision bf16`"
            )
        if name in packed:
            yield name, quantize_weight(values, packed[name][0], importance.get(owner), block)
        else:
            yield name, values.to(torch.half, copy=True)


def _packed_matrices(module: nn.Module, precision: str) -> dict[str, tuple[str, int]]:
    """Returns the packed precision and the number of inputs of each matrix of `module` that is packed, by its name."""
    matrices = {
        f"{owner}.weight": layer.weight.shape[1]
        for owner, layer in module.named_modules()
        if isinstance(layer, (nn.Linear, nn.Embedding))
    }
    stored = {name: (stored_in(name, precision), width) for name, width in matrices.items()}
    return {
        name: (packing, width)
        for name, (packing, width) in stored.items()
        if packing in PACKED_PRECISIONS and is_quantizable(width, packing)
    }


def _packed(name: str, weight: QuantizedWeight) -> Arrays:
    values = weight.values.view(torch.uint8) if weight.precision == "fp8" else weight.values
    array = values.numpy()
    if weight.precision == "int4":
        signed = array.view(np.uint8)
        array = (signed[:, ::2] & 15) | (signed[:, 1::2] << 4)
    return {f"{name}.{weight.precision}": array, f"{name}.scale": weight.scale.numpy()}
