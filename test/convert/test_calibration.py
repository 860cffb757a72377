from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tiny_internvl import model_directory

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")

from litevlm_ros.convert.calibration import CalibrationData, data_for, measure_importance  # noqa: E402
from litevlm_ros.lab.world.calibration import calibration_data  # noqa: E402
from litevlm_ros.model_directory import TEXT, VISION  # noqa: E402
from litevlm_ros.precision import PACKED_PRECISIONS  # noqa: E402

Prompt = Callable[[int, int], list[int]]

PICTURES = tuple(np.random.default_rng(seed).integers(0, 256, (60, 80, 3)).astype(np.uint8) for seed in range(2))


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    """Questions as a user's pictures are calibrated with."""
    return calibration_data(model_directory()).prompt


@pytest.mark.parametrize("part", [VISION, TEXT])
def test_every_linear_layer_is_measured(part: str, prompt: Prompt) -> None:
    importance = measure_importance(part, model_directory(), CalibrationData(PICTURES, "noise", prompt))
    expected, inputs = {VISION: ("layers.1.fc2", 64), TEXT: ("layers.1.down", 80)}[part]
    assert importance[expected].shape == (inputs,)
    for name, found in importance.items():
        assert found.dtype == torch.float32, name
        assert 0 <= float(found.min()) < float(found.max()), name


def test_importance_is_the_mean_square_over_all_pictures(prompt: Prompt) -> None:
    """Vision encoder: each picture has as many rows, so the mean of both is the mean of the two means."""
    both, first, second = (
        measure_importance(VISION, model_directory(), CalibrationData(pictures, "noise", prompt))["layers.0.qkv"]
        for pictures in (PICTURES, PICTURES[:1], PICTURES[1:])
    )
    assert not torch.allclose(first, second)
    torch.testing.assert_close(both, (first + second) / 2)


def test_other_pictures_matter_for_the_text_decoder_too(prompt: Prompt) -> None:
    noise = measure_importance(TEXT, model_directory(), CalibrationData(PICTURES, "noise", prompt))
    black = measure_importance(
        TEXT,
        model_directory(),
        CalibrationData((np.zeros_like(PICTURES[0]),), "black", prompt),
    )
    assert not torch.equal(noise["layers.0.qkv"], black["layers.0.qkv"])


def test_only_int4_is_calibrated(prompt: Prompt) -> None:
    data = CalibrationData(PICTURES, "noise", prompt)
    assert [data_for(precision, lambda: data) for precision in PACKED_PRECISIONS] == [None, None, data]
    assert data_for("int4", None) is None
