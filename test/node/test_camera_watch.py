# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from litevlm_ros.node import camera_watch
from litevlm_ros.node.camera_topics import Diagnosis, Silence
from litevlm_ros.node.camera_watch import CameraWatch

pytestmark = pytest.mark.ros


class Camera:
    """A camera whose state is what a test sets."""

    name, topic = "front", "/front/image_raw"

    def __init__(self) -> None:
        self.counters = type("Counters", (), {"received": 0})()
        self.frame: Any = None
        self.diagnosis = Diagnosis(Silence.NO_PUBLISHER, "nobody publishes /front/image_raw")

    def newest(self, max_age: float) -> Any:
        return self.frame

    def diagnose(self, max_age: float) -> Diagnosis:
        return self.diagnosis


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.info = self.warning = self.lines.append


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, which tests change."""
    time = [100.0]
    monkeypatch.setattr(camera_watch.time, "monotonic", lambda: time[0])
    return time


def frame(delay: float = 0.0) -> Any:
    return type("Frame", (), {"delay": lambda self: delay})()


def test_each_change_is_said_once(now: list[float]) -> None:
    camera, log = Camera(), Log()
    watch = CameraWatch(camera, log)  # type: ignore[arg-type]

    def seconds(count: int) -> None:
        for _ in range(count):
            now[0] += 1.0
            camera.counters.received += 10 if camera.frame else 0
            watch.look(2.0)

    seconds(5)
    assert not log.lines, "drivers take a while to begin"
    seconds(5)
    assert log.lines == ["Camera front brings no images: nobody publishes /front/image_raw"]
    assert watch.diagnosis is camera.diagnosis
    camera.frame = frame()
    seconds(6)
    assert log.lines[1:] == ["Camera front: images arrive on /front/image_raw"]
    assert (watch.rate.per_second, watch.diagnosis) == (10.0, None)
    camera.frame = None
    seconds(5)
    assert log.lines[2:] == log.lines[:1]
    camera.diagnosis = Diagnosis(Silence.INCOMPATIBLE_QOS, "/front/image_raw has incompatible QoS")
    seconds(5)
    assert log.lines[3:] == ["Camera front brings no images: /front/image_raw has incompatible QoS"]


@pytest.mark.parametrize("silence", [Silence.WRONG_TYPE, Silence.INCOMPATIBLE_QOS])
def test_what_waiting_does_not_mend_is_said_at_once(now: list[float], silence: Silence) -> None:
    camera, log = Camera(), Log()
    camera.diagnosis = Diagnosis(silence, "because")
    CameraWatch(camera, log).look(2.0)  # type: ignore[arg-type]
    assert log.lines == ["Camera front brings no images: because"]


def test_frames_that_are_too_old_when_they_come_are_no_images(now: list[float]) -> None:
    camera, log = Camera(), Log()
    camera.frame = frame(3.0)
    camera.diagnosis = Diagnosis(Silence.LATE, "late")
    watch = CameraWatch(camera, log)  # type: ignore[arg-type]
    watch.look(2.0)
    assert log.lines == ["Camera front brings no images: late"]
    watch.look(4.0)
    assert watch.brings_images
