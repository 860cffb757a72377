from __future__ import annotations

from collections import namedtuple
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from outliers import write_model_with_outlier
from tiny_internvl import model_directory

from litevlm_ros.config import PipelineConfig
from litevlm_ros.convert import export as model_export
from litevlm_ros.convert import onnx_check
from litevlm_ros.convert.export import export_graphs, export_text_decoder, export_vision_encoder
from litevlm_ros.errors import CheckpointError, ConfigError, EngineError, NotFiniteError
from litevlm_ros.lab.world.calibration import calibration_data
from litevlm_ros.model_directory import TEXT, VISION, demo_model_directory
from litevlm_ros.pipeline import Pipeline


def test_text_decoder_in_fp16(models: Any, tmp_path: Path) -> None:
    graph = export_text_decoder(models["native"], tmp_path, "fp16")
    assert graph.file == tmp_path / "text_decoder_fp16.onnx"
    assert graph.bytes == graph.file.stat().st_size
    assert graph.shared_bytes == 0
    assert graph.error is not None
    assert 0 < graph.error < 3e-2


def test_a_graph_that_computes_something_else_is_an_error(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(onnx_check.TOLERANCE, torch.float32, 1e-12)
    with pytest.raises(
        EngineError, match=rf"{tmp_path}/vision_encoder.onnx was not written: .*visual_tokens is off by"
    ):
        export_vision_encoder(models["original"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_fp16_graph_of_a_model_that_overflows_is_not_written(tmp_path: Path) -> None:
    model = write_model_with_outlier(demo_model_directory(), tmp_path / "model")
    with pytest.raises(NotFiniteError) as caught:
        export_text_decoder(model, tmp_path, "fp16")
    assert f"{tmp_path}/text_decoder_fp16.onnx was not written: torch's own logits are infinite or NaN" in str(
        caught.value
    )
    assert "float16" in str(caught.value)
    assert "build_engines --precision bf16" in str(caught.value)
    assert not list(tmp_path.glob("*.onnx"))
    assert export_text_decoder(model, tmp_path, "fp32").error is not None


def test_unknown_dtype(models: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="int3"):
        export_vision_encoder(models["original"], tmp_path, "int3")


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="download_models"):
        export_text_decoder(tmp_path / "nothing", tmp_path)


def test_a_full_disk_is_noticed_before_writing(models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(model_export.shutil, "disk_usage", lambda path: usage(100, 90, 10))
    with pytest.raises(ConfigError, match="make room"):
        export_vision_encoder(models["original"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("exact", "ending"), [(False, ""), (True, "_exact")])
def test_a_packed_export_runs_as_a_model_directory_of_its_own(exact: bool, ending: str, tmp_path: Path) -> None:
    precisions = {VISION: "int8", TEXT: "int4"}
    calibration = partial(calibration_data, demo_model_directory())
    vision, text = export_graphs(demo_model_directory(), tmp_path, precisions, calibration=calibration, exact=exact)
    names = [f"vision_encoder_int8{ending}.onnx", f"text_decoder_int4{ending}.onnx"]
    assert [graph.file.name for graph in (vision, text)] == names
    assert (vision.packed, text.packed) == (6 * 4 + 2, 4 * 4 + 1)
    assert vision.calibration == ""
    assert "rendered street scenes" in text.calibration
    for graph in (vision, text):
        assert graph.error is not None
        if exact:
            assert graph.error < 1e-5, "torch computes the same with the rounded weights"
        else:
            assert 1e-3 < graph.error < 0.1, "inputs of products have 8 bits"
    assert not list(tmp_path.rglob("*.safetensors"))
    pipeline = Pipeline.from_config(PipelineConfig(tmp_path, backend="onnxruntime"))
    assert pipeline.backend.description.endswith(f"vision int8{ending}, text int4{ending}")
    pipeline.close()


def test_packed_weights_are_not_in_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shared in fp32 and fp16 only"):
        list(export_graphs(model_directory(), tmp_path, {TEXT: "fp8"}, share=True))
