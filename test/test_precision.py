from __future__ import annotations

import pytest

from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import PARTS, TEXT, VISION
from litevlm_ros.precision import PRECISIONS, choose_precision, computed_in, describe_packing

TURING, ORIN, ADA = (7, 5), (8, 7), (8, 9)


@pytest.mark.parametrize("asked", PRECISIONS)
def test_what_the_gpu_has_is_built_as_asked(asked: str) -> None:
    choice = choose_precision(TEXT, asked, ADA, strict=True)
    assert (choice.asked, choice.built, choice.reason) == (asked, asked, "")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("part", PARTS)
def test_strict_refuses_nothing_on_an_orin(part: str, precision: str) -> None:
    assert choose_precision(part, precision, ORIN, strict=True).built == precision


def test_a_gpu_before_ampere_gets_fp16_instead_of_bf16() -> None:
    text = choose_precision(TEXT, "bf16", TURING)
    assert (text.asked, text.built) == ("bf16", "fp16")
    assert "7.5 has no BF16, which needs 8.0" in text.reason


def test_strict_refuses_what_the_gpu_does_not_have_and_says_what_it_has() -> None:
    with pytest.raises(ConfigError, match=r"text decoder cannot be built in bf16.*7\.5.*--text-precision fp16"):
        choose_precision(TEXT, "bf16", TURING, strict=True)


def test_only_bf16_is_computed_in_bf16() -> None:
    assert [precision for precision in PRECISIONS if computed_in(precision) == "bf16"] == ["bf16"]
    assert {computed_in(precision) for precision in PRECISIONS} == {"fp16", "bf16"}


def test_packings_are_told_with_the_arithmetic_beside_them() -> None:
    assert [describe_packing(precision) for precision in PRECISIONS] == [
        "", "", "FP8 storage, FP16 arithmetic", "INT8 storage, FP16 arithmetic", "INT4 storage, FP16 arithmetic",
    ]  # fmt: skip


def test_an_unknown_gpu_is_taken_to_have_everything() -> None:
    assert choose_precision(VISION, "fp8", None, strict=True).built == "fp8"


def test_unknown_precisions_are_named() -> None:
    with pytest.raises(ConfigError, match="'fp64'; allowed: fp16, bf16, fp8, int8, int4"):
        choose_precision(TEXT, "fp64", ADA)
