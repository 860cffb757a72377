"""The kernels of weights.cu, run on the host, against numpy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from host_kernels import run_kernel, with_macros

from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, read_source
from litevlm_ros.runtime.tensorrt.kernels.weights import KINDS, VALUES_A_WORD, WEIGHT_MACROS

TYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}


def source(computed: str = "fp16") -> str:
    return with_macros(read_source("weights.cu"), {**NUMBER_MACROS[computed], **WEIGHT_MACROS})


def address(array: Any) -> tuple[str, int]:
    return "P", array.ctypes.data


def convert(numbers: Any, kind: str, target_kind: str, stride: int, first: int = 0, shift: int = 0) -> tuple[Any, bool]:
    """Converts the rows of `numbers` from number `first` on; `shift` bytes lie before the source."""
    stored = b"x" * shift + numbers.reshape(-1)[first:].tobytes()
    staging = np.frombuffer(stored, np.uint8).copy()
    target = np.zeros((len(numbers), stride), TYPES[target_kind])
    bad = np.zeros(1, np.int32)
    rows, columns = numbers.shape
    integers = KINDS[kind], KINDS[target_kind], first, rows * columns - first, columns, stride
    run_kernel(
        source(),
        "convert",
        (2,),
        (8,),
        [("P", staging.ctypes.data + shift), address(target), address(bad), *(("i", number) for number in integers)],
    )
    return target, bool(bad[0])


@pytest.mark.parametrize("target_kind", KINDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("stride", "shift"), [(7, 0), (8, 1)])
def test_numbers_are_rounded_as_numpy_does(kind: str, target_kind: str, stride: int, shift: int) -> None:
    numbers = (np.random.default_rng(1).standard_normal((5, 7)) * np.logspace(-7, 3, 7)).astype(TYPES[kind])
    found, bad = convert(numbers, kind, target_kind, stride, shift=shift)
    expected = np.zeros((5, stride), TYPES[target_kind])
    expected[:, :7] = numbers.astype(np.float32).astype(TYPES[target_kind])
    assert found.tobytes() == expected.tobytes()
    assert not bad


@pytest.mark.parametrize("first", [1, 9, 14])
def test_a_tensor_may_come_in_parts(first: int) -> None:
    numbers = np.random.default_rng(2).standard_normal((3, 7)).astype(np.float32)
    found, _ = convert(numbers, "F32", "F16", 10, first)
    assert not found.reshape(-1)[: first // 7 * 10 + first % 7].any()
    np.testing.assert_array_equal(found[:, :7].reshape(-1)[first:], numbers.astype(np.float16).reshape(-1)[first:])


@pytest.mark.parametrize(
    ("value", "kind", "target_kind", "bad"),
    [
        (65504, "F32", "F16", False),
        (7e4, "BF16", "F16", True),
        (7e4, "BF16", "BF16", False),
        (3.4e38, "F32", "BF16", True),
        (np.nan, "F16", "F32", True),
        (-np.inf, "F32", "F32", True),
    ],
)
def test_numbers_that_are_not_finite_are_found(value: float, kind: str, target_kind: str, bad: bool) -> None:
    numbers = np.ones((4, 4), TYPES[kind])
    numbers[2, 3] = value
    assert convert(numbers, kind, target_kind, 4)[1] == bad


def unpack(packing: str, values: Any, scales: Any, computed: str = "fp16") -> Any:
    words = values.nbytes // 16
    result = np.zeros(words * VALUES_A_WORD[packing], TYPES["F16" if computed == "fp16" else "BF16"])
    arguments = [address(values), address(scales), address(result), ("i", words), ("i", words // scales.size)]
    run_kernel(source(computed), f"unpack_{packing}", (2,), (4,), arguments)
    return result


@pytest.mark.parametrize("computed", NUMBER_MACROS)
@pytest.mark.parametrize("scale", [1.0, 2.0**-14, 0.0123, 140.0])
def test_every_e4m3_number_is_unpacked(scale: float, computed: str) -> None:
    bits = np.arange(256, dtype=np.uint8)
    bits[[0x7F, 0xFF]] = 0  # not a number: packing writes none
    scales = np.array(scale, np.float16)
    found = unpack("fp8", bits, scales, computed)
    expected = bits.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * np.float32(scales)
    np.testing.assert_array_equal(found, expected.astype(found.dtype))


@pytest.mark.parametrize("computed", NUMBER_MACROS)
def test_int8_is_unpacked_with_a_scale_for_each_row(computed: str) -> None:
    values = np.arange(-128, 128, dtype=np.int8).reshape(4, 64)
    scales = np.array([0.5, 1e-4, 3.0, 0.07], np.float16)
    found = unpack("int8", values, scales, computed).reshape(4, 64)
    expected = values.astype(np.float32) * scales.astype(np.float32)[:, None]
    np.testing.assert_array_equal(found, expected.astype(found.dtype))


@pytest.mark.parametrize("computed", NUMBER_MACROS)
@pytest.mark.parametrize("block", [64, 128])
def test_int4_is_unpacked_with_a_scale_for_each_block(block: int, computed: str) -> None:
    random = np.random.default_rng(3)
    values = random.integers(-8, 8, (3, 256)).astype(np.int8)
    scales = random.uniform(1e-3, 1, (3, 256 // block)).astype(np.float16)
    bits = values.view(np.uint8)
    packed = (bits[:, ::2] & 15) | (bits[:, 1::2] << 4)
    found = unpack("int4", packed, scales, computed).reshape(3, 256)
    expected = values.astype(np.float32) * scales.astype(np.float32).repeat(block, 1)
    np.testing.assert_array_equal(found, expected.astype(found.dtype))
