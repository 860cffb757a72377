"""Weights in few bits are near the weights that they stand for."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from litevlm_ros.convert.quantized_weights import (  # noqa: E402
    QuantizedWeight,
    int4_block,
    is_quantizable,
    quantize_weight,
)
from litevlm_ros.precision import PACKED_PRECISIONS  # noqa: E402

SMALLEST, LARGEST = 2.0**-24, 65504.0
"""The numbers of fp16 nearest to zero and farthest from it."""


def weight(rows: int = 48, inputs: int = 256, largest: float = 0.0) -> torch.Tensor:
    """Rows of very different sizes, as a trained model has them, or with this number as the largest of each row."""
    values = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(3))
    if not largest:
        return values * torch.logspace(-3, 0, rows).unsqueeze(1)
    return (values / values.abs().amax(1, keepdim=True) * largest).half().float()


def error(quantized: QuantizedWeight, exact: torch.Tensor) -> float:
    return float((quantized.restored() - exact).norm() / exact.norm())


def test_eight_bits_are_near_and_four_less_so() -> None:
    exact = weight()
    errors = [error(quantize_weight(exact, precision), exact) for precision in ("int8", "fp8", "int4")]
    assert errors[0] < 0.01
    assert errors[1] < 0.03
    assert errors[2] < 0.12
    assert errors == sorted(errors)


def test_types_and_shapes() -> None:
    fp8, int8, int4 = (quantize_weight(weight(), precision) for precision in PACKED_PRECISIONS)
    assert (fp8.values.dtype, fp8.scale.shape, fp8.block) == (torch.float8_e4m3fn, (48,), 0)
    assert (int8.values.dtype, int8.scale.shape, int8.block) == (torch.int8, (48,), 0)
    assert (int4.values.dtype, int4.scale.shape, int4.block) == (torch.int8, (48, 2), 128)
    assert int(int4.values.min()) >= -8
    assert int(int4.values.max()) <= 7
    for precision, quantized in zip(PACKED_PRECISIONS, (fp8, int8, int4), strict=True):
        assert quantized.precision == precision
        assert quantized.scale.dtype == quantized.restored().dtype == torch.float16


@pytest.mark.parametrize(("precision", "most"), [("fp8", 0.03), ("int8", 0.01), ("int4", 0.15)])
def test_each_row_keeps_its_own_scale(precision: str, most: float) -> None:
    exact = weight()
    relative = (quantize_weight(exact, precision).restored() - exact).norm(dim=1) / exact.norm(dim=1)
    assert float(relative.max()) < most


@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_rows_are_quantized_some_at_a_time_as_they_would_be_alone(precision: str) -> None:
    exact = weight(rows=2500, inputs=128)
    whole = quantize_weight(exact, precision)
    parts = [quantize_weight(rows, precision) for rows in exact.split(700)]
    assert torch.equal(bits(whole.values), torch.cat([bits(part.values) for part in parts]))
    assert torch.equal(whole.scale, torch.cat([part.scale for part in parts]))


@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_no_copy_of_the_whole_is_made_in_fp32(precision: str) -> None:
    """The table of words of a model of 1B is 0.5 GB in fp32, and several copies of it would not fit on a board."""
    exact = weight(rows=5000, inputs=128).half()
    with LargestFloats() as made:
        quantize_weight(exact, precision)
    assert 128 < made.numbers <= exact.numel() / 4


class LargestFloats(TorchDispatchMode):
    """Notes how many numbers the largest fp32 tensor has that torch makes meanwhile."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls `func`."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32:
                self.numbers = max(self.numbers, tensor.numel())
        return result


def bits(values: torch.Tensor) -> torch.Tensor:
    return values.view(torch.uint8)


def test_importance_moves_the_error_to_where_it_matters_less() -> None:
    exact = weight(inputs=128)
    importance = torch.ones(128)
    importance[:8] = 1000

    def weighted(quantized: QuantizedWeight) -> float:
        return float(((quantized.restored() - exact).square() * importance).sum())

    chosen = quantize_weight(exact, "int4", importance)
    assert weighted(chosen) < 0.9 * weighted(quantize_weight(exact, "int4"))


@pytest.mark.parametrize(
    ("widths", "block"), [((896, 4864), 128), ((256, 704), 64), ((192,), 64), ((64, 128), 64), ((), 128)]
)
def test_the_block_is_the_largest_that_divides_all_widths(widths: tuple[int, ...], block: int) -> None:
    assert int4_block(widths) == block
    for width in widths:
        quantized = quantize_weight(weight(inputs=width), "int4", block=block)
        assert (quantized.block, quantized.scale.shape) == (block, (48, width // block))


def test_a_width_that_no_block_divides_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[100, 128\] inputs are not all multiples of 64"):
        int4_block((128, 100))
    with pytest.raises(ValueError, match="192 inputs are not a multiple of 128"):
        quantize_weight(torch.ones(4, 192), "int4")
    assert [is_quantizable(100, "int4"), is_quantizable(192, "int4")] == [False, True]
    assert [is_quantizable(100, "fp8"), is_quantizable(48, "fp8"), is_quantizable(48, "int8")] == [False, True, True]


@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_zeros_stay_zeros_and_have_a_scale(precision: str) -> None:
    exact = weight()
    exact[5] = 0
    quantized = quantize_weight(exact, precision)
    assert not quantized.restored()[5].any()
    assert float(quantized.scale.min()) == SMALLEST
    assert error(quantized, exact) < 0.12


@pytest.mark.parametrize(("precision", "values"), [("fp8", 448), ("int8", 127)])
@pytest.mark.parametrize("largest", [1e-4, 1e-5, 1e-6, 1e-7, SMALLEST])
def test_tiny_rows_lose_no_more_than_fp16_or_the_values_do(precision: str, values: int, largest: float) -> None:
    """A scale may be a subnormal number of fp16, which must not cut off the largest weights."""
    exact = weight(largest=largest)
    quantized = quantize_weight(exact, precision)
    steps = {"fp8": largest / 2**3, "int8": 1.5 * quantized.scale.float().max()}[precision]
    assert float((quantized.restored() - exact).abs().max()) <= max(SMALLEST, float(steps) / 2)
    assert bool((quantized.scale.float() * values >= 0.99 * exact.abs().amax(1)).all()), "nothing is clipped"


@pytest.mark.parametrize("precision", PACKED_PRECISIONS)
def test_the_largest_rows_stay_finite(precision: str) -> None:
    """Rounding up the scale of the largest number of fp16 would make a product that fp16 does not hold."""
    exact = weight(largest=LARGEST)
    assert float(exact.abs().max()) == LARGEST
    restored = quantize_weight(exact, precision).restored()
    assert bool(restored.isfinite().all())
    assert float((restored - exact).norm() / exact.norm()) < 0.12
