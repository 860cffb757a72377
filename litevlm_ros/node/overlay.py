"""Captions as pictures, drawn only while somebody looks: ~/overlay/NAME/compressed and ~/overlay/compressed."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

import cv2
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from litevlm_ros.node.overlay_drawing import draw_overlay, grid
from litevlm_ros.types import RgbImage

_JPEG_QUALITY = 85
_STOP_SECONDS = 0.5


class Overlays:
    """One topic for each camera, with every captioned frame, and one with the newest of all cameras side by side.

    Drawing happens in a thread of its own. Where captions come faster than pictures are drawn, each camera's newest one
    is.
    """

    def __init__(self, node: Node, cameras: Sequence[str], width: int) -> None:
        """`width` is that of a picture in pixels, at most."""
        self.width = width
        """May be changed at any time."""
        self._node = node
        tokens = topic_tokens(cameras)
        self._all = node.create_publisher(CompressedImage, "~/overlay/compressed", 1)
        self._publishers = {
            camera: node.create_publisher(CompressedImage, f"~/overlay/{tokens[camera]}/compressed", 1)
            for camera in cameras
        }
        self._waiting: dict[str, tuple[Any, RgbImage]] = {}
        self._newest: dict[str, RgbImage] = {}
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="overlay", daemon=True)
        self._thread.start()

    def show(self, caption: Any, image: RgbImage) -> None:
        """Draws a litevlm_ros/Caption on the image that it is about, if anybody wants to see it. Returns at once."""
        if not self._is_watched(caption.camera):
            self._newest.pop(caption.camera, None)
            return
        with self._changed:
            self._waiting[caption.camera] = (caption, image)
            self._changed.notify()

    def close(self) -> None:
        """Ends drawing and unpublishes the topics."""
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
            except Exception as error:  # such as that of a publisher that was destroyed meanwhile
                if not self._stopped:
                    self._node.get_logger().error(f"No overlay of camera {camera}: {error!r}")

    def _draw(self, caption: Any, image: RgbImage) -> None:
        picture = draw_overlay(image, caption.camera, caption.text, details(caption), self.width)
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
        # rclpy takes an array as it is, and checks bytes one by one.
        message.data.frombytes(jpeg.tobytes())
        publisher.publish(message)


def details(caption: Any) -> str:
    """Tokens and milliseconds of a litevlm_ros/Caption, the most important first."""
    timings = caption.timings
    tokens = f"{caption.prompt_tokens} + {caption.generated_tokens} tokens"
    return (
        f"{timings.total:.0f} ms: vision {timings.vision:.0f}, prefill {timings.prefill:.0f}, "
        f"decode {timings.decode:.0f}, queue {timings.queue:.0f} · {tokens}"
    )


def topic_tokens(names: Sequence[str]) -> dict[str, str]:
    """Camera names as parts of topic names, different ones for different cameras: `front left` → `front_left`."""
    tokens: dict[str, str] = {}
    for name in names:
        token = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "camera"
        token = f"camera_{token}" if token[0].isdigit() else token
        taken = set(tokens.values())
        suffixes = ["", *(f"_{number}" for number in range(2, len(names) + 2))]
        tokens[name] = next(token + suffix for suffix in suffixes if token + suffix not in taken)
    return tokens
