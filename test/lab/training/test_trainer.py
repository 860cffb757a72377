from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import cv2
import torch

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


def test_a_run_that_was_stopped_goes_on_and_writes_model_log_and_curve(tmp_path: Path) -> None:
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
