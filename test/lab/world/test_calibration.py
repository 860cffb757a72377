from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from package_files import DEMO_MODEL

pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.world.calibration import MOST_IMAGES, calibration_data
from litevlm_ros.model_config import ModelConfig


def test_a_prompt_has_the_visual_tokens_of_all_tiles_and_a_question() -> None:
    config = ModelConfig.from_directory(DEMO_MODEL)
    data = calibration_data(DEMO_MODEL)
    first, second = data.prompt(0, 2), data.prompt(1, 1)
    visual = [token - config.text.vocab_size for token in first if token >= config.text.vocab_size]
    assert visual == list(range(2 * config.vision.tokens_per_tile))
    assert len(first) > len(visual) + 3
    assert first[-20:] != second[-20:], "another camera and another question"


def test_without_pictures_it_says_that_they_were_rendered() -> None:
    data = calibration_data(DEMO_MODEL)
    assert len(data.images) > 8
    assert "rendered" in data.description


def test_pictures_are_read_in_order_up_to_a_limit(tmp_path: Path) -> None:
    for number in range(MOST_IMAGES + 3):
        cv2.imwrite(str(tmp_path / f"{number:03}.png"), np.full((8, 9, 3), number, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    data = calibration_data(DEMO_MODEL, tmp_path)
    assert [int(image[0, 0, 0]) for image in data.images] == list(range(MOST_IMAGES))
    assert data.description == f"{MOST_IMAGES} pictures of {tmp_path.name}/"


def test_a_directory_without_pictures_is_named(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match=f"calibration-images is {directory}"):
            calibration_data(DEMO_MODEL, directory)
