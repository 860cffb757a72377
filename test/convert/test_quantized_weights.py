"""Weights in few bits are near the weights that they stand for."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")

from litevlm_ros.convert.quantized_weights import (  # noqa: E402
    QuantizedWeight,
    int4_block,
    to_fp8,
    to_int4,
    to_int8,
)


def weight(rows: int = 48, inputs: int = 256) -> torch.Tensor:
    """Rows of very different sizes, as a trained model has them."""
    random = torch.Generator().manual_seed(3)
    return torch.randn(rows, inputs, generator=random) * torch.logspace(-3, 0, rows).unsqueeze(1)


def error(quantized: QuantizedWeight, exact: torch.Tensor) -> float:
    return float((quantized.restored() - exact).norm() / exact.norm())


def test_eight_bits_are_near_and_four_less_so() -> None:
    exact = weight()
    errors = [error(to_int8(exact), exact), error(to_fp8(exact), exact), error(to_int4(exact), exact)]
    assert errors[0] < 0.01
    assert errors[1] < 0.03
    assert errors[2] < 0.12
    assert errors == sorted(errors)


def test_types_and_shapes_are_those_of_the_graph() -> None:
    fp8, int8, int4 = to_fp8(weight()), to_int8(weight()), to_int4(weight())
    assert (fp8.values.dtype, fp8.scale.shape, fp8.block) == (torch.float8_e4m3fn, (), 0)
    assert (int8.values.dtype, int8.scale.shape, int8.block) == (torch.int8, (48,), 0)
    assert (int4.values.dtype, int4.scale.shape, int4.block) == (torch.int8, (48, 2), 128)
    assert int(int4.values.min()) >= -8
    assert int(int4.values.max()) <= 7
    assert {fp8.scale.dtype, int8.scale.dtype, int4.scale.dtype} == {torch.float16}


def test_small_rows_of_int8_keep_their_own_scale() -> None:
    exact = weight()
    relative = (to_int8(exact).restored() - exact).norm(dim=1) / exact.norm(dim=1)
    assert float(relative.max()) < 0.02


def test_importance_moves_the_error_to_where_it_matters_less() -> None:
    exact = weight(inputs=128)
    importance = torch.ones(128)
    importance[:8] = 1000

    def weighted(quantized: QuantizedWeight) -> float:
        return float(((quantized.restored() - exact).square() * importance).sum())

    assert weighted(to_int4(exact, importance)) < 0.9 * weighted(to_int4(exact))


def test_blocks_are_the_largest_that_divide_the_inputs() -> None:
    assert (int4_block(896), int4_block(4864), int4_block(192), int4_block(100)) == (128, 128, 64, None)
    with pytest.raises(ValueError, match="100 inputs are not a multiple of 128 or 64"):
        to_int4(torch.ones(4, 100))


def test_zeros_stay_zeros() -> None:
    for quantize in (to_fp8, to_int8, to_int4):
        assert float(quantize(torch.zeros(4, 128)).restored().abs().max()) == 0
