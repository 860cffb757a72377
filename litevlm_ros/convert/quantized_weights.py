"""Weights of linear layers in 8 and 4 bits, all symmetric, with scales in fp16.

    fp8   E4M3 numbers (arXiv 2209.05433), one scale for each output
    int8  one scale for each output
    int4  one scale for each block of 128 or 64 inputs (`int4_block`)

A scale of INT4 may clip the largest weights of its block. It is the one with the smallest expected error of the layer's
output, as in AWQ's clipping (arXiv 2306.00978), where calibration has measured how much each input matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

INT4_BLOCKS = (128, 64)
"""The numbers of inputs that may share a scale, in the order of preference: fewer scales are read faster."""

_WORD = 16
"""Inputs of a layer in 8 bits are a multiple of this number: kernels read words of 16 bytes, each in one row."""

_FP8_MAX = 448.0
_INT8_MAX = 127.0
_INT4_MAX, _INT4_MIN = 7.0, -8.0
_HALF_MAX = 65504.0
_SHRINKAGES = tuple(1 - step / 20 for step in range(11))
_ROWS_AT_ONCE = 256
"""Rows of a matrix that are quantized at a time. That takes several fp32 copies of them, which a CPU's cache holds."""


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight [N, K] as the product of `values` [N, K] (float8_e4m3fn, or int8 for int8 and int4) and `scale`.

    `scale` is fp16: one number for each output [N], or for each block of inputs [N, K / `block`] of int4. `block` is 0
    but for int4.
    """

    values: Tensor
    scale: Tensor
    block: int = 0

    @property
    def precision(self) -> str:
        """The precision: fp8, int8 or int4."""
        return "int4" if self.block else "int8" if self.values.dtype == torch.int8 else "fp8"

    def restored(self) -> Tensor:
        """Returns the weight as engines compute with it: fp16 [N, K], always finite."""
        scale = self.scale.float()
        scale = scale.repeat_interleave(self.block, 1) if self.block else scale.unsqueeze(1)
        return (self.values.float() * scale).half()


def is_quantizable(inputs: int, precision: str) -> bool:
    """Tells whether a linear layer of so many inputs can have weights in `precision`: fp8, int8 or int4."""
    return any(inputs % block == 0 for block in INT4_BLOCKS) if precision == "int4" else inputs % _WORD == 0


def quantize_weight(
    weight: Tensor, precision: str, importance: Tensor | None = None, block: int = INT4_BLOCKS[0]
) -> QuantizedWeight:
    """Quantizes a weight [N, K], whose numbers fp16 holds, to `precision`: fp8, int8 or int4.

    For int4, `importance` [K] is that of the inputs, and `block` of them share a scale. Raises ValueError if K is not a
    multiple of `block`.
    """
    outputs, inputs = weight.shape
    quantize: Callable[[Tensor], tuple[Tensor, Tensor]]
    if precision == "int4":
        if inputs % block:
            raise ValueError(f"{inputs} inputs are not a multiple of {block}")
        importance = torch.ones(inputs) if importance is None else importance.float().cpu()
        quantize = partial(_to_int4, importance=importance, block=block)
        scales: tuple[int, ...] = (outputs, inputs // block)
    else:
        quantize, block, scales = partial(_to_eight_bits, precision=precision), 0, (outputs,)
    values = weight.new_empty(weight.shape, dtype=torch.float8_e4m3fn if precision == "fp8" else torch.int8)
    scale = weight.new_empty(scales, dtype=torch.half)
    for start in range(0, outputs, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        values[rows], scale[rows] = quantize(weight[rows].float())
    return QuantizedWeight(values, scale, block)


def int4_block(widths: Iterable[int]) -> int:
    """Returns the largest of INT4_BLOCKS that divides all `widths`, the numbers of inputs of layers in INT4.

    All layers of a part get the same, because the kernel of a decode step is compiled for one block. Without any
    widths it is the first of INT4_BLOCKS. Raises ValueError if `is_quantizable` is not true of each width.
    """
    every = [*widths]
    for block in INT4_BLOCKS:
        if not any(width % block for width in every):
            return block
    raise ValueError(f"widths of {sorted(set(every))} inputs are not all multiples of {INT4_BLOCKS[-1]}")


def _to_eight_bits(rows: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    most = _FP8_MAX if precision == "fp8" else _INT8_MAX
    scale = _scale(rows.abs().amax(1), most, most)
    values = rows / scale.float().unsqueeze(1)
    if precision == "fp8":
        return values.clamp_(-most, most).to(torch.float8_e4m3fn), scale
    return values.round_().clamp_(-most, most).to(torch.int8), scale


def _to_int4(rows: Tensor, importance: Tensor, block: int) -> tuple[Tensor, Tensor]:
    importance = importance.reshape(1, -1, block)
    rows = rows.reshape(len(rows), -1, block)
    largest = rows.abs().amax(-1, keepdim=True)
    best_error = torch.full_like(largest, torch.inf)
    best_scale = torch.ones_like(largest)
    for shrinkage in _SHRINKAGES:
        scale = _scale(largest * shrinkage, _INT4_MAX, -_INT4_MIN).float()
        restored = (rows / scale).round_().clamp_(_INT4_MIN, _INT4_MAX).mul_(scale)
        error = (restored.sub_(rows).square_() * importance).sum(-1, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, scale, best_scale)
    values = (rows / best_scale).round_().clamp_(_INT4_MIN, _INT4_MAX).to(torch.int8)
    return values.reshape(len(rows), -1), best_scale.squeeze(-1).half()


def _scale(largest: Tensor, most: float, widest: float) -> Tensor:
    """Returns fp16 scales with which `most` stands for the weights `largest`, or for a little more.

    They are rounded up, so that only the upper bound clips: with it, the largest value `widest` still stands for a
    number that fp16 holds. At the lower bound, the smallest number of fp16, values are as fine as fp16 itself, so that
    rows of tiny weights lose nothing, and rows of zeros have a scale too.
    """
    exact = (largest / most).clamp(max=_HALF_MAX // widest)
    nearest = exact.half()
    # The bits of positive fp16 numbers count up with them.
    bits = nearest.view(torch.int16) + (nearest.float() < exact).to(torch.int16)
    return bits.clamp(min=1).view(torch.half)
