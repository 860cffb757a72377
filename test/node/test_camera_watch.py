# ruff: noqa: E402 - what follows a skip cannot be at the top
from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
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
        self.counters = SimpleNamespace(received=0, lost=0)
        self.clock = SimpleNamespace(tells_ages=lambda max_age: self.diagnosis.silence is not Silence.CLOCK)
        self.publishers = ["/driver"]
        self.frame: Any = None
        self.diagnosis = Diagnosis(Silence.NO_PUBLISHER, "nobody publishes /front/image_raw")

    def newest(self, max_age: float) -> Any:
        return self.frame

    def last(self) -> Any:
        return self.frame

    def diagnose(self, max_age: float) -> Diagnosis:
        return self.diagnosis

    def look_at_publishers(self) -> list[str]:
        return self.publishers

    def loss_fix(self) -> str:
        return "mend the cable"


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
    return SimpleNamespace(delay=lambda: delay, age=lambda: delay)


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


def test_a_clock_that_stands_still_is_no_line_of_each_camera(now: list[float]) -> None:
    camera, log = Camera(), Log()
    camera.frame, camera.diagnosis = frame(), Diagnosis(Silence.CLOCK, "/clock has stood still")
    watch = CameraWatch(camera, log)  # type: ignore[arg-type]
    now[0] += 6.0
    watch.look(2.0)
    assert watch.diagnosis is camera.diagnosis
    assert not log.lines, "the node's own line says it"
    camera.diagnosis = Diagnosis(Silence.NO_MESSAGE, "fine again")
    watch.look(2.0)
    assert log.lines == ["Camera front: images arrive on /front/image_raw"]


def test_a_bag_that_begins_again_is_no_interruption(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    camera, log = Camera(), Log()
    camera.frame = frame()
    watch = CameraWatch(camera, log)  # type: ignore[arg-type]
    watch.look(2.0)
    before = SimpleNamespace(age=lambda: math.inf, arrival=now[0])
    monkeypatch.setattr(camera, "newest", lambda max_age: None)
    camera.frame = before
    watch.look(2.0)
    assert (watch.brings_images, len(log.lines)) == (True, 1)
    now[0] += 6.0
    watch.look(2.0)
    assert not watch.brings_images


def test_lost_images_are_said_once_and_then_rarely(now: list[float]) -> None:
    camera, log = Camera(), Log()
    watch = CameraWatch(camera, log)  # type: ignore[arg-type]

    def second(received: int, lost: int) -> None:
        now[0] += 1.0
        camera.counters.received += received
        camera.counters.lost += lost
        watch.look(2.0)

    camera.frame = frame()
    for _ in range(3):
        second(30, 3)
    assert watch.loss == ""
    for _ in range(60):
        second(3, 27)
    said = [line for line in log.lines if "lost" in line]
    assert said == ["Camera front on /front/image_raw: 36 of 129 images were lost on their way; mend the cable"]
    assert watch.loss == "135 of 150 images were lost on their way; mend the cable"
    now[0] += camera_watch.LOSS_LOG_PERIOD
    second(3, 27)
    assert len([line for line in log.lines if "lost" in line]) == 2
    for _ in range(6):
        second(30, 0)
    assert watch.loss == ""


def test_two_publishers_of_one_topic_are_said_once(now: list[float]) -> None:
    camera, log = Camera(), Log()
    camera.frame = frame()
    watch = CameraWatch(camera, log)  # type: ignore[arg-type]

    def seconds(count: int) -> list[str]:
        for _ in range(count):
            now[0] += 1.0
            watch.look(2.0)
        return [line for line in log.lines if "publishers" in line]

    camera.publishers = ["/driver", "/bag"]
    assert not seconds(4), "a driver that starts again leaves the old one behind for a moment"
    assert len(seconds(20)) == 1
    assert "Camera front: 2 publishers send images to /front/image_raw: /bag, /driver; the camera" in seconds(1)[0]
    assert "stop or remap one" in watch.rivals
    camera.publishers = ["/driver"]
    seconds(1)
    assert not watch.rivals
