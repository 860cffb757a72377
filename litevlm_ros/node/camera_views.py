"""Turns camera names, or the images of a question, into the views that the pipeline takes."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from litevlm_ros.errors import ConfigError, ImageError, NoFrameError, printable
from litevlm_ros.node.cameras import Camera
from litevlm_ros.node.messages import take_image
from litevlm_ros.types import View, milliseconds_since

NO_CAMERAS = "none"
"""The name in `cameras` by which a question says that it is about no image."""


@dataclass(frozen=True)
class Views:
    """Views as the pipeline takes them, and the facts about them that answers report."""

    views: tuple[View, ...]
    headers: Mapping[str, Header]
    """Header of each view's source frame, by camera."""
    arrival: float
    """Time when the oldest view arrived, in seconds on the monotonic clock; without views, the time now."""
    decode_ms: float
    """Time that decoding all of them took, in milliseconds; next to nothing for those that stay raw."""


class CameraViews:
    """The newest frames of a set of cameras."""

    def __init__(
        self, cameras: Mapping[str, Camera], max_age: float, raw_encodings: Collection[str] = frozenset()
    ) -> None:
        """`raw_encodings` are those of `Backend.raw_encodings`: images of which are not decoded here."""
        self._cameras = cameras
        self.raw_encodings = raw_encodings
        self.max_age = max_age
        """Age in seconds above which a frame is never used. May be changed."""

    def check(self, names: Sequence[str]) -> None:
        """Raises the errors that take() would raise now, without decoding anything."""
        self._fresh(names)

    def take(self, names: Sequence[str], *, decoded: bool = False) -> Views:
        """Returns the newest frame of each named camera; without names, of all that have one.

        They are decoded unless the backend takes them raw; with `decoded`, all are.

        Raises ConfigError for an unknown camera, and NoFrameError if a named camera has no usable frame, or no camera
        has: because it is missing, too old or malformed.
        """
        started = time.perf_counter()
        views, headers, arrivals = [], {}, []
        failures: list[str] = []
        raw_encodings = () if decoded else self.raw_encodings
        for camera in self._fresh(names):
            frame = camera.use(self.max_age)
            if frame is None:
                failures.append(camera.why_no_frame(self.max_age))
                continue
            try:
                views.append(View(camera.name, frame.image(raw_encodings), frame.number))
            except ImageError as error:
                failures.append(f"{camera.name} (its newest image is malformed: {error})")
                continue
            headers[camera.name] = frame.header
            arrivals.append(frame.arrival)
        if failures and (names or not views):
            raise NoFrameError(f"no usable image from {'; '.join(failures)}")
        return Views(tuple(views), headers, min(arrivals), milliseconds_since(started))

    def _fresh(self, names: Sequence[str]) -> list[Camera]:
        unknown = [name for name in names if name not in self._cameras]
        if unknown:
            raise ConfigError(f"unknown camera {printable(', '.join(unknown))}; known are {', '.join(self._cameras)}")
        wanted = [self._cameras[name] for name in dict.fromkeys(names)] or list(self._cameras.values())
        fresh = [camera for camera in wanted if camera.newest(self.max_age) is not None]
        if not fresh or (names and len(fresh) < len(wanted)):
            waiting = [camera.why_no_frame(self.max_age) for camera in wanted if camera not in fresh]
            raise NoFrameError(f"waiting for an image from {'; '.join(waiting)}")
        return fresh


def no_views() -> Views:
    """Returns the views of a question that is about no image."""
    return Views((), {}, time.monotonic(), 0.0)


def take_question_images(
    images: Sequence[Image | CompressedImage],
    names: Sequence[str],
    max_pixels: int,
    raw_encodings: Collection[str] = (),
) -> Views:
    """Returns the images that came with a question, decoded unless their encoding is one of `raw_encodings`.

    Raises ImageError, which names the malformed image.
    """
    started = time.perf_counter()
    arrival = time.monotonic()
    views = []
    for name, image in zip(names, images, strict=True):
        try:
            views.append(View(name, take_image(image, raw_encodings, max_pixels=max_pixels)))
        except ImageError as error:
            raise ImageError(f"{printable(name)}: {error}") from None
    headers = {name: image.header for name, image in zip(names, images, strict=True)}
    return Views(tuple(views), headers, arrival, milliseconds_since(started))
