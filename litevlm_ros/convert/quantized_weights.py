"""Weights of linear layers in 8 and 4 bits: fp8 (E4M3), int8 and int4, all symmetric.

Calibration measures how much each input of a layer matters (`importance`, the mean square of the activations); INT4's
scales are then those with the smallest expected error of the layer's output, as in AWQ's clipping (arXiv 2306.00978).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from litevlm_ros.precision import FP8_FORMS

FP8_MAX = 448.0
"""Largest number of E4M3 (arXiv 2209.05433)."""
INT8_MAX = 127.0
INT4_BLOCKS = (128, 64)
"""Inputs that share a scale, in the order of preference: the sizes that TensorRT takes."""

_ALIGNMENT = 16
"""Inputs and outputs of a layer in 8 bits are multiples of this number, for TensorRT's matrix products."""
_INT4_MAX = 7.0
_SHRINKAGES = tuple(1 - step / 20 for step in range(11))
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight [N, K] as the product of `values` [N, K] (float8_e4m3fn, or int8 for int8 and int4) and `scale`.

    `scale` is fp16: one number [] for fp8; one for each output [N] for int8 and `to_fp8_by_output`; one for each block
    of inputs [N, K / `block`] for int4; `block` is 0 but for int4.
    """

    values: Tensor
    scale: Tensor
    block: int = 0

    def restored(self) -> Tensor:
        """Returns the weight as the engine sees it, fp32 [N, K]."""
        scale = self.scale.float()
        if self.block:
            scale = scale.repeat_interleave(self.block, 1)
        elif scale.dim():
            scale = scale.unsqueeze(1)
        return self.values.float() * scale


def is_quantizable(inputs: int, outputs: int, precision: str) -> bool:
    """Tells whether a linear layer of these widths can have weights in `precision`: fp8, int8 or int4."""
    if precision == "int4":
        return int4_block(inputs) is not None
    return inputs % _ALIGNMENT == 0 and outputs % _ALIGNMENT == 0


def quantize_weight(
    weight: Tensor, precision: str, fp8_form: str = "", importance: Tensor | None = None
) -> QuantizedWeight:
    """Quantizes a weight [N, K] to `precision`: fp8, int8 or int4.

    `fp8_form` is one of FP8_FORMS, of which '' is the first; `importance` [K] is that of the inputs, for int4.
    """
    if precision == "int4":
        return to_int4(weight, importance)
    if precision == "int8":
        return to_int8(weight)
    return to_fp8_by_output(weight) if fp8_form in FP8_FORMS[1:] else to_fp8(weight)


def to_fp8(weight: Tensor) -> QuantizedWeight:
    """Quantizes to FP8 with one scale for the whole weight, the form that TensorRT multiplies in FP8 everywhere."""
    return _fp8(weight, _positive(weight.abs().max() / FP8_MAX))


def to_fp8_by_output(weight: Tensor) -> QuantizedWeight:
    """Quantizes to FP8 with one scale for each output."""
    return _fp8(weight, _positive(weight.abs().amax(1) / FP8_MAX))


def _fp8(weight: Tensor, scale: Tensor) -> QuantizedWeight:
    values = weight.float() / scale.float().reshape(-1, 1)
    return QuantizedWeight(values.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn), scale)


def to_int8(weight: Tensor) -> QuantizedWeight:
    """Quantizes to INT8 with one scale for each output."""
    scale = _positive(weight.abs().amax(1) / INT8_MAX)
    values = (weight.float() / scale.float().unsqueeze(1)).round().clamp(-INT8_MAX, INT8_MAX)
    return QuantizedWeight(values.to(torch.int8), scale)


def int4_block(inputs: int) -> int | None:
    """Returns the number of inputs that share a scale, or None if a layer of `inputs` cannot be quantized to INT4."""
    return next((block for block in INT4_BLOCKS if inputs % block == 0), None)


def to_int4(weight: Tensor, importance: Tensor | None = None) -> QuantizedWeight:
    """Quantizes to INT4 with one scale for each block of inputs, chosen by `importance` [K] or by the weights alone.

    Raises ValueError if K is not a multiple of one of INT4_BLOCKS.
    """
    block = int4_block(weight.shape[1])
    if block is None:
        raise ValueError(f"{weight.shape[1]} inputs are not a multiple of {' or '.join(map(str, INT4_BLOCKS))}")
    importance = torch.ones(weight.shape[1]) if importance is None else importance.float().cpu()
    parts = [_int4_rows(rows, importance.reshape(1, -1, block)) for rows in _blocks(weight, block)]
    return QuantizedWeight(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]), block)


def _blocks(weight: Tensor, block: int) -> Iterator[Tensor]:
    """Yields fp32 [rows, K / block, block], some rows at a time because the search holds several copies of them."""
    for rows in weight.split(_ROWS_AT_ONCE):
        yield rows.float().reshape(len(rows), -1, block)


def _int4_rows(rows: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
    largest = rows.abs().amax(-1, keepdim=True)
    best_error = torch.full_like(largest, torch.inf)
    best_scale = torch.ones_like(largest)
    for shrinkage in _SHRINKAGES:
        scale = _positive(largest * shrinkage / _INT4_MAX).float()
        restored = (rows / scale).round_().clamp_(-_INT4_MAX - 1, _INT4_MAX).mul_(scale)
        error = (restored.sub_(rows).square_() * importance).sum(-1, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, scale, best_scale)
    values = (rows / best_scale).round_().clamp_(-_INT4_MAX - 1, _INT4_MAX).to(torch.int8)
    return values.reshape(len(rows), -1), best_scale.squeeze(-1).half()


def _positive(scale: Tensor) -> Tensor:
    """Returns `scale` as fp16, which the graph holds, and above 0: a row of zeros has no scale of its own."""
    return scale.float().clamp(min=2.0**-14).half()
