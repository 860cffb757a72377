"""Camera subscriptions: the newest frame of each camera, and nothing older.

A subscription's callback looks at a message's header fields and stores it. Its pixels are decoded by whoever uses
them, so that the executor is never busy with pictures nobody asked about.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from litevlm_ros.image_decoding import MAX_PIXELS
from litevlm_ros.image_faults import ImageFault, MalformedImageError
from litevlm_ros.messages import check_image, decode_image
from litevlm_ros.types import RgbImage

# Best effort and volatile match publishers of every kind; one message deep, because only the newest counts.
NEWEST_ONLY = QoSProfile(
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.VOLATILE,
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
)


_NUMBERS = itertools.count()


@dataclass(frozen=True)
class CameraSource:
    """Where a camera's images come from."""

    name: str
    topic: str
    compressed: bool
    """CompressedImage, as opposed to Image."""


@dataclass
class CameraCounters:
    """What became of a camera's messages since the node was activated."""

    received: int = 0
    replaced: int = 0
    """Overtaken by a newer message before anybody used them. Normal: cameras are faster than models."""
    dropped: Counter[ImageFault] = field(default_factory=Counter)
    """Malformed ones, by cause. They never replace a good one."""
    unchanged: int = 0
    """Captions that were left out because the view had not changed."""

    def summary(self) -> str:
        """One line for the log."""
        causes = ", ".join(f"{count} {fault.value}" for fault, count in self.dropped.items()) or "none"
        captions = f"; {self.unchanged} captions of an unchanged view left out" if self.unchanged else ""
        return f"{self.received} images received, {self.replaced} replaced by newer ones, dropped: {causes}{captions}"


class Frame:
    """One received message, decoded at most once."""

    def __init__(self, camera: Camera, message: Any) -> None:
        self.camera = camera
        self.number = next(_NUMBERS)
        """Of this frame among all of this process."""
        self.arrival = time.monotonic()
        """Seconds on the monotonic clock."""
        self.used = False
        self._message = message
        self._decoded: RgbImage | MalformedImageError | None = None
        self._lock = threading.Lock()

    @property
    def header(self) -> Header:
        """The message's header: when and where the image was taken."""
        return self._message.header

    def age(self) -> float:
        """Seconds since it arrived."""
        return time.monotonic() - self.arrival

    def image(self) -> RgbImage:
        """The RGB image. Raises MalformedImageError, which the camera has then counted and logged."""
        with self._lock:
            if self._decoded is None:
                self._decoded = self.camera._decode(self._message)
            if isinstance(self._decoded, MalformedImageError):
                raise self._decoded
            return self._decoded


class Camera:
    """A subscription and the newest frame it brought."""

    def __init__(
        self,
        node: Node,
        source: CameraSource,
        on_frame: Callable[[Camera], None],
        *,
        max_pixels: int = MAX_PIXELS,
        callback_group: Any = None,
    ) -> None:
        """`on_frame` is called in the executor after each good message and must return at once. Nothing comes before
        open()."""
        self.source = source
        self.topic: str = node.resolve_topic_name(source.topic)
        """The topic after namespace and remappings."""
        self.counters = CameraCounters()
        self._node = node
        self._on_frame = on_frame
        self._max_pixels = max_pixels
        self._callback_group = callback_group
        self._subscription: Any = None
        self._newest: Frame | None = None
        self._fault = ""
        self._closed = False
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The camera's name in parameters, queries and captions."""
        return self.source.name

    def open(self) -> None:
        """Subscribes."""
        self._subscription = self._node.create_subscription(
            CompressedImage if self.source.compressed else Image,
            self.source.topic,
            self._receive,
            NEWEST_ONLY,
            callback_group=self._callback_group,
        )

    def close(self) -> None:
        """Unsubscribes and forgets the newest frame, for good."""
        self._closed = True
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._newest = None

    def newest(self, max_age: float) -> Frame | None:
        """The newest frame if it arrived less than `max_age` seconds ago."""
        frame = self._newest
        return frame if frame is not None and frame.age() <= max_age else None

    def use(self, max_age: float) -> Frame | None:
        """Like newest(), and the frame counts as used rather than replaced from now on."""
        with self._lock:
            frame = self.newest(max_age)
            if frame is not None:
                frame.used = True
            return frame

    def why_no_frame(self, max_age: float) -> str:
        """What a query waits for when newest() gives nothing, in words for the person who asked."""
        if self._closed:
            return f"{self.name} (the node has stopped listening to {self.topic})"
        frame = self._newest
        if frame is not None:
            age = f"{frame.age():.1f} s old, max_frame_age is {max_age:g} s"
            since = f"; only malformed images came after it: {self._fault}" if self._fault else ""
            return f"{self.name} (the last frame on {self.topic} is {age}{since})"
        if self._fault:
            return f"{self.name} ({self.topic} has brought only malformed images: {self._fault})"
        wanted = "sensor_msgs/msg/CompressedImage" if self.source.compressed else "sensor_msgs/msg/Image"
        found = [publisher.topic_type for publisher in self._node.get_publishers_info_by_topic(self.topic)]
        if not found:
            return f"{self.name} (nobody publishes {self.topic})"
        if wanted not in found:
            return f"{self.name} ({self.topic} carries {found[0]}, not {wanted}; change camera_topics or transport)"
        return f"{self.name} ({self.topic} has a publisher but has brought no frame yet)"

    def _receive(self, message: Any) -> None:
        frame = Frame(self, message)
        self.counters.received += 1
        try:
            check_image(message, max_pixels=self._max_pixels)
        except MalformedImageError as error:
            self._drop(error)
            return
        with self._lock:
            if self._newest is not None and not self._newest.used:
                self.counters.replaced += 1
            self._newest = frame
            self._fault = ""
        self._on_frame(self)

    def _decode(self, message: Any) -> RgbImage | MalformedImageError:
        try:
            return decode_image(message, max_pixels=self._max_pixels)
        except MalformedImageError as error:
            self._drop(error)
            return error

    def _drop(self, error: MalformedImageError) -> None:
        with self._lock:
            first = not self.counters.dropped
            self.counters.dropped[error.fault] += 1
            self._fault = str(error)
        if first:
            self._node.get_logger().warning(
                f"Dropped an image of camera {self.name} on {self.topic}: {error}. "
                "Further malformed images of this camera are counted, not logged."
            )
