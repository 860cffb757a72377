from __future__ import annotations

import logging
from pathlib import Path

import pytest

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.model_directory import TEXT, VISION, graph_name
from litevlm_ros.runtime.onnx import graph_choice
from litevlm_ros.runtime.onnx.graph_choice import explain_choice, find_graph, obstacle


@pytest.fixture(params=["avx512_vnni", "asimddp"])
def _fast(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(graph_choice, "cpu_features", lambda: frozenset(("fp", request.param)))


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_choice, "cpu_features", lambda: frozenset(("fp", "avx2")))


def graphs(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).touch()
    return directory


def test_fp32_has_the_plain_name() -> None:
    assert graph_name(VISION) == graph_name(VISION, "fp32") == "vision_encoder.onnx"
    assert graph_name(TEXT, "int4") == "text_decoder_int4.onnx"


@pytest.mark.usefixtures("_slow")
def test_without_products_in_8_bits_the_most_accurate_graph_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = PipelineConfig(graphs(tmp_path, "text_decoder.onnx", "text_decoder_fp16.onnx", "text_decoder_int4.onnx"))
    assert find_graph(config, TEXT).name == "text_decoder.onnx"
    with caplog.at_level(logging.INFO):
        explain_choice(config, TEXT)
    assert "from text_decoder.onnx and not from text_decoder_int4.onnx: this CPU has no instruction" in caplog.text
    (tmp_path / "text_decoder.onnx").unlink()
    assert find_graph(config, TEXT).name == "text_decoder_fp16.onnx"
    (tmp_path / "text_decoder_fp16.onnx").unlink()
    assert find_graph(config, TEXT).name == "text_decoder_int4.onnx"
    caplog.clear()
    explain_choice(config, TEXT)
    assert "fp32 is as fast here and more exact" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.usefixtures("_fast")
def test_where_8_bits_are_fast_their_graph_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("text_decoder.onnx", "text_decoder_int4.onnx", "text_decoder_int8.onnx", "text_decoder_int8_exact.onnx")
    config = PipelineConfig(graphs(tmp_path, *names))
    assert find_graph(config, TEXT).name == "text_decoder_int8.onnx"
    with caplog.at_level(logging.INFO):
        explain_choice(config, TEXT)
    assert "The text decoder runs from text_decoder_int8.onnx: this CPU multiplies in 8 bits" in caplog.text
    assert "Set text_precision to fp32" in caplog.text
    (tmp_path / "text_decoder_int8.onnx").unlink()
    assert find_graph(config, TEXT).name == "text_decoder_int4.onnx"
    (tmp_path / "text_decoder_int4.onnx").unlink()
    assert find_graph(config, TEXT).name == "text_decoder.onnx"
    caplog.clear()
    with caplog.at_level(logging.INFO):
        explain_choice(config, TEXT)
    assert not caplog.records


@pytest.mark.usefixtures("_fast")
@pytest.mark.parametrize(
    ("precision", "name"),
    [
        ("fp32", "text_decoder.onnx"),
        ("int4", "text_decoder_int4.onnx"),
        ("fp8", "text_decoder_fp8_exact.onnx"),
    ],
)
def test_a_named_precision_is_taken(precision: str, name: str, tmp_path: Path) -> None:
    graphs(tmp_path, "text_decoder.onnx", "text_decoder_int4.onnx", "text_decoder_int4_exact.onnx", name)
    assert find_graph(PipelineConfig(tmp_path, text_precision=precision), TEXT).name == name


def test_a_missing_graph_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    graphs(tmp_path, "vision_encoder.onnx")
    with pytest.raises(EngineError, match=r"vision_encoder_fp8\.onnx is missing in .*export_onnx .*-precision fp8"):
        find_graph(PipelineConfig(tmp_path, vision_precision="fp8"), VISION)
    with pytest.raises(EngineError, match=r"text_decoder\.onnx is missing in .*export_onnx --model [^ ]*$"):
        find_graph(PipelineConfig(tmp_path, text_precision="fp32"), TEXT)
    assert obstacle(PipelineConfig(graphs(tmp_path, "text_decoder.onnx"))) is None
    reasons = obstacle(PipelineConfig(tmp_path, vision_precision="fp8", text_precision="int8"))
    assert reasons is not None
    assert reasons.count("export_onnx") == 2
