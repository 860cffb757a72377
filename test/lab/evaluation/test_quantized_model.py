from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from package_files import DEMO_MODEL

from litevlm_ros.config import PipelineConfig, ViewSelectionConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.lab.evaluation.quantized_model import load_quantized

pytest.importorskip("onnxruntime", reason="the demo model runs on ONNX Runtime")
model_export = pytest.importorskip("litevlm_ros.convert.export", reason="drawing graphs needs torch")


def test_graphs_that_are_missing_are_drawn_beside_the_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Mapping[str, str]] = []

    def export(model: Path, output: Path, precisions: Mapping[str, str], **_: Any) -> Iterator[None]:
        drawn.append(precisions)
        shutil.copytree(model, output, dirs_exist_ok=True, ignore=shutil.ignore_patterns("view_selector.onnx"))
        for part, precision in precisions.items():
            (output / f"{part}.onnx").rename(output / f"{part}_{precision}.onnx")
            yield

    monkeypatch.setattr(model_export, "export_graphs", export)
    config = PipelineConfig(
        DEMO_MODEL,
        backend="onnxruntime",
        vision_precision="fp16",
        text_precision="fp8",
        view_selection=ViewSelectionConfig("learned"),
    )
    pipeline = load_quantized(config)
    assert drawn == [{"vision_encoder": "fp16", "text_decoder": "fp8"}]
    assert pipeline.backend.description.endswith("vision fp16, text fp8")
    assert pipeline.config.view_selection.method == "learned"
    pipeline.close()


def test_what_is_there_is_loaded_and_engines_are_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(model_export, "export_graphs", None)
    load_quantized(PipelineConfig(DEMO_MODEL, backend="onnxruntime")).close()
    with pytest.raises(EngineError, match="TensorRT"):
        load_quantized(PipelineConfig(DEMO_MODEL, backend="tensorrt", text_precision="fp8"))
    for half in ("vision_encoder", "text_decoder"):
        shutil.copytree(DEMO_MODEL / half, tmp_path / half)
    with pytest.raises(EngineError, match=r"text_decoder\.onnx is missing"):
        load_quantized(PipelineConfig(tmp_path, backend="onnxruntime"))
