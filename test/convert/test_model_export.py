from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from litevlm_ros.convert import model_export, onnx_check
from litevlm_ros.convert.model_export import export_text_decoder, export_vision_encoder
from litevlm_ros.errors import CheckpointError, ConfigError, EngineError


def test_text_decoder_in_fp16(models: Any, tmp_path: Path) -> None:
    graph = export_text_decoder(models["native"], tmp_path, "fp16")
    assert graph.file == tmp_path / "text_decoder.onnx"
    assert graph.bytes == graph.file.stat().st_size
    assert graph.shared_bytes == 0
    assert graph.error is not None
    assert 0 < graph.error < 3e-2


def test_a_graph_that_computes_something_else_is_an_error(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(onnx_check.TOLERANCE, torch.float32, 1e-12)
    with pytest.raises(EngineError, match="visual_tokens is off by"):
        export_vision_encoder(models["original"], tmp_path)


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
