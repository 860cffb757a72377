from __future__ import annotations

import math
import time
from typing import Any

import cv2
import numpy as np
import pytest

from litevlm_ros.vision.frame_change import ChangeGate, change, mosaic

THRESHOLD = 12.0


def street(seed: int = 0, height: int = 1080, width: int = 1920) -> Any:
    """A smooth picture."""
    small = np.random.default_rng(seed).integers(40, 200, (9, 16, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def with_noise(image: Any, levels: float, seed: int) -> Any:
    noise = np.random.default_rng(seed).normal(0, levels, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def difference(one: Any, other: Any) -> float:
    return change(mosaic(one), mosaic(other))


def test_the_same_frame_has_not_changed() -> None:
    assert difference(street(), street()) == 0


def test_sensor_noise_and_compression_are_no_change() -> None:
    image = street()
    assert difference(with_noise(image, 5, 1), with_noise(image, 5, 2)) < THRESHOLD
    jpeg = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_COLOR)
    assert difference(image, jpeg) < THRESHOLD


@pytest.mark.parametrize("row", [0, 3, 507, 1056])
@pytest.mark.parametrize("column", [0, 11, 1000, 1896])
def test_a_small_thing_is_noticed_wherever_it_appears_or_moves(row: int, column: int) -> None:
    image = street()
    thing = image.copy()
    thing[row : row + 24, column : column + 24] = (255, 0, 0)
    assert difference(image, thing) > THRESHOLD
    moved = image.copy()
    shifted = abs(column - 40)
    moved[row : row + 24, shifted : shifted + 24] = (255, 0, 0)
    assert difference(thing, moved) > THRESHOLD


def test_a_light_that_turns_green_is_noticed() -> None:
    red, green = street(), street()
    red[200:216, 900:916] = (220, 30, 30)
    green[200:216, 900:916] = (30, 200, 30)
    assert difference(red, green) > THRESHOLD


def test_a_faint_change_of_everything_is_noticed() -> None:
    image = street()
    assert difference(image, image + np.uint8(2)) < THRESHOLD
    assert difference(image, image + np.uint8(4)) > THRESHOLD


def test_changes_are_symmetric_and_reach_from_black_to_white() -> None:
    black, white = np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 255, np.uint8)
    assert difference(black, white) == difference(white, black) >= 255


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3, 2), (480, 640), (2160, 3840)])
def test_frames_of_all_sizes(size: tuple[int, int]) -> None:
    black, white = np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)
    assert difference(black, black) == 0
    assert difference(black, white) >= 255
    assert max(mosaic(black).shape) <= 80


def test_another_size_is_another_view() -> None:
    assert difference(street(), street(height=480, width=640)) == math.inf


def test_it_takes_less_than_a_millisecond_of_one_core() -> None:
    frames = [street(seed) for seed in range(3)]
    before, threads = mosaic(frames[0]), cv2.getNumThreads()
    cv2.setNumThreads(1)
    times = []
    for turn in range(60):
        started = time.perf_counter()
        change(before, mosaic(frames[turn % 3]))
        times.append(time.perf_counter() - started)
    cv2.setNumThreads(threads)
    assert min(times) < 1e-3


def test_the_gate_opens_for_the_first_frame_for_changes_and_after_a_while() -> None:
    gate = ChangeGate()
    day, night = mosaic(street(0)), mosaic(street(1))
    assert gate.opens(day, 0.0, THRESHOLD, max_hold=10.0)
    gate.used(day, 0.0)
    assert not gate.opens(day, 9.9, THRESHOLD, max_hold=10.0)
    assert gate.opens(day, 10.0, THRESHOLD, max_hold=10.0)
    assert gate.opens(night, 1.0, THRESHOLD, max_hold=10.0)
    gate.used(night, 1.0)
    assert gate.opens(day, 2.0, THRESHOLD, max_hold=10.0)
    assert not gate.opens(night, 10.5, THRESHOLD, max_hold=10.0)
