from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from litevlm_ros.config import PipelineConfig, TokenSelectionConfig
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.runtime.load import load_backend
from litevlm_ros.tools.train_token_scorer import main


def test_what_it_writes_selects_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="trains: pip install 'litevlm_ros[convert]'")
    for entry in demo_model_directory().iterdir():
        if entry.name != "token_scorer.onnx":
            (tmp_path / entry.name).symlink_to(entry)
    assert main(["--model", str(tmp_path), "--steps", "1", "--views", "1"]) == 0
    assert f"{tmp_path / 'token_scorer.onnx'}: " in capsys.readouterr().out
    backend = load_backend(PipelineConfig(tmp_path, backend="onnxruntime"), ModelConfig.from_directory(tmp_path))
    selector = backend.token_selector(TokenSelectionConfig("scorer", 0.25))
    visual = backend.vision.encode(np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3)).astype(np.uint8))
    selection = selector.select(visual)
    assert selection.places.shape == (3 * 16,)
    assert (np.bincount(selection.places // 64) == 16).all()
    alone = selector.select(visual.part(64, 128))
    np.testing.assert_array_equal(alone.places + 64, selection.places[16:32])


def test_mistakes_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="trains: pip install 'litevlm_ros[convert]'")
    assert main(["--seed", "5000"]) == 1
    assert "seed is 5000; allowed: 0 to 999" in capsys.readouterr().err
    assert main(["--model", "nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err
