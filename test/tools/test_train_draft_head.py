from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: pip install 'litevlm_ros[convert]'")

from litevlm_ros.config import PipelineConfig, SpeculationConfig
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import generate
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.tools.train_draft_head import main
from litevlm_ros.types import View


def test_a_head_is_trained_exported_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    shutil.copytree(demo_model_directory(), model)
    shutil.rmtree(model / "draft_head")
    (model / "draft_head.onnx").unlink()
    decoder = (model / "text_decoder" / "model.safetensors").read_bytes()
    assert main(["--model", str(model), "--scenes", "1", "--steps", "3"]) == 0
    printed = capsys.readouterr().out
    assert "21 answers about 1 scenes" in printed
    assert "right on 21 answers about other scenes, by place in a draft: " in printed
    assert "draft_head.onnx" in printed
    assert (model / "text_decoder" / "model.safetensors").read_bytes() == decoder
    config = PipelineConfig(model, backend="onnxruntime", threads=1, speculation=SpeculationConfig("head"))
    pipeline = Pipeline.from_config(config)
    view = View("front", render(generate(3), "front"))
    # It has learnt next to nothing, so its drafts are given up sooner or later; some answers pay for trying them.
    answers = [pipeline.generate([view], "Describe the scene.") for _ in range(10)]
    assert sum(answer.speculation.drafted for answer in answers) > 0


def test_bad_numbers_and_missing_models_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "0"]) == 1
    assert "--steps is 0; allowed: from 1" in capsys.readouterr().err
    assert main(["--model", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
