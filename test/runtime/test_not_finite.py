from __future__ import annotations

import pytest

from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import TEXT, VISION
from litevlm_ros.runtime.not_finite import not_finite


def test_fp16_names_layer_limit_and_the_way_to_bf16() -> None:
    error = not_finite(TEXT, "fp16", 5)
    assert isinstance(error, EngineError)
    assert str(error) == (
        "layer 5 of the text decoder: its attention or MLP gives numbers beyond what fp16 holds (65504). Use bf16, "
        "which holds larger ones: `ros2 run litevlm_ros build_engines --text-precision bf16` and the parameter "
        "text_precision: bf16. Without a GPU use fp32: `ros2 run litevlm_ros export_onnx` and the parameters "
        "vision_precision: auto and text_precision: auto"
    )


@pytest.mark.parametrize("precision", ["fp8", "int8", "int4"])
def test_packed_weights_are_computed_in_fp16(precision: str) -> None:
    text = str(not_finite(TEXT, precision, None))
    assert text.startswith(
        "the text decoder: its logits are infinite or NaN, so a layer gives numbers beyond what fp16"
    )
    assert f"(65504), in which {precision} is computed. Use bf16" in text


def test_the_vision_encoder_has_its_own_option() -> None:
    text = str(not_finite(VISION, "fp16"))
    assert text.startswith("the vision encoder: its visual tokens are infinite or NaN")
    assert "--vision-precision bf16` and the parameter vision_precision: bf16" in text


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("layer", "where"), [(0, "layer 0 of the text decoder"), (None, "the text decoder: its logits")]
)
def test_wide_precisions_blame_the_weights(precision: str, layer: int | None, where: str) -> None:
    text = str(not_finite(TEXT, precision, layer))
    assert text.startswith(where)
    assert f"infinite or NaN in {precision}, which holds all that a sound model computes. So the weights are" in text
    assert "download it again (`ros2 run litevlm_ros download_models`)" in text
    assert "65504" not in text
    assert f"build_engines --text-precision {'bf16' if precision == 'bf16' else 'fp16'}`)" in text
