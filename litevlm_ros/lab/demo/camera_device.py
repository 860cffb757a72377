"""A camera that is plugged into this machine, such as /dev/video0, as a source of images."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from litevlm_ros.errors import ImageError
from litevlm_ros.lab.demo.sources import Shot, quiet_opencv
from litevlm_ros.packages import pip_command
from litevlm_ros.types import RgbImage

_DEVICES = Path("/dev")
_STOP_SECONDS = 2.0


class CameraDevice:
    """The newest image of a Video4Linux device; every camera shows the same.

    A thread reads each image as it comes. OpenCV would otherwise hand out images that wait in the driver's buffers,
    which are up to a second old.
    """

    def __init__(self, device: str, cameras: Sequence[str]) -> None:
        """Opens `device`, such as '/dev/video0' or '0', and waits for its first image. Raises ImageError."""
        self.cameras = tuple(cameras)
        self._device = find_device_file(device)
        quiet_opencv()
        number = re.fullmatch(r"video(\d+)", self._device.resolve().name)
        # OpenCV's Video4Linux backend takes the number of a device in every version, its name only in some.
        self._capture = cv2.VideoCapture(int(number[1]) if number else str(self._device), cv2.CAP_V4L2)
        self._image = self._read()
        if self._image is None:
            self._capture.release()
            raise ImageError(
                f"Camera {self._device} gives no images. Another program may have it (see `fuser -v "
                f"{self._device}`), or it is a camera's second device, which has none: try another one of "
                f"{', '.join(_plugged_in())}"
            )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="camera", daemon=True)
        self._thread.start()

    def next(self, seconds: float) -> Shot:
        image = self._image
        if image is None:
            raise ImageError(f"Camera {self._device} gives no more images; plug it in again and start again")
        return Shot(dict.fromkeys(self.cameras, image))

    def close(self) -> None:
        self._ended.set()
        self._thread.join(_STOP_SECONDS)
        if not self._thread.is_alive():  # a device that hangs in a read must not be closed under it
            self._capture.release()

    def _follow(self) -> None:
        while not self._ended.is_set() and self._image is not None:
            self._image = self._read()

    def _read(self) -> RgbImage | None:
        read, frame = self._capture.read()
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8) if read else None


def find_device_file(device: str) -> Path:
    """Returns the file of a camera that is given as '/dev/video0' or '0'.

    Raises ImageError, with the fix, if it is not there, this user may not use it, or this OpenCV reads no cameras.
    """
    file = _DEVICES / f"video{device}" if device.isdecimal() else Path(device)
    if not file.exists():
        there = _plugged_in()
        hint = f"there are {', '.join(there)}" if there else (
            "no camera is plugged in, for there is no /dev/video* at all. A container sees one only if it is started "
            f"with `--device {file}`"
        )  # fmt: skip
        raise ImageError(f"There is no camera {file}: {hint}")
    if not os.access(file, os.R_OK | os.W_OK):
        raise ImageError(
            f"Permission denied for camera {file}: join the group of cameras with `sudo usermod -aG video $USER`, "
            "and log in again"
        )
    if not cv2.videoio_registry.hasBackend(cv2.CAP_V4L2):
        raise ImageError(
            f"OpenCV {cv2.__version__} here was built without Video4Linux, so it reads no cameras; "
            f"`{pip_command('opencv-python-headless')}` brings one that does"
        )
    return file


def _plugged_in() -> list[str]:
    return [str(file) for file in sorted(_DEVICES.glob("video*"))]
