"""A camera that the test plays in the place of Video4Linux."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from litevlm_ros.errors import ImageError
from litevlm_ros.lab.demo import camera_device
from litevlm_ros.lab.demo.camera_device import CameraDevice

Opened = list[tuple[Any, int]]


class Video4Linux:
    """Gives `count` images, each brighter than the one before, and then none."""

    count = 0
    read_before = 0

    def __init__(self, opened: Opened, device: Any, backend: int) -> None:
        opened.append((device, backend))
        self.released = False

    def read(self) -> tuple[bool, Any]:
        if type(self).read_before >= type(self).count:
            return False, None
        type(self).read_before += 1
        time.sleep(0.002)
        return True, np.full((6, 8, 3), (0, 0, min(255, type(self).read_before)), np.uint8)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A machine whose devices are files in a folder, video0 and video2."""
    devices: Opened = []
    for number in (0, 2):
        (tmp_path / f"video{number}").touch()
    monkeypatch.setattr(camera_device, "_DEVICES", tmp_path)
    monkeypatch.setattr(Video4Linux, "count", 10**9)
    monkeypatch.setattr(Video4Linux, "read_before", 0)
    monkeypatch.setattr(cv2, "VideoCapture", lambda device, backend: Video4Linux(devices, device, backend))
    return devices


def wait_for_change(camera: CameraDevice, before: Any) -> Any:
    deadline = time.monotonic() + 30
    while np.array_equal(image := camera.next(0.0).images["front"], before):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return image


def test_every_camera_shows_the_newest_image(opened: Opened, tmp_path: Path) -> None:
    camera = CameraDevice("2", ["front", "back"])
    shot = camera.next(0.0)
    assert shot.images["front"] is shot.images["back"]
    assert shot.images["front"][0, 0, 0] > 0, "red comes first"
    wait_for_change(camera, shot.images["front"])
    camera.close()
    assert opened == [(2, cv2.CAP_V4L2)]


def test_a_link_is_followed_to_its_number(opened: Opened, tmp_path: Path) -> None:
    link = tmp_path / "usb-port-index0"
    link.symlink_to(tmp_path / "video0")
    CameraDevice(str(link), ["front"]).close()
    assert opened == [(0, cv2.CAP_V4L2)]


def test_a_camera_that_is_pulled_out_is_told(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Video4Linux, "count", 5)
    camera = CameraDevice("0", ["front"])

    def until_it_ends() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            camera.next(0.0)

    with pytest.raises(ImageError, match="gives no more images; plug it in again"):
        until_it_ends()
    camera.close()


def test_a_camera_without_images_is_refused_with_the_others(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Video4Linux, "count", 0)
    with pytest.raises(
        ImageError, match=r"gives no images.*`fuser -v .*video0`.*try another one of .*video0, .*video2"
    ):
        CameraDevice("0", ["front"])


def test_a_missing_camera_is_told_with_those_that_are_there(opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"There is no camera /nowhere/video9: there are .*video0, .*video2$"):
        CameraDevice("/nowhere/video9", ["front"])
    for number in (0, 2):
        (tmp_path / f"video{number}").unlink()
    with pytest.raises(ImageError, match=r"no camera is plugged in, .*`--device .*video0`"):
        CameraDevice("0", ["front"])


def test_a_camera_of_others_is_told_with_the_group(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ImageError, match=r"Permission denied for camera .*`sudo usermod -aG video \$USER`"):
        CameraDevice("0", ["front"])


def test_an_opencv_without_cameras_is_told(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    with pytest.raises(ImageError, match=r"built without Video4Linux.*pip install opencv-python-headless"):
        CameraDevice("0", ["front"])
