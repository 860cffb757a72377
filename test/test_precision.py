from __future__ import annotations

import pytest

from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.precision import PRECISIONS, choose_precision

ORIN, ADA = (8, 7), (8, 9)


@pytest.mark.parametrize("asked", PRECISIONS)
def test_what_the_gpu_has_is_built_as_asked(asked: str) -> None:
    choice = choose_precision(TEXT, asked, ADA, strict=True)
    assert (choice.asked, choice.built, choice.reason) == (asked, asked, "")


def test_orin_gets_no_fp8_but_engines_of_at_most_that_size() -> None:
    assert choose_precision(VISION, "fp8", ORIN).built == "int8"
    text = choose_precision(TEXT, "fp8", ORIN)
    assert (text.asked, text.built) == ("fp8", "int4")
    assert "8.7 has no FP8, which needs 8.9" in text.reason


def test_strict_refuses_what_orin_does_not_have_and_says_what_it_has() -> None:
    with pytest.raises(ConfigError, match=r"text decoder cannot be built in fp8.*8\.7.*--text-precision int4"):
        choose_precision(TEXT, "fp8", ORIN, strict=True)
    with pytest.raises(ConfigError, match="--vision-precision int8"):
        choose_precision(VISION, "fp8", ORIN, strict=True)


def test_the_vision_encoder_has_no_int4() -> None:
    assert choose_precision(VISION, "int4", ADA).built == "int8"
    with pytest.raises(ConfigError, match="vision encoder cannot be built in int4"):
        choose_precision(VISION, "int4", ADA, strict=True)


def test_an_unknown_gpu_is_taken_to_have_everything() -> None:
    assert choose_precision(VISION, "fp8", None, strict=True).built == "fp8"


def test_unknown_precisions_are_named() -> None:
    with pytest.raises(ConfigError, match="'fp64'; allowed: fp16, fp8, int8, int4"):
        choose_precision(TEXT, "fp64", ADA)
