from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_internvl import model_directory

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")

from litevlm_ros.convert.calibration import (  # noqa: E402
    MOST_IMAGES,
    CalibrationData,
    InputStatistics,
    calibration_data,
    measure_inputs,
)
from litevlm_ros.errors import ConfigError  # noqa: E402
from litevlm_ros.model_directory import TEXT, VISION  # noqa: E402

PICTURES = tuple(np.random.default_rng(seed).integers(0, 256, (60, 80, 3)).astype(np.uint8) for seed in range(2))


def test_statistics_add_up() -> None:
    statistics = InputStatistics()
    statistics.add(torch.tensor([[1.0, -3.0]]))
    statistics.add(torch.tensor([[[3.0, 0.0]], [[2.0, 0.0]]]))
    assert statistics.largest == 3
    assert statistics.importance.tolist() == pytest.approx([14 / 3, 3])


@pytest.mark.parametrize("part", [VISION, TEXT])
def test_every_linear_layer_is_measured(part: str) -> None:
    statistics = measure_inputs(part, model_directory(), CalibrationData(PICTURES, "noise"))
    expected = {VISION: "layers.1.fc2", TEXT: "layers.1.down"}[part]
    assert expected in statistics
    for name, found in statistics.items():
        assert found.rows > len(PICTURES), name
        assert 0 < float(found.importance.max()) <= found.largest**2, name


def test_other_pictures_give_other_statistics() -> None:
    noise = measure_inputs(TEXT, model_directory(), CalibrationData(PICTURES, "noise"))
    black = measure_inputs(TEXT, model_directory(), CalibrationData((np.zeros_like(PICTURES[0]),), "black"))
    assert noise["layers.0.qkv"].largest != black["layers.0.qkv"].largest


def test_without_pictures_it_says_that_they_were_rendered() -> None:
    data = calibration_data(None)
    assert len(data.images) > 8
    assert "rendered" in data.description


def test_pictures_are_read_in_order_up_to_a_limit(tmp_path: Path) -> None:
    for number in range(MOST_IMAGES + 3):
        cv2.imwrite(str(tmp_path / f"{number:03}.png"), np.full((8, 9, 3), number, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    data = calibration_data(tmp_path)
    assert [int(image[0, 0, 0]) for image in data.images] == list(range(MOST_IMAGES))
    assert data.description == f"{MOST_IMAGES} pictures of {tmp_path.name}/"


def test_a_directory_without_pictures_is_named(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match=f"calibration-images is {directory}"):
            calibration_data(directory)
