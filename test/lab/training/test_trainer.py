from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from package_files import DEMO_MODEL
from tokenizers import Tokenizer
from transformers import InternVLConfig

from litevlm_ros.lab.training import samples, trainer
from litevlm_ros.lab.training.demo_model import demo_config
from litevlm_ros.lab.training.trainer import Training, TrainingConfig
from litevlm_ros.model_config import ModelConfig


def _config(directory: Path, **changes: object) -> TrainingConfig:
    config = TrainingConfig(
        output=directory / "model",
        work=directory,
        steps=2,
        scenes=1,
        buffer=2,
        warm_buffer=1,
        learning_rate=1e-3,
        workers=0,
        time_limit=math.inf,
        seed=0,
        device="cpu",
        compile=False,
        validation_scenes=2,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def _thin_config(vocabulary_size: int, image_token: int) -> InternVLConfig:
    """The demo model with one layer of each kind, a sixth as wide."""
    demo = demo_config(vocabulary_size, image_token)
    thin = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return InternVLConfig(
        vision_config=demo.vision_config.to_dict() | thin,
        text_config=demo.text_config.to_dict() | thin | {"num_key_value_heads": 1, "layer_types": ["full_attention"]},
        image_token_id=image_token,
        image_seq_length=demo.image_seq_length,
        tie_word_embeddings=True,
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains a thin model, on few new scenes a step, with the shipped tokenizer (which is the trained one)."""
    tokenizer = Tokenizer.from_file(str(DEMO_MODEL / "text_decoder" / "tokenizer.json"))
    monkeypatch.setattr(trainer, "demo_config", _thin_config)
    monkeypatch.setattr(trainer, "train_tokenizer", lambda: tokenizer)
    monkeypatch.setattr(samples, "_BATCH", 1)


def test_a_run_that_was_stopped_goes_on_and_writes_model_log_and_curve(quick: None, tmp_path: Path) -> None:
    stopped = Training(_config(tmp_path, time_limit=0.0))
    assert not stopped.run()
    assert stopped.step == 0
    began = {name: value.clone() for name, value in stopped.model.state_dict().items()}

    resumed = Training(_config(tmp_path, seed=1))
    assert all(torch.equal(value, began[name]) for name, value in resumed.model.state_dict().items())
    assert resumed.run()
    assert any(not torch.equal(value, began[name]) for name, value in resumed.model.state_dict().items())

    assert ModelConfig.from_directory(tmp_path / "model").text.vocab_size > 256
    with (tmp_path / "log.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert int(row["step"]) == 2
    assert 0 <= float(row["unseen_short_answers"]) <= 1
    assert cv2.imread(str(tmp_path / "loss_curve.png")).std() > 1
    assert Training(_config(tmp_path)).step == 2
