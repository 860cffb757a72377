"""Overlays: frames with their captions drawn on them, on ~/overlay/NAME/compressed and ~/overlay/compressed.

They are drawn only while somebody subscribes to them.
"""

from __future__ import annotations

import bisect
import math
import re
import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.images.text_drawing import Colour, draw_text, text_width, wrap
from litevlm_ros.types import AnyImage, RgbImage

_JPEG_QUALITY = 85
_STOP_SECONDS = 0.5

_INK: Colour = (255, 255, 255)
_FAINT: Colour = (205, 208, 212)
_ACCENT: Colour = (124, 196, 255)
_SHADE = 0.35
"""Share of its brightness that the image keeps behind text."""
_MOST_LINES = 4
_MOST_CHARACTERS = 800
"""Largest number of characters that are laid out; more than these lines hold."""
_SMALLEST_TEXT = 13


class Overlays:
    """One topic for each camera with its captioned frames, and one with the newest of all cameras side by side.

    They are drawn in a thread of their own. If captions come faster than they can be drawn, only each camera's newest
    one is.
    """

    def __init__(self, node: Node, cameras: Sequence[str], width: int) -> None:
        """`width` is the largest width of a picture in pixels."""
        self.width = width
        """May be changed at any time."""
        self._node = node
        tokens = topic_tokens(cameras)
        self._all = node.create_publisher(CompressedImage, "~/overlay/compressed", 1)
        self._publishers = {
            camera: node.create_publisher(CompressedImage, f"~/overlay/{tokens[camera]}/compressed", 1)
            for camera in cameras
        }
        self._waiting: dict[str, tuple[Any, AnyImage]] = {}
        self._newest: dict[str, RgbImage] = {}
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="overlay", daemon=True)
        self._thread.start()

    def show(self, caption: Any, image: AnyImage) -> None:
        """Draws a litevlm_ros/Caption on the image that it is about if anybody subscribes. Returns at once."""
        if not self._is_watched(caption.camera):
            self._newest.pop(caption.camera, None)
            return
        with self._changed:
            self._waiting[caption.camera] = (caption, image)
            self._changed.notify()

    def close(self) -> None:
        """Stops drawing and removes the topics."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(_STOP_SECONDS)
        for publisher in (self._all, *self._publishers.values()):
            self._node.destroy_publisher(publisher)

    def _is_watched(self, camera: str) -> bool:
        return any(publisher.get_subscription_count() for publisher in (self._publishers[camera], self._all))

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                camera = next(iter(self._waiting))
                caption, image = self._waiting.pop(camera)
            try:
                self._draw(caption, image)
            except Exception as error:  # for example because a publisher was destroyed meanwhile
                if not self._stopped:
                    self._node.get_logger().error(f"No overlay of camera {camera}: {error!r}")

    def _draw(self, caption: Any, image: AnyImage) -> None:
        picture = draw_overlay(as_rgb(image), caption.camera, caption.text, _details(caption), self.width)
        if self._publishers[caption.camera].get_subscription_count():
            self._publish(self._publishers[caption.camera], caption.header, picture)
        if not self._all.get_subscription_count():
            self._newest.clear()
            return
        self._newest[caption.camera] = picture
        pictures = [self._newest[camera] for camera in self._publishers if camera in self._newest]
        self._publish(self._all, caption.header, grid(pictures, self.width))

    def _publish(self, publisher: Any, header: Any, picture: RgbImage) -> None:
        quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), quality)
        message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
        # rclpy checks bytes one by one, but takes an array as it is.
        message.data.frombytes(jpeg.tobytes())
        publisher.publish(message)


def _details(caption: Any) -> str:
    """Returns the timings and token counts of a litevlm_ros/Caption in one line, the most important first."""
    timings = caption.timings
    tokens = f"{caption.prompt_tokens} + {caption.generated_tokens} tokens"
    return (
        f"{timings.total:.0f} ms: vision {timings.vision:.0f}, prefill {timings.prefill:.0f}, "
        f"decode {timings.decode:.0f}, queue {timings.queue:.0f} · {tokens}"
    )


def topic_tokens(names: Sequence[str]) -> dict[str, str]:
    """Returns a valid and unique part of a topic name for each camera name, such as `front_left` for `front left`."""
    tokens: dict[str, str] = {}
    for name in names:
        token = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "camera"
        token = f"camera_{token}" if token[0].isdigit() else token
        taken = set(tokens.values())
        suffixes = ["", *(f"_{number}" for number in range(2, len(names) + 2))]
        tokens[name] = next(token + suffix for suffix in suffixes if token + suffix not in taken)
    return tokens


def draw_overlay(image: RgbImage, camera: str, caption: str, details: str, width: int) -> RgbImage:
    """Returns a copy of `image` with the camera's name and `details` at the top and the caption at the bottom.

    The copy is uint8 [height, width, 3] and at most `width` pixels wide. Images of less than 160 pixels are enlarged to
    160, so that the text can be read.
    """
    canvas = _scaled(image, max(160, min(width, image.shape[1])))
    height, width = canvas.shape[:2]
    size = max(_SMALLEST_TEXT, width // 36)
    margin, line = size // 2, round(1.45 * size)
    _shade(canvas, 0, line + margin)
    baseline = margin + size
    draw_text(canvas, camera, margin, baseline - margin // 4, _ACCENT, size)
    small = max(_SMALLEST_TEXT - 2, round(0.7 * size))
    room = width - 3 * margin - text_width(camera, size)
    details = _fit(details, room, small)
    draw_text(canvas, details, width - margin - text_width(details, small), baseline - margin // 4, _FAINT, small)
    lines = wrap(caption[:_MOST_CHARACTERS], width - 2 * margin, size)
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], _fit(" ".join(lines[_MOST_LINES - 1 :]), width - 2 * margin, size)]
    top = max(0, height - len(lines) * line - margin)
    _shade(canvas, top, height)
    for number, text in enumerate(lines):
        draw_text(canvas, text, margin, top + margin // 2 + size + number * line, _INK, size)
    return canvas


def grid(pictures: Sequence[RgbImage], width: int) -> RgbImage:
    """Returns the pictures side by side in equal cells, in their order, together `width` pixels wide.

    A picture of another shape than the first one is letterboxed.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    cell_width = max(1, width // columns)
    cell_height = max(1, round(cell_width * pictures[0].shape[0] / pictures[0].shape[1]))
    canvas = np.zeros((rows * cell_height, columns * cell_width, 3), np.uint8)
    for number, picture in enumerate(pictures):
        scale = min(cell_width / picture.shape[1], cell_height / picture.shape[0])
        small = _scaled(picture, max(1, int(picture.shape[1] * scale)))[:cell_height]
        y = number // columns * cell_height + (cell_height - small.shape[0]) // 2
        x = number % columns * cell_width + (cell_width - small.shape[1]) // 2
        canvas[y : y + small.shape[0], x : x + small.shape[1]] = small
    return canvas


def _scaled(image: RgbImage, width: int) -> RgbImage:
    if width == image.shape[1]:
        return image.copy()
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    shrinking = width < image.shape[1]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized, np.uint8)


def _shade(canvas: RgbImage, top: int, bottom: int) -> None:
    canvas[top:bottom] = (canvas[top:bottom] * _SHADE).astype(np.uint8)


def _fit(text: str, width: int, size: int) -> str:
    """Returns the text, or as much of it as fits into `width` pixels, with an ellipsis."""
    if text_width(text, size) <= width:
        return text
    fits = bisect.bisect_right(range(1, len(text)), width, key=lambda end: text_width(f"{text[:end]}…", size))
    return f"{text[:fits].rstrip()}…" if fits else ""
