from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tiny_internvl import model_directory

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")

from litevlm_ros.convert.calibration import (  # noqa: E402
    CalibrationData,
    InputStatistics,
    measure_inputs,
)
from litevlm_ros.lab.world.calibration import calibration_data  # noqa: E402
from litevlm_ros.model_directory import TEXT, VISION  # noqa: E402

Prompt = Callable[[int, int], list[int]]

PICTURES = tuple(np.random.default_rng(seed).integers(0, 256, (60, 80, 3)).astype(np.uint8) for seed in range(2))


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    """Questions as a user's pictures are calibrated with."""
    return calibration_data(model_directory()).prompt


def test_statistics_add_up() -> None:
    statistics = InputStatistics()
    statistics.add(torch.tensor([[1.0, -3.0]]))
    statistics.add(torch.tensor([[[3.0, 0.0]], [[2.0, 0.0]]]))
    assert statistics.largest == 3
    assert statistics.importance.tolist() == pytest.approx([14 / 3, 3])


@pytest.mark.parametrize("part", [VISION, TEXT])
def test_every_linear_layer_is_measured(part: str, prompt: Prompt) -> None:
    statistics = measure_inputs(part, model_directory(), CalibrationData(PICTURES, "noise", prompt))
    expected = {VISION: "layers.1.fc2", TEXT: "layers.1.down"}[part]
    assert expected in statistics
    for name, found in statistics.items():
        assert found.rows > len(PICTURES), name
        assert 0 < float(found.importance.max()) <= found.largest**2, name


def test_other_pictures_give_other_statistics(prompt: Prompt) -> None:
    noise = measure_inputs(TEXT, model_directory(), CalibrationData(PICTURES, "noise", prompt))
    black = measure_inputs(
        TEXT,
        model_directory(),
        CalibrationData((np.zeros_like(PICTURES[0]),), "black", prompt),
    )
    assert noise["layers.0.qkv"].largest != black["layers.0.qkv"].largest
