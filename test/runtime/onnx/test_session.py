from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import TEXT, VISION, graph_name
from litevlm_ros.runtime.onnx.session import find_graph, obstacle


def graphs(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).touch()
    return directory


def test_fp32_has_the_plain_name() -> None:
    assert graph_name(VISION) == graph_name(VISION, "fp32") == "vision_encoder.onnx"
    assert graph_name(TEXT, "int4") == "text_decoder_int4.onnx"


def test_the_most_accurate_graph_is_taken_unless_one_is_named(tmp_path: Path) -> None:
    graphs(tmp_path, "text_decoder.onnx", "text_decoder_fp16.onnx", "text_decoder_int4.onnx")
    assert find_graph(PipelineConfig(tmp_path), TEXT).name == "text_decoder.onnx"
    assert find_graph(PipelineConfig(tmp_path, text_precision="int4"), TEXT).name == "text_decoder_int4.onnx"
    (tmp_path / "text_decoder.onnx").unlink()
    assert find_graph(PipelineConfig(tmp_path), TEXT).name == "text_decoder_fp16.onnx"


def test_a_missing_graph_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    graphs(tmp_path, "vision_encoder.onnx")
    with pytest.raises(EngineError, match=r"vision_encoder_fp8\.onnx is missing in .*export_onnx .*-precision fp8"):
        find_graph(PipelineConfig(tmp_path, vision_precision="fp8"), VISION)
    assert obstacle(PipelineConfig(graphs(tmp_path, "text_decoder.onnx"))) is None
    reasons = obstacle(PipelineConfig(tmp_path, vision_precision="fp8", text_precision="int8"))
    assert reasons is not None
    assert reasons.count("export_onnx") == 2
