"""Everything that the node has only while it is active: camera subscriptions, captions, answers and overlays."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from litevlm_ros.node.camera_views import CameraViews
from litevlm_ros.node.camera_watch import CameraWatches
from litevlm_ros.node.cameras import Camera
from litevlm_ros.node.captioner import Captioner
from litevlm_ros.node.frame_clock import FrameClock
from litevlm_ros.node.inference import Inference
from litevlm_ros.node.overlay import Overlays
from litevlm_ros.node.questions import QuestionAnswerer
from litevlm_ros.node.settings import NodeSettings
from litevlm_ros.types import AnyImage


class Activity:
    """The cameras, and what is done with their frames, from one activation of the node to its deactivation."""

    def __init__(
        self,
        node: Node,
        settings: NodeSettings,
        inference: Inference,
        publish_caption: Callable[[Any, AnyImage], None],
        publish_answer: Callable[[Any], None],
        raw_encodings: Collection[str],
    ) -> None:
        """Does not subscribe to the cameras yet; open() does.

        `publish_caption` takes a litevlm_ros/Caption and the image that it is about, `publish_answer` a
        litevlm_ros/Answer. Both are called on the inference thread. `raw_encodings` are those that need no decoding.
        """
        self.cameras: dict[str, Camera] = {}
        self._node = node
        self._log = node.get_logger()
        self._views = CameraViews(self.cameras, settings.max_frame_age, raw_encodings)
        self.answerer = QuestionAnswerer(settings, self._views, inference, publish_answer, node.get_clock())
        self.captioner = Captioner(settings, self._views, inference, publish_caption, self._log)
        self._clock = FrameClock(node, settings.frame_clock)
        group = MutuallyExclusiveCallbackGroup()
        for source in settings.sources:
            self.cameras[source.name] = Camera(
                node,
                source,
                self.captioner.on_frame,
                clock=self._clock,
                max_pixels=settings.max_image_pixels,
                callback_group=group,
            )
        self.overlays = Overlays(node, tuple(self.cameras), settings.overlay_width)
        self.watches = CameraWatches(node, self.cameras.values(), lambda: self._views.max_age)

    def open(self) -> None:
        """Subscribes to the cameras. Raises ConfigError if an override of a QoS is wrong."""
        for camera in self.cameras.values():
            camera.open(self.watches.look_at)

    def apply(self, settings: NodeSettings) -> None:
        """Uses other values of live parameters from now on."""
        self.answerer.settings = self.captioner.settings = settings
        self._views.max_age = settings.max_frame_age
        self._clock.counts_from = settings.frame_clock
        self.overlays.width = settings.overlay_width

    def close(self) -> None:
        """Unsubscribes from the cameras and logs their counters."""
        self.watches.close()
        self.overlays.close()
        for camera in self.cameras.values():
            camera.close()
            self._log.info(f"Camera {camera.name}: {camera.counters.summary()}")
